#!/bin/sh
# Reads binary logs from a restore's archives, on the recipient: looks for the end of a replay in one
# of them, or writes them as SQL. What is in them goes through pipes only (orchestrator/steps/replay.py).
#
#   replay.sh find LIST FILE SCRATCH START KIND TARGET COMMAND…
#   replay.sh play LIST FILE SCRATCH COMMAND…
#
# FILE has the encrypted streams of the archives, one after the other. LIST says which of it is wanted:
#
#   set OFFSET BYTES IDENTITY none|zstd   a stream, where it is, what opens and decompresses it
#   skip BYTES                            so much of it is not wanted
#   log NAME BYTES FROM TO                a binary log, from byte to byte; "-" for its begin or end
#   end                                   the rest of the stream is not wanted
#
# SCRATCH is a folder; no content goes there. COMMAND is the client's program for binary logs; what it
# puts into temporary files goes to TMPDIR, which must be on tmpfs.
#
# `find` looks at the one log from byte START on, and prints "stop POSITION", where the first
# transaction begins that is not wanted: with KIND "time" one later than TARGET (YYMMDDhhmmss in UTC),
# with KIND "gtid" the one behind TARGET; the log's end if there is none. Besides "found N", how often
# it met that GTID; "transactions N", how many are wanted; "last GTID".
# `play` writes the logs to stdout for the server's client, and the names of those that are through to
# SCRATCH/played.
#
# Exit status: 0 done; 64 wrong call; 65 a log is not to be understood; 74 a program failed.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
TZ=UTC0
export PATH LC_ALL TZ
umask 077
set -uf

die() {
    code=$1
    shift
    printf 'xbvault replay: %s\n' "$*" >&2
    exit "$code"
}

[ "$#" -gt 4 ] || die 64 'wrong call'
verb=$1 list=$2 file=$3 scratch=$4
shift 4
# A pipe tells only how its last program ended, so the others write it down.
failed=$scratch/failed

failing() {
    printf '%s %s\n' "$1" "$2" >>"$failed"
}

open_set() {
    tail -c +"$(($1 + 1))" -- "$file" | head -c "$2" | {
        age --decrypt --identity "$3" || failing age "$?"
    } | case $4 in
    zstd) zstd --decompress --quiet --stdout || failing zstd "$?" ;;
    *) cat ;;
    esac
}

# Every position is that of the event before: a text inside of an event that looks like an event
# breaks the row, and nothing is concluded from it.
scan() {
    awk -v start="$1" -v kind="$2" -v target="$3" -v bytes="$4" '
    function bad(what) { print "xbvault replay: not to be understood: " what >"/dev/stderr"; broken = 1; exit 65 }
    function note(gtid) {
        if (stop) return
        if (kind == "time" && moment > target + 0) { stop = begins; return }
        if (kind == "gtid" && found) { stop = begins; return }
        wanted++
        last = gtid
        if (kind == "gtid" && tolower(gtid) == target) found++
    }
    /^# at [0-9]+$/ {
        if ($3 + 0 <= at && at) bad("position " $3 " comes after " at)
        at = $3 + 0
        next
    }
    /^#[0-9][0-9][0-9][0-9][0-9][0-9] +[0-9]+:[0-9][0-9]:[0-9][0-9] server id [0-9]+ +end_log_pos [0-9]+ / {
        for (field = 4; $field != "end_log_pos"; field++) { }
        ends = $(field + 1) + 0
        if (ends <= end) bad("an event ends at " ends ", the one before at " end)
        begins = end ? end : 4
        end = ends
        split($2, clock, ":")
        moment = substr($1, 2) * 1000000 + clock[1] * 10000 + clock[2] * 100 + clock[3]
        if ($0 ~ /\t(GTID|Anonymous_GTID)[ \t]/) {
            if (at != begins) bad("a transaction at " at ", not at " begins)
            waits = 0
            if (begins >= start) {
                if ($0 ~ /\tGTID [0-9]/) {
                    sub(/.*\tGTID /, "")
                    note($1)
                } else {
                    waits = 1
                }
            }
        }
        next
    }
    waits && /^SET @@SESSION.GTID_NEXT= ?/ {
        gtid = $0
        sub(/^[^\047]*\047/, "", gtid)
        sub(/\047.*/, "", gtid)
        waits = 0
        note(gtid)
    }
    END {
        if (broken) exit 65
        if (end != bytes) bad("the last event ends at " end + 0 " of " bytes)
        printf "stop %.0f\nfound %d\ntransactions %d\nlast %s\n", stop ? stop : bytes, found, wanted, last
    }'
}

find_end() {
    start=$1 kind=$2 target=$3
    shift 3
    { "$@" --base64-output=decode-rows - || failing binlog "$?"; } |
        scan "$start" "$kind" "$target" "$bytes" || failing scan "$?"
}

play() {
    [ "$from" = - ] || set -- "$@" "--start-position=$from"
    # The log is cut at its end: not every reader takes a position at which to stop with stdin.
    [ "$to" != - ] || to=$bytes
    if head -c "$to" | "$@" -; then
        printf '%s\n' "$name" >>"$scratch/played"
    else
        failing binlog "$?"
    fi
}

case $verb in
find) act=find_end ;;
play) act=play ;;
*) die 64 "no such verb: $verb" ;;
esac
: >"$failed" || die 74 'cannot write'
exec 3<"$list" || die 64 'no list'
while read -r what one two three four <&3; do
    [ "$what" = set ] || die 64 "not a stream: $what"
    open_set "$one" "$two" "$three" "$four" | {
        while read -r what name bytes from to <&3 && [ "$what" != end ]; do
            if [ "$what" = skip ]; then
                head -c "$name" >/dev/null
                continue
            fi
            # What it leaves of the log is read all the same, and the rest of the stream as well:
            # only then has age seen that nobody has changed it.
            head -c "$bytes" | {
                "$act" "$@" 3<&-
                cat >/dev/null
            }
            [ ! -s "$failed" ] || exit
        done
        cat >/dev/null
    }
    if [ -s "$failed" ]; then
        ! grep -q -x -e 'scan 65' "$failed" || exit 65
        die 74 "failed: $(tr '\n' ' ' <"$failed")"
    fi
done
exit 0
