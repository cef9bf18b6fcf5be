#!/bin/sh
# Writes binary logs of this host's server to stdout, one after the other, as the server sends them to
# a replica: decrypted. They go through FIFOs only, so that no file ever holds one
# (orchestrator/steps/archive.py).
#
#   binlogs.sh LIST FACTS FOLDER COMMAND…
#
# LIST has a line "NAME BYTES" for each log. COMMAND is the client's program for binary logs, with its
# options for the connection. FACTS gets a line "NAME BYTES SECONDS" for each log that went through:
# its size, and when the server began it. FOLDER is for FIFOs.
#
# Exit status: 0 all went through; 65 a log is not as large as LIST says; 74 what reads from here has
# gone; 75 the program failed.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 077
set -uf
list=$1 facts=$2 folder=$3
shift 3

die() {
    code=$1
    shift
    printf 'xbvault binlogs: %s\n' "$*" >&2
    exit "$code"
}

exec 3<"$list" 5>&1
: >"$facts"
while read -r name bytes <&3; do
    rm -f "$folder/$name" "$folder/status" "$folder/sent"
    mkfifo "$folder/$name" || die 74 'cannot make a FIFO'
    # This one holds the FIFO open until the program has ended, also if it never opens it.
    (
        exec 3<&- 4>"$folder/$name"
        "$@" --read-from-remote-server --raw --result-file="$folder/" "$name" \
            </dev/null >/dev/null 4>&- 5>&-
        printf '%s\n' "$?" >"$folder/status"
    ) &
    # The first bytes say when the log began, and nothing of what is in it.
    counted=$({
        {
            head -c 8 >"$folder/head"
            {
                cat "$folder/head" - 3<&-
            } | tee --output-error=warn /proc/self/fd/7 >&5
            printf '%s\n' "$?" >"$folder/sent"
        } <"$folder/$name" 7>&1
    } | wc -c)
    wait "$!"
    read -r status <"$folder/status" || status=none
    read -r sent <"$folder/sent" || sent=none
    [ "$sent" = 0 ] || die 74 'Broken pipe: what reads the stream has gone'
    [ "$status" = 0 ] || die 75 "binary log $name could not be read: status $status"
    [ "$counted" = "$bytes" ] || die 65 "binary log $name has $counted bytes, not $bytes"
    seconds=$(od -An -tu4 -j4 -N4 "$folder/head")
    printf '%s %s %s\n' "$name" "$counted" "${seconds#"${seconds%%[! ]*}"}" >>"$facts"
    rm -f "$folder/$name"
done
exit 0
