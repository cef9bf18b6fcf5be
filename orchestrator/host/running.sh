# The servers that run in a data directory: their process ids, one a line. It changes nothing.
# Argument: the directory with all links resolved.
set -u
for process in /proc/[0-9]*/cwd; do
    if [ "$(readlink "$process" 2>/dev/null)" = "$1" ]; then
        process=${process%/cwd}
        case $(cat "$process/comm" 2>/dev/null) in
        mariadbd* | mysqld*) printf '%s\n' "${process#/proc/}" ;;
        esac
    fi
done
printf 'end\n'
