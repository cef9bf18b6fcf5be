# Facts about what compression would gain on the way to another host, one "key<TAB>value" a line. It
# changes nothing: pieces of the server's data, spread over all of it, are compressed to nowhere, at
# a low priority. Arguments: the other host's address or "", the data directory with links resolved,
# or "" for no sample, and the most pieces of 1 MiB to take.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
set -uf
newline='
'
tab='	'
piece=1048576
# What has a line break in it would look like another fact.
say() {
    case $2 in
    *"$newline"*) ;;
    *) printf '%s\t%s\n' "$1" "$2" ;;
    esac
}

read_hundredths() {
    read -r uptime _ </proc/uptime
    now=${uptime%%.*}${uptime#*.}
}

# Lines of an offset in pieces and a file, evenly spread over the bytes of all files.
list_pieces() {
    timeout 1 find "$1" -xdev -type f \( -name '*.ibd' -o -name 'ibdata*' \) \
        ! -path "*$newline*" ! -path "*$tab*" -printf '%s\t%p\n' 2>/dev/null |
        awk -F '\t' -v most="$2" -v piece="$piece" '
            { size[NR] = $1; path[NR] = $2; total += $1 }
            END {
                count = int(total / piece)
                if (count > most) count = most
                for (i = 0; i < count; i++) {
                    at = (i + 0.5) * total / count
                    while (at >= before + size[file + 1]) before += size[++file]
                    printf "%d\t%s\n", (at - before) / piece, path[file + 1]
                }
            }'
}

# Until the time is up, for a disk may be slow. What dd says on stderr tells how much it was.
read_pieces() {
    read_hundredths
    end=$((now + 150))
    while IFS="$tab" read -r offset path; do
        dd if="$path" bs="$piece" skip="$offset" count=1
        read_hundredths
        [ "$now" -lt "$end" ] || break
    done
}

renice -n 19 -p "$$" >/dev/null 2>&1
ionice -c 2 -n 7 -p "$$" >/dev/null 2>&1
peer=$1 datadir=$2 most=$3
if [ "$peer" ] && way=$(ip route get "$peer" 2>/dev/null); then
    device=${way#* dev }
    device=${device%%[ "$newline"]*}
    case $device in
    '' | */*) ;;
    *)
        say interface "$device"
        say megabits "$(cat "/sys/class/net/$device/speed" 2>/dev/null)"
        ;;
    esac
fi
[ "$datadir" ] && command -v zstd >/dev/null || exit 0
pieces=$(list_pieces "$datadir" "$most")
[ "$pieces" ] || exit 0
answer=$(
    {
        printf '%s\n' "$pieces" | read_pieces 2>&3 | {
            zstd -1 -T1 -q -c
            [ "$?" != 0 ] || times >&3
        } | wc -c
    } 3>&1
)
# What went in, the seconds of user and system that zstd took (of two lines, that of the children),
# and what came out.
say sample "$(printf '%s\n' "$answer" | awk '
    $2 == "bytes" { taken += $1 }
    /^[0-9]+m/ { seconds = $0 }
    /^ *[0-9]+$/ { left = $1 }
    END { printf "%d %s %d", taken, seconds, left }')"
