#!/bin/sh
# Remote jobs (orchestrator/jobs.py sends this by stdin; a job keeps a copy and runs from it).
#
#   job.sh start   BASE NAME        make the job's files and start it detached, once
#   job.sh arm     BASE NAME        make the job's files only; the receiver starts it
#   job.sh run     BASE NAME        the wrapper: what `start` starts
#   job.sh receive BASE NAME RUN    the wrapper in the foreground, input from stdin
#   job.sh report  BASE NAME [N]    print the state, and renew the lease; first wait for the job's end,
#                                   for N hundredths of a second at most
#   job.sh renew   BASE RUN FENCE   renew the lease of every job of a run that goes on, and own it
#   job.sh stderr  BASE NAME STAGE  print what a stage wrote to stderr
#   job.sh stop    BASE NAME FENCE  end every process of the job's session
#   job.sh remove  BASE NAME FENCE  stop it and remove its files
#
# `start` and `arm` need the function write_job, which the sender puts in front of this text.
#
# Files in BASE/jobs/NAME (0700):
#   job.sh, lock.sh, settings, flow, stage.N   written before anything is started
#   armed      to be started by the receiver only        stopped   never to be started any more
#   begun      pid, start time, boot id and uptime of the wrapper; made once, so it is the mutex
#   status.N   exit status of a stage        status.count   of pv
#   cpu.N      what the shell's `times` says of a stage that has ended
#   pid.N      process of a stage that has begun; overwritten in place
#   looks      what `look` has seen of a stream; overwritten in place
#   stderr.N   stderr of a stage             stderr.count, stderr.job   of pv and of the wrapper
#   bytes      what pv or the kernel has counted; overwritten in place
#   lease      uptime at which the job ends itself, and the seconds that a renewal adds
#   owner      highest fence that has started or renewed the job; a lower one (but 0) may not end it
#   mark       why the watchdog ends the job: `expired` or `overtaken`
#   ended      uptime and exit statuses, and the mark if there was one; written last
# Files that are written late are there from the beginning as *.new, full of blanks, and are
# overwritten and renamed: so a job whose own output filled the disk can still say how it ended.
#
# A watchdog in the job's own session looks every few seconds whether the job may go on: its lease
# has not run out, no other run has taken the recipient (only where a fence is given), and its
# wrapper lives. If not, it ends the whole session, and every stage counts as failed: with 124 for
# the lease, with 75 for the lock.
#
# The lock must name our run and our very fence when the job begins; that stops an orchestrator
# that wakes up after another process took over. From then on it must only not name another run:
# the same run with a higher fence is a successor of our orchestrator, which attaches to us.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 077
set -uf

say() {
    printf 'xbvault job: %s\n' "$*" >&2
}

die() {
    code=$1
    shift
    say "$*"
    exit "$code"
}

# Sets state, session, started of a process. The command's name may hold blanks and parentheses,
# so count from the last one; a name with a newline makes the line too short to be taken.
read_process() {
    state='' session='' started=''
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
    # shellcheck disable=SC2086
    set -- ${line##*) }
    [ $# -ge 20 ] || return 1
    state=$1 session=$4 started=${20}
}

read_clock() {
    read -r boot </proc/sys/kernel/random/boot_id && read -r uptime _ </proc/uptime
}

# Sets pid, pid_started, begun_boot, begun_uptime.
read_begun() {
    [ -e "$dir/begun" ] && read -r pid pid_started begun_boot begun_uptime <"$dir/begun"
}

# The process that `begun` names, and not another one that got its number later.
is_leader_there() {
    [ "$begun_boot" = "$boot" ] && read_process "$pid" && [ "$started" = "$pid_started" ]
}

is_alive() {
    is_leader_there || return 1
    case $state in Z | X) return 1 ;; esac
}

take_guard() {
    exec 9>>"$jobs/.guard"
    flock -w 30 9 || die 74 "cannot lock $jobs/.guard"
}

# --- making and starting ---

make_files() {
    rm -rf "$jobs/.new" && mkdir "$jobs/.new" &&
        (cd "$jobs/.new" && write_job && reserve) && return
    rm -rf "$jobs/.new"
    die 74 "cannot write the files of the job below $jobs: no space left or not writable" \
        "(free: $(stat -f -c '%a blocks, %d inodes' "$jobs"))"
}

reserve() {
    # A process that began before an upgrade sends this text with settings of its own time.
    lease_seconds=900 owner=0
    . ./settings
    printf '%-19s\n' "$owner" >owner || return 1
    printf '%-119s\n' '' >begun.new && printf '%-199s\n' '' >ended.new &&
        printf '%-19s %-19s\n' 0 "$lease_seconds" >lease && printf '%-19s\n' '' >mark.new &&
        printf '%020d\n' 0 >bytes && printf '%-119s\n' '0 0' >looks || return 1
    parts='job count'
    index=0
    while [ "$index" -lt "$stages" ]; do
        parts="$parts $index"
        index=$((index + 1))
    done
    for part in $parts; do
        printf '%-19s\n' '' >"status.$part.new" && : >"stderr.$part" &&
            printf '%-119s\n' '' >"cpu.$part.new" && printf '%-19s\n' '' >"pid.$part" || return 1
        # Not every filesystem can; it matters only where the disk gets full later.
        fallocate -n -l 8192 "stderr.$part" 2>/dev/null || :
    done
}

# Needs the guard. A job that never began may be of an earlier entry of its step, with an older
# fence, and is replaced.
put_files() {
    make_files
    if [ -e "$dir" ]; then
        rm -rf "$jobs/.old" && mv -T "$dir" "$jobs/.old" || die 74 "cannot replace $dir"
    fi
    mv -T "$jobs/.new" "$dir" || die 74 "cannot make $dir"
    rm -rf "$jobs/.old"
}

do_start() {
    mkdir -p "$jobs" || die 74 "cannot make $jobs"
    take_guard
    if [ -e "$dir/begun" ] || [ -e "$dir/armed" ]; then
        echo attached
        return
    fi
    put_files
    # The answer ends when the wrapper, having begun, closes descriptor 3. Nothing else of ours is
    # inherited, so the connection is free to close. --default-signal: a parent that ignores
    # SIGPIPE would make every stage ignore it.
    answer=$(
        env -i --default-signal=PIPE PATH="$PATH" HOME="${HOME:-/root}" LC_ALL=C \
            XBVAULT_JOB="$name" setsid -f sh "$dir/job.sh" run "$base" "$name" \
            3>&1 >/dev/null 2>>"$dir/stderr.job" </dev/null 9>&-
    )
    [ "$answer" = begun ] || die 74 "the wrapper did not begin: $(tail -n 5 "$dir/stderr.job")"
    echo started
}

do_arm() {
    mkdir -p "$jobs" || die 74 "cannot make $jobs"
    take_guard
    if [ -e "$dir/begun" ]; then
        echo attached
        return
    fi
    put_files
    : >"$dir/armed" || die 74 "cannot write $dir/armed"
    echo armed
}

# --- the wrapper ---

# Needs read_clock. In place, in one write, and without new room on the disk.
renew_lease() {
    { read -r _ seconds <"$1/lease"; } 2>/dev/null || return 1
    case $seconds in '' | *[!0-9]*) return 1 ;; esac
    printf '%-19s %-19s\n' "$((${uptime%%.*} + seconds))" "$seconds" 1<>"$1/lease"
}

begin() {
    [ ! -e "$dir/begun" ] && [ ! -e "$dir/stopped" ] || return 1
    # The session's number is what `stop` goes by.
    read_clock && read_process "$$" && [ "$session" = "$$" ] || return 1
    renew_lease "$dir" || return 1
    printf '%-119s\n' "$$ $started $boot $uptime" 1<>"$dir/begun.new" &&
        mv -T "$dir/begun.new" "$dir/begun"
}

# KEY=value lines as data: nothing in them is ever expanded or run.
load_environment() {
    [ -r "$1" ] || die 78 "cannot read environment file $1"
    while IFS= read -r line || [ -n "$line" ]; do
        line=${line#"${line%%[! 	]*}"}
        line=${line%"${line##*[! 	]}"}
        case $line in '' | '#'* | ';'*) continue ;; esac
        key=${line%%=*}
        value=${line#*=}
        value=${value#"${value%%[! 	]*}"}
        case $key in
        "$line" | '' | [0-9]* | *[!A-Za-z0-9_]*) die 78 "not KEY=value: a line of $1" ;;
        esac
        case $value in
        \"*\") value=${value#\"} && value=${value%\"} ;;
        \'*\') value=${value#\'} && value=${value%\'} ;;
        esac
        # Escapes and continued lines mean something to systemd; guessing would be worse.
        case $value in *\\*) die 78 "a backslash in a value of $1 is not supported" ;; esac
        export "$key=$value"
    done <"$1"
}

# record STATUS PART
record() {
    printf '%-19s\n' "$1" 1<>"$dir/status.$2.new" &&
        mv -T "$dir/status.$2.new" "$dir/status.$2"
}

# Processor time of a stage: of the children of this very shell, which had no other. A subshell would
# tell its own. `command`: a special built-in that cannot write would end the recorder.
record_times() {
    command times 1<>"$dir/cpu.$1.new" && mv -T "$dir/cpu.$1.new" "$dir/cpu.$1"
}

record_process() {
    read -r self _ </proc/self/stat && printf '%-19s\n' "$self" 1<>"$dir/pid.$1"
}

# Gives the pipe that is our stdin all the room that it can have. Through 64 KiB, as a pipe has by
# itself, the ends of a stream are woken for every few bytes, and wait for each other. F_SETPIPE_SZ is
# 1031. What is no pipe stays as it is, and where there is no perl the stream is slower.
widen() {
    [ ! -p /dev/stdin ] || perl -e 'fcntl(STDIN, 1031, 1 << 20)' 2>/dev/null || :
}

# One stage. Its recorder, this subshell, outlives a TERM so that the status is kept. The stage
# file ends in `exec` with a quoted argument list.
element() {
    trap : TERM INT
    # The shell's own word about a stage that was killed is not wanted; the status tells it. The
    # assignment must stand inside: of a lone subshell in braces, dash loses the inner redirection.
    {
        (
            trap - TERM INT
            check_run "$1"
            record_process "$1"
            widen
            . "$dir/stage.$1"
        ) 2>>"$dir/stderr.$1"
        code=$?
    } 2>/dev/null
    record_times "$1"
    record "$code" "$1"
}

# pv tells its total at the end too, so what stands in `bytes` afterwards is exact.
count() {
    trap : TERM INT
    {
        {
            # As part of a pipe it is a subshell of its own, without the traps of its parent.
            trap : TERM INT
            (
                trap - TERM INT
                widen
                exec pv -n -b -i 0.5 ${throttle:+-L "$throttle"} 3>&-
            )
            code=$?
            # So pv says that it was ended by a signal, where others say 128 and its number.
            [ "$code" != 32 ] || code=143
            record "$code" count
        } 2>&1 1>&3 | keep_bytes >/dev/null 3>&-
    } 3>&1
}

keep_bytes() {
    trap '' TERM INT
    while read -r line; do
        case $line in
        # What the shell says of a pv that was killed.
        '' | Terminated | Killed) ;;
        *[!0-9]*) printf '%s\n' "$line" >>"$dir/stderr.count" ;;
        *) printf '%020d\n' "$line" 1<>"$dir/bytes" ;;
        esac
    done
}

read_status() {
    status=''
    [ ! -e "$dir/status.$1" ] || read -r status <"$dir/status.$1"
    # No status: the recorder was killed as well.
    case $status in '' | *[!0-9]*) status=137 ;; esac
}

# Sets statuses and worst: of every stage, and the first that is not 0.
read_statuses() {
    statuses='' worst=0 index=0
    while [ "$index" -lt "$stages" ]; do
        read_status "$index"
        # What pv lost is missing from the counted stage's output (or input): that is no success.
        if [ "$index" = "$counted" ] && [ "$status" = 0 ]; then
            read_status count
        fi
        # Ended half way, whatever a stage made of the TERM that it got.
        case $mark in
        expired) status=124 ;;
        overtaken) status=75 ;;
        esac
        statuses="$statuses $status"
        [ "$worst" != 0 ] || worst=$status
        index=$((index + 1))
    done
}

write_ended() {
    mark=''
    [ ! -e "$dir/mark" ] || read -r mark <"$dir/mark"
    read_statuses
    read_clock
    printf '%-199s\n' "$uptime$statuses $mark" 1<>"$dir/ended.new" &&
        mv -T "$dir/ended.new" "$dir/ended"
}

finish() {
    # A TERM of `stop` must not hit the rename.
    trap '' TERM INT
    write_ended
    # A watchdog that has set its mark is about to end what is left, and ends then.
    if [ -n "$watchdog" ] && [ -z "$mark" ]; then
        kill -s TERM "$watchdog" 2>/dev/null
        kill -s CONT "$watchdog" 2>/dev/null
        wait "$watchdog"
    fi
    exit "$worst"
}

refuse_all() {
    code=$1
    shift
    say "$*"
    index=0
    while [ "$index" -lt "$stages" ]; do
        record "$code" "$index"
        index=$((index + 1))
    done
    record 0 count
    finish
}

# Sets lock_run, lock_fence, lock_live. Needs the settings.
read_lock() {
    lock_run='' lock_fence='' lock_live=''
    answer=$(sh "$dir/lock.sh" read "$lock_dir" </dev/null) || return 1
    while IFS='=' read -r key value; do
        case $key in
        run) lock_run=$value ;;
        fence) lock_fence=$value ;;
        live) lock_live=$value ;;
        esac
    done <<END
$answer
END
}

is_our_lock() {
    case $name in
    "$lock_run".*) return 0 ;;
    esac
    return 1
}

# Before a stage begins. By run, not by fence: see the head of this file.
check_run() {
    [ "$fence" != 0 ] || return 0
    read_lock || die 75 "stage $1 was not begun: cannot read the recipient lock"
    is_our_lock || die 75 "stage $1 was not begun: the recipient lock names run '$lock_run'"
}

# --- the watchdog ---

# Sets until, which stays as it was if the file cannot be read.
read_lease() {
    { read -r line _ <"$dir/lease"; } 2>/dev/null || return 0
    case $line in '' | *[!0-9]*) ;; *) until=$line ;; esac
}

is_expired() {
    read_lease
    read_clock && [ "${uptime%%.*}" -ge "$until" ]
}

# A free lock is no reason to end: a run that failed gave it back, and its resume attaches to us.
# Nor is one that cannot be read: then the lease decides.
is_overtaken() {
    [ "$fence" != 0 ] && read_lock && [ -n "$lock_run" ] && ! is_our_lock
}

# So that `kill` ends the pause at once, and no `sleep` is left of it.
pause() {
    sleep "$1" &
    wait "$!"
}

watch() {
    trap '[ -z "${!:-}" ] || kill "$!" 2>/dev/null; exit 0' TERM INT
    read -r spared _ </proc/self/stat && read_begun && read_clock || exit 1
    until=$((${begun_uptime%%.*} + lease_seconds))
    # Often enough that a lease of any length is kept within a tenth.
    tick=$((lease_seconds / 10))
    [ "$tick" -ge 1 ] || tick=1
    [ "$tick" -le 5 ] || tick=5
    while :; do
        pause "$tick"
        if ! is_alive; then
            # Nobody is left to say how the stages end, so none of them may go on.
            end_all
            exit 0
        fi
        read_clock && look
        if is_expired; then
            # Asked twice, for it may have been read while it was written.
            pause 1
            if is_expired; then
                give_up expired "nobody has renewed the lease of $lease_seconds seconds"
            fi
        elif is_overtaken; then
            give_up overtaken "run $lock_run has taken the recipient"
        fi
    done
}

# give_up MARK REASON
give_up() {
    trap '' TERM INT
    [ ! -e "$dir/ended" ] || exit 0
    say "the job ends itself: $2"
    printf '%-19s\n' "$1" 1<>"$dir/mark.new" && mv -T "$dir/mark.new" "$dir/mark"
    end_all
    # The wrapper writes it; unless it could not be ended but by force.
    [ -e "$dir/ended" ] || write_ended
    exit 0
}

# Until nobody but the watchdog is left, however long a process hangs in the kernel.
end_all() {
    trap '' TERM INT
    until end_session; do
        sleep 5
    done
}

work() {
    read_settings
    # A kernel without autogroups has no such file.
    [ -z "$niceness" ] || { echo "$niceness" >/proc/self/autogroup; } 2>/dev/null
    watchdog=''
    watch </dev/null >/dev/null &
    watchdog=$!
    if [ "$fence" != 0 ]; then
        read_lock || refuse_all 75 'cannot read the recipient lock'
        is_our_lock || refuse_all 75 "the recipient lock is not ours: it names run '$lock_run'"
        [ "$lock_fence" = "$fence" ] ||
            refuse_all 75 "the recipient lock has fence $lock_fence, ours is $fence"
    fi
    cd -- "$directory" || refuse_all 66 "cannot enter $directory"
    opened=''
    if [ -n "$stdin_file" ]; then
        { opened=1 && . "$dir/flow"; } <"$stdin_file" >"$stdout_file"
    else
        { opened=1 && . "$dir/flow"; } >"$stdout_file"
    fi
    [ -n "$opened" ] || refuse_all 66 'cannot open the input or the output file'
    finish
}

do_run() {
    trap '' HUP
    trap : TERM INT
    begin || exit 76
    echo begun >&3
    exec 3>&-
    work
}

do_receive() {
    trap '' HUP
    trap : TERM INT
    [ -r "$dir/settings" ] || die 77 'no such job'
    read_settings
    read_lock || die 77 'cannot read the recipient lock'
    if [ "$lock_run" != "$1" ] || [ "$lock_live" != 1 ]; then
        die 77 'the recipient lock does not name this run'
    fi
    take_guard
    [ -e "$dir/armed" ] || die 77 'the job is not armed'
    begin || die 77 'the job was started or stopped before'
    exec 9>&-
    exec 2>>"$dir/stderr.job"
    work
}

# --- looking ---

# Those that older settings do not have get a value first. The lock is where the jobs are, unless
# the settings name another folder.
read_settings() {
    lease_seconds=900 throttle='' niceness='' roles='' connected='' port=0 lock_dir=''
    . "$dir/settings"
    [ -n "$lock_dir" ] || lock_dir=$base
}

# Sets member: the process of a stage that runs.
find_process() {
    member=''
    [ ! -e "$dir/status.$1" ] && { read -r member <"$dir/pid.$1"; } 2>/dev/null
    case $member in '' | *[!0-9]*) return 1 ;; esac
}

# What holds a stream up, where a stage has a connection. Kept as numbers: how often the first stage
# was looked at, how often it stood in a write, for those behind it took no more; then the uptime
# and the kernel's account of the connection up to then, in milliseconds: sending, of that held up by
# the receiver's window, of that by the size of our own buffer. Needs read_clock.
look() {
    [ -n "$connected" ] && { read -r looks held account <"$dir/looks"; } 2>/dev/null || return 0
    seen=0
    if find_process 0 && is_writing "$member"; then
        held=$((held + 1))
    fi
    looks=$((looks + seen))
    if find_process "$connected"; then
        read_account "$member"
    fi
    printf '%-119s\n' "$looks $held $account" 1<>"$dir/looks"
}

# Sets seen to 1 if it could be looked at. Any of its threads; 1, 4 and 64 are the numbers of write().
is_writing() {
    writing=1
    set +f
    set -- "/proc/$1/task"/*/syscall
    set -f
    for entry; do
        { read -r call descriptor _ <"$entry"; } 2>/dev/null || continue
        seen=1
        case "$call $descriptor" in '1 0x1' | '4 0x1' | '64 0x1') writing=0 ;; esac
    done
    return "$writing"
}

# Sets account, if the process has a connection to the port that `ss` tells of.
read_account() {
    set +f
    sockets=$(readlink -- "/proc/$1/fd"/* 2>/dev/null)
    set -f
    ours='' found='' busy=0 window=0 buffer=0
    answer=$(ss -tieH dport = ":$port" 2>/dev/null) || return 0
    while read -r line; do
        case $line in
        *' ino:'*)
            inode=${line#* ino:}
            ours=''
            case $sockets in *"socket:[${inode%% *}]"*) ours=1 found=1 ;; esac
            ;;
        esac
        [ -n "$ours" ] || continue
        for word in $line; do
            value=${word#*:}
            value=${value%%ms*}
            case $value in '' | *[!0-9]*) continue ;; esac
            case $word in
            busy:*) busy=$value ;;
            rwnd_limited:*) window=$value ;;
            sndbuf_limited:*) buffer=$value ;;
            esac
        done
    done <<END
$answer
END
    [ -z "$found" ] || account="$uptime $busy $window $buffer"
}

# For a job that counts what its only stage writes, wherever to.
count_writes() {
    [ "$counted" = -3 ] && find_process 0 || return 0
    {
        while read -r key value; do
            [ "$key" != wchar: ] || printf '%020d\n' "$value" 1<>"$dir/bytes"
        done <"/proc/$member/io"
    } 2>/dev/null
}

# role:user:system of each stage, in their order, up to the first that has not ended.
list_times() {
    index=0
    for role in $roles; do
        {
            read -r _ && read -r user system
        } 2>/dev/null <"$dir/cpu.$index" || return 0
        printf ' %s:%s:%s' "$role" "$user" "$system"
        index=$((index + 1))
    done
}

# --- asking and stopping ---

# So an end is told when it is there, and not when somebody looks again.
wait_for_end() {
    read_clock
    until=$((${uptime%.*}${uptime#*.} + $1))
    while [ ! -e "$dir/ended" ] && [ "${uptime%.*}${uptime#*.}" -lt "$until" ]; do
        if read_begun && ! is_alive; then break; fi
        sleep 0.1
        read_clock
    done
}

do_report() {
    if [ ! -e "$dir/settings" ]; then
        echo exists=0
        return
    fi
    if [ $# -gt 0 ]; then
        check_number "$1"
        wait_for_end "$1"
    fi
    read_clock
    read_settings
    printf 'exists=1\nuptime=%s\n' "$uptime"
    if read_begun; then
        # Before looking for `ended`: the other way round, a job that ends in between looks dead.
        alive=0
        if is_alive; then alive=1; fi
        printf 'begun=%s\nalive=%s\n' "$begun_uptime" "$alive"
        renew_one "$dir"
        if [ "$alive" = 1 ]; then
            look
            count_writes
        fi
        if [ -n "$connected" ] && read -r line <"$dir/looks"; then printf 'looks=%s\n' "$line"; fi
        printf 'cpu='
        list_times
        echo
    fi
    if [ -e "$dir/bytes" ] && read -r bytes <"$dir/bytes"; then
        printf 'bytes=%s\n' "$bytes"
    fi
    if [ -e "$dir/ended" ] && read -r ended <"$dir/ended"; then
        printf 'ended=%s\n' "$ended"
    fi
    echo stderr
    set +f
    set -- "$dir"/stderr.*
    set -f
    wanted=''
    for file; do
        if [ -s "$file" ]; then wanted="$wanted ${file##*/}"; fi
    done
    # shellcheck disable=SC2086
    set -- $wanted
    [ $# -gt 0 ] || return 0
    (cd "$dir" && tail -q -n "$((40 / $#))" -- "$@") | tail -c 16384
}

# Sets owner: 0 if nobody has said so.
read_owner() {
    owner=''
    { read -r owner <"$1/owner"; } 2>/dev/null
    case $owner in '' | *[!0-9]*) owner=0 ;; esac
}

# The caller is told by 75 that another process has taken the job over.
check_owner() {
    read_owner "$dir"
    [ "$1" = 0 ] || [ "$1" -ge "$owner" ] || die 75 "its owner has fence $owner, ours is $1"
}

check_number() {
    case $1 in '' | *[!0-9]* | ?????????????*) die 64 "not a number: '$1'" ;; esac
}

# A job that has not begun gets its lease when it begins.
renew_one() {
    [ -e "$1/begun" ] && [ ! -e "$1/ended" ] && renew_lease "$1"
}

do_renew() {
    check_number "$1"
    fence=$1
    read_clock
    renewed=0
    set +f
    set -- "$jobs/$name".*
    set -f
    for found; do
        [ -d "$found" ] || continue
        read_owner "$found"
        # In place: a full disk has room for it.
        [ "$fence" -le "$owner" ] || printf '%-19s\n' "$fence" 1<>"$found/owner"
        if renew_one "$found"; then renewed=$((renewed + 1)); fi
    done
    echo "renewed=$renewed"
}

do_stderr() {
    case $1 in '' | *[!0-9]*) die 64 'not a stage' ;; esac
    [ -e "$dir/stderr.$1" ] || die 66 "no stage $1 of this job"
    cat "$dir/stderr.$1"
}

# A session's number is given away again only when nobody is left in it. With the wrapper gone,
# each member must show that it is of this job.
is_ours() {
    [ "$leader_there" = 0 ] || return 0
    case "
$({ tr '\0' '\n' <"/proc/$1/environ"; } 2>/dev/null)
" in
    *"
XBVAULT_JOB=$name
"*) return 0 ;;
    esac
    return 1
}

# Sets members: the living processes of the job's session but the leader and the spared one;
# leader: its pid or ''.
find_members() {
    members='' leader='' leader_there=0
    if is_leader_there; then leader_there=1; fi
    set +f
    set -- /proc/[0-9]*
    set -f
    for entry; do
        member=${entry#/proc/}
        read_process "$member" && [ "$session" = "$pid" ] || continue
        case $state in Z | X) continue ;; esac
        [ "$member" != "$spared" ] || continue
        is_ours "$member" || continue
        if [ "$member" = "$pid" ]; then
            leader=$member
        else
            members="$members $member"
        fi
    done
    [ -n "$members$leader" ]
}

read_hundredths() {
    read_clock && hundredths=${uptime%%.*}${uptime#*.}
}

# Waits up to so many hundredths of a second until nobody is left. By the clock, for on a busy host
# a look at all processes takes longer than the pause.
wait_until_gone() {
    read_hundredths && limit=$((hundredths + $1))
    while find_members; do
        read_hundredths && [ "$hundredths" -lt "$limit" ] || return 1
        sleep 0.1
    done
}

# Ends every process of the session but the spared one.
end_session() {
    find_members || return 0
    # CONT: a stopped process would keep the TERM pending.
    # shellcheck disable=SC2086
    kill -s TERM $members $leader 2>/dev/null
    # shellcheck disable=SC2086
    kill -s CONT $members $leader 2>/dev/null
    wait_until_gone 200 && return
    # The wrapper is left for a second, to write down how its stages ended.
    # shellcheck disable=SC2086
    [ -z "$members" ] || kill -s KILL $members 2>/dev/null
    wait_until_gone 100 && return
    # shellcheck disable=SC2086
    kill -s KILL $members $leader 2>/dev/null
    wait_until_gone 100
}

stop_session() {
    answer=nothing
    read_begun && read_clock && [ "$begun_boot" = "$boot" ] || return 0
    find_members || return 0
    answer=stopped
    end_session || die 70 "processes of the job cannot be killed:$members $leader"
}

do_stop() {
    check_number "$1"
    answer=nothing
    if [ -e "$dir/settings" ]; then
        take_guard
        # Several runs may have it in common, and another one may just have removed it.
        if [ ! -e "$dir/settings" ]; then
            exec 9>&-
            echo "$answer"
            return
        fi
        check_owner "$1"
        if [ ! -e "$dir/begun" ] && [ ! -e "$dir/stopped" ]; then
            : >"$dir/stopped" || die 74 "cannot write $dir/stopped"
        fi
        exec 9>&-
        stop_session
    fi
    echo "$answer"
}

do_remove() {
    do_stop "$1"
    [ -e "$dir" ] || return 0
    take_guard
    [ -e "$dir" ] || return 0
    # Renamed first: a removal that is cut must not leave half a job.
    rm -rf "$jobs/.old" && mv -T "$dir" "$jobs/.old" && rm -rf "$jobs/.old" ||
        die 74 "cannot remove $dir"
}

main() {
    [ $# -ge 3 ] || die 64 'wrong call'
    verb=$1 base=$2 name=$3
    shift 3
    case $name in
    '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*) die 64 'not a job name' ;;
    esac
    jobs=$base/jobs
    dir=$jobs/$name
    # The watchdog, when it ends all others.
    spared=''
    case $verb.$# in
    start.0 | arm.0 | run.0 | report.0 | report.1 | renew.1 | stop.1 | remove.1 | receive.1 | stderr.1) ;;
    *) die 64 'wrong call' ;;
    esac
    "do_$verb" "$@"
}

main "$@"
exit
