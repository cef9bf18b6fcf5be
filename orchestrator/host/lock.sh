#!/bin/sh
# The recipient lock (orchestrator/lock.py sends this by stdin; a job keeps a copy).
#
#   lock.sh read    BASE
#   lock.sh take    BASE RUN HOLDER LEASE_SECONDS
#   lock.sh renew   BASE RUN HOLDER FENCE LEASE_SECONDS
#   lock.sh mark    BASE RUN FENCE
#   lock.sh release BASE RUN HOLDER
#
# Prints the state as key=value lines. Exit status: 0 done, 75 another one holds it, 74 the file
# cannot be used, 64 wrong call.
#
# BASE/lock is changed only under flock(1) on itself, in place, and is never renamed or removed.
# It has two slots of 1024 bytes, one line each. A change goes into the older slot, with a serial
# that is one higher and is repeated at the end of the line; the reader takes the newest slot that
# is whole. So a write that is cut leaves the state before it, which nobody has been told is gone,
# and a full disk cannot stop a renewal, for no block is ever added.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 077
set -uf

die() {
    code=$1
    shift
    printf 'xbvault lock: %s\n' "$*" >&2
    exit "$code"
}

check_word() {
    case $1 in
    '' | *[!A-Za-z0-9._:@+-]*) die 64 "not a name: '$1'" ;;
    esac
    [ "${#1}" -le 200 ] || die 64 'name is too long'
}

check_number() {
    case $1 in
    '' | *[!0-9]* | ?????????????*) die 64 "not a number: '$1'" ;;
    esac
}

# The lease is measured in uptime of one boot, for wall clocks are set back and forth.
read_clock() {
    read -r boot </proc/sys/kernel/random/boot_id || die 74 'cannot read the boot id'
    read -r now _ </proc/uptime || die 74 'cannot read the uptime'
    now=${now%%.*}
}

# Take one slot, a line, as the state if it is whole and newer than what was seen so far.
parse_slot() {
    new_serial='' new_run='' new_holder='' new_fence='' new_boot='' new_until=''
    new_by='' new_by_fence='' new_end=''
    for pair in $1; do
        value=${pair#*=}
        case $pair in
        serial=*) new_serial=$value ;;
        run=*) new_run=$value ;;
        holder=*) new_holder=$value ;;
        fence=*) new_fence=$value ;;
        boot=*) new_boot=$value ;;
        until=*) new_until=$value ;;
        changed_by=*) new_by=$value ;;
        changed_fence=*) new_by_fence=$value ;;
        end=*) new_end=$value ;;
        esac
    done
    for number in "$new_serial" "$new_fence" "$new_until" "$new_by_fence"; do
        case $number in
        '' | *[!0-9]*) return ;;
        esac
    done
    [ "$new_serial" = "$new_end" ] || return
    [ "$new_serial" -gt "$serial" ] || return
    serial=$new_serial run=$new_run holder=$new_holder fence=$new_fence lease_boot=$new_boot
    until=$new_until changed_by=$new_by changed_fence=$new_by_fence slot=$index
}

read_state() {
    serial=0 run='' holder='' fence=0 lease_boot='' until=0 changed_by='' changed_fence=0 slot=1
    index=0
    while [ "$index" -lt 2 ]; do
        # tr: a hole left by a cut write is full of NUL bytes.
        parse_slot "$(dd bs=1024 skip="$index" count=1 status=none if="$lock" | tr -d '\0')"
        index=$((index + 1))
    done
    # One broken slot and no second: the very first write was cut, so nobody was told of it.
    if [ "$serial" = 0 ] && [ "$(stat -c %s "$lock")" -gt 1024 ]; then
        die 74 "$lock is damaged: neither of its two slots can be read"
    fi
    live=0
    if [ -n "$run" ] && [ "$lease_boot" = "$boot" ] && [ "$now" -lt "$until" ]; then
        live=1
    fi
}

write_state() {
    serial=$((serial + 1))
    slot=$((1 - slot))
    line="serial=$serial run=$run holder=$holder fence=$fence boot=$lease_boot until=$until"
    line="$line changed_by=$changed_by changed_fence=$changed_fence end=$serial"
    printf '%-1023s\n' "$line" |
        dd of="$lock" bs=1024 seek="$slot" iflag=fullblock conv=notrunc,fsync status=none ||
        die 74 "cannot write $lock"
}

print_state() {
    left=0
    [ "$live" = 0 ] || left=$((until - now))
    printf 'run=%s\nholder=%s\nfence=%s\nlive=%s\nleft=%s\nchanged_by=%s\nchanged_fence=%s\n' \
        "$run" "$holder" "$fence" "$live" "$left" "$changed_by" "$changed_fence"
}

refuse() {
    print_state
    exit 75
}

begin_lease() {
    lease_boot=$boot
    until=$((now + $1))
    live=1
}

change() {
    case $verb in
    take)
        if [ "$live" = 1 ] && [ "$run $holder" != "$1 $2" ]; then refuse; fi
        run=$1 holder=$2 fence=$((fence + 1))
        begin_lease "$3"
        ;;
    renew)
        # A lease that ran out while nobody came is still ours.
        [ "$run $holder $fence" = "$1 $2 $3" ] || refuse
        begin_lease "$4"
        ;;
    mark)
        [ "$run $fence" = "$1 $2" ] || refuse
        changed_by=$1 changed_fence=$2
        ;;
    release)
        # Not ours, or released before: nothing to do.
        [ "$run $holder" = "$1 $2" ] || return 0
        run='' holder='' lease_boot='' until=0 live=0
        ;;
    esac
    write_state
}

main() {
    verb=${1:-} base=${2:-}
    [ $# -ge 2 ] || die 64 'wrong call'
    shift 2
    case $verb.$# in
    read.0) ;;
    take.3) check_number "$3" ;;
    renew.4) check_number "$3" && check_number "$4" ;;
    mark.2) check_number "$2" ;;
    release.2) ;;
    *) die 64 'wrong call' ;;
    esac
    [ "$verb" = read ] || check_word "$1"
    case $verb in take | renew | release) check_word "$2" ;; esac

    lock=$base/lock
    if [ "$verb" = read ]; then
        if [ ! -e "$lock" ]; then
            boot='' now=0 live=0 run='' holder='' fence=0 changed_by='' changed_fence=0
            print_state
            return
        fi
        exec 9<"$lock"
        flock -s -w 10 9 || die 74 "cannot lock $lock"
    else
        mkdir -p "$base" || die 74 "cannot make $base"
        exec 9>>"$lock"
        flock -w 10 9 || die 74 "cannot lock $lock"
    fi
    read_clock
    read_state
    [ "$verb" = read ] || change "$@"
    print_state
}

main "$@"
exit
