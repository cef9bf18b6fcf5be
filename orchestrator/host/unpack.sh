#!/bin/sh
# Takes the encrypted streams of a chain of backup sets from stdin, one after the other, and extracts
# each into a directory of its own (orchestrator/steps/fetch.py).
#
#   unpack.sh LIST COMMAND…
#
# LIST has a line "BYTES IDENTITY none|zstd DIRECTORY" for each stream: its size as it comes, what opens
# and decompresses it, and where it goes. COMMAND extracts a stream into the directory in which it runs.
#
# Exit status: 0 all streams are extracted, and no byte came behind them; 65 there is more than LIST
# names; 66 LIST cannot be read; 74 a program failed.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 077
set -uf

die() {
    code=$1
    shift
    printf 'xbvault unpack: %s\n' "$*" >&2
    exit "$code"
}

list=$1
shift
# A pipe tells only how its last program ended, so the others write it down.
failed=$list.failed

failing() {
    printf '%s ended with %s\n' "$1" "$2" >>"$failed"
}

: >"$failed" || die 74 'cannot write'
exec 3<"$list" || die 66 "cannot read $list"
exec 4<&0
while read -r bytes identity packed directory <&3; do
    # head reads no byte more than it is told to.
    head -c "$bytes" <&4 | {
        age --decrypt --identity "$identity" || failing age "$?"
    } | case $packed in
    zstd) zstd --decompress --quiet --stdout || failing zstd "$?" ;;
    *) cat ;;
    esac | {
        cd -- "$directory" && "$@" || failing "$1" "$?"
    } 3<&- 4<&-
    [ ! -s "$failed" ] || die 74 "$directory: $(tr '\n' ';' <"$failed")"
done
[ -z "$(head -c 1 <&4 | tr '\0' x)" ] || die 65 'there is more than the chain has'
exit 0
