# Which servers run in a data directory; other scripts have this text in front of their own.

# Prints their process ids, one a line. The directory is given with all links resolved.
list_servers() {
    for process in /proc/[0-9]*/cwd; do
        if [ "$(readlink "$process" 2>/dev/null)" = "$1" ]; then
            process=${process%/cwd}
            case $(cat "$process/comm" 2>/dev/null) in
            mariadbd* | mysqld*) printf '%s\n' "${process#/proc/}" ;;
            esac
        fi
    done
}
