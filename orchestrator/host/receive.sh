#!/bin/sh
# The receiver: forced command of the principal xbvault-receive-HOST, installed root-owned as
# /usr/local/sbin/xbvault-receive.
#
# Takes one word, a run id: the argument, else SSH_ORIGINAL_COMMAND. It must be the run that the
# recipient lock names, live. Starts that run's armed job once, with our stdin as its input, and
# ends with its status: 0 only if every stage ended with 0. 77: refused, nothing was started.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 077
set -uf
base=/var/lib/xbvault

refuse() {
    printf 'xbvault-receive: %s\n' "$*" >&2
    exit 77
}

# Never repeats what it was given: it may hold anything.
check_name() {
    case $1 in
    '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*) refuse "not a $2" ;;
    esac
    [ "${#1}" -le 200 ] || refuse "not a $2"
}

main() {
    [ $# -le 1 ] || refuse 'takes one word, a run id'
    run=${1:-}
    [ -n "$run" ] || run=${SSH_ORIGINAL_COMMAND:-}
    check_name "$run" 'run id'

    pointer=$base/runs/$run/receive
    name=''
    if [ ! -f "$pointer" ] || ! read -r name <"$pointer"; then
        refuse 'no job is armed for this run'
    fi
    check_name "$name" 'job name'
    case $name in
    "$run".*) ;;
    *) refuse 'the job is not of this run' ;;
    esac
    wrapper=$base/jobs/$name/job.sh
    [ -f "$wrapper" ] || refuse 'no job is armed for this run'

    # The lock is checked by the wrapper, which begins the job under the same conditions.
    env -i --default-signal=PIPE PATH="$PATH" HOME=/root LC_ALL=C XBVAULT_JOB="$name" \
        setsid -w sh "$wrapper" receive "$base" "$name" "$run" >/dev/null
    status=$?
    [ "$status" = 0 ] || printf 'xbvault-receive: job ended with status %s\n' "$status" >&2
    return "$status"
}

main "$@"
exit
