# Which servers run in a data directory; other scripts have this text in front of their own.

# Prints their process ids, one a line. The directory is given with all links resolved.
list_servers() {
    for process in /proc/[0-9]*; do
        # By its name first, which takes no process of our own: a host has hundreds.
        name=
        { read -r name <"$process/comm"; } 2>/dev/null
        case $name in
        mariadbd* | mysqld*)
            if [ "$(readlink "$process/cwd" 2>/dev/null)" = "$1" ]; then
                printf '%s\n' "${process#/proc/}"
            fi
            ;;
        esac
    done
}
