#!/bin/sh
# Passes a backup set from stdin to stdout, part by part, and ends badly at the first part that is
# not the one which the set's manifest names (orchestrator/steps/fetch.py).
#
#   parts.sh LIST DOUBLE
#
# LIST has a line "SHA256 BYTES NAME" for each part, in order; DOUBLE is the text of double.pl. Exit
# status: 0 all parts came, and no byte more; 65 a part is another one; 74 what reads from here has
# gone.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
set -uf

die() {
    code=$1
    shift
    printf 'xbvault parts: %s\n' "$*" >&2
    exit "$code"
}

# Sets sha256: what prints the SHA-256 of stdin as the first word. OpenSSL is taken where it does that:
# it uses what the processor has for it, five times as fast as the coreutils of many systems.
choose_sum() {
    empty=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
    sha256=sha256sum
    case $(openssl dgst -sha256 -r </dev/null 2>/dev/null) in
    "$empty "*) sha256='openssl dgst -sha256 -r' ;;
    esac
}

exec 3<"$1" || die 66 "cannot read $1"
exec 4<&0 5>&1
choose_sum
while read -r wanted bytes name <&3; do
    # Its status comes first: it goes on to the end of the part when what reads from here has gone,
    # for that may be because of the part.
    answer=$({
        {
            perl -e "$2" "$bytes" on <&4 3>&1 >&5
            printf '%s\n' "$?" >&6
        } | $sha256
    } 6>&1)
    case $answer in
    "0
$wanted "*) ;;
    *"
$wanted "*) die 74 'Broken pipe: what reads the stream has gone' ;;
    *) die 65 "$name is not the part that the manifest names: its SHA-256 differs" ;;
    esac
done
[ -z "$(head -c 1 <&4 | tr '\0' x)" ] || die 65 'there is more than the manifest names'
exit
