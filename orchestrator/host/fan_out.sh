# Gives one stream, stdin, to several branches. It is the last stage of the job that reads the donor
# (orchestrator/steps/fan_out.py).
#
#   sh -c "$(cat fan_out.sh)" fan-out BASE OWN BUFFER SECONDS JOB FIFO [JOB FIFO]...
#
# OWN is the job that this is a stage of; each JOB reads its FIFO into a buffer of BUFFER bytes and
# counts what leaves it. A branch that ends, well or badly, does not hold up the others. One whose
# buffer is full, and not emptied once in SECONDS, is stopped as long as another one waits for more:
# tee goes at the pace of its slowest reader. One whose FIFO is not there is left out.
# The status is 0 even if every branch broke: how one ended, its own job says.
set -u
base=$1 own=$2 buffer=$3 seconds=$4
shift 4

# Prints the number in a job's `bytes`, which is full of leading zeros.
count_of() {
    read -r number <"$base/jobs/$1/bytes" || number=0
    while [ "${number#0}" != "$number" ]; do number=${number#0}; done
    case $number in *[!0-9]*) number= ;; esac
    printf '%s\n' "${number:-0}"
}

is_going() {
    [ -e "$base/jobs/$1/begun" ] && [ ! -e "$base/jobs/$1/ended" ] && [ ! -e "$base/jobs/$1/died" ]
}

# For each branch, one word: JOB=BYTES=TICKS, bytes when its buffer was last seen to fill up or to
# have been emptied once since, and for how many looks it has been full from then on.
watch() {
    known=
    while sleep 1; do
        total=$(count_of "$own")
        now='' full=0 going=0
        for job in "$@"; do
            is_going "$job" || continue
            going=$((going + 1))
            bytes=$(count_of "$job") from='' ticks=0
            for word in $known; do
                case $word in
                "$job"=*)
                    ticks=${word##*=} from=${word%=*}
                    from=${from##*=}
                    ;;
                esac
            done
            if [ "$((total - bytes))" -lt "$buffer" ]; then
                from=$bytes ticks=0
            else
                full=$((full + 1))
                if [ -z "$from" ] || [ "$((bytes - from))" -ge "$buffer" ]; then
                    from=$bytes ticks=0
                fi
                ticks=$((ticks + 1))
            fi
            now="$now $job=$from=$ticks"
        done
        known=$now
        [ "$full" -lt "$going" ] || continue
        for word in $known; do
            [ "${word##*=}" -ge "$seconds" ] || continue
            job=${word%%=*}
            printf '%s is dropped: its buffer was not emptied once in %s s\n' "$job" "$seconds" >&2
            : >"$base/jobs/$job/dropped"
            sh "$base/jobs/$job/job.sh" stop "$base" "$job" 0 >/dev/null
        done
    done
}

# Whether a process has a FIFO open.
has_open() {
    for open in /proc/"$1"/fd/*; do
        [ ! "$open" -ef "$2" ] || return 0
    done
    return 1
}

is_read() {
    { read -r reader <"$base/jobs/$1/pid.0"; } 2>/dev/null && has_open "$reader" "$2"
}

# Stands in at both ends of a branch's FIFO until both are there: without a reader, an open for
# writing waits for ever, and so it does the other way round; and a branch that is late, as on a host
# that stood still, would find its writer gone. One that has ended is not waited for.
stand_in() {
    exec 3<>"$2"
    while { is_going "$1" && ! is_read "$1" "$2"; } ||
        { kill -0 "$tee" 2>/dev/null && ! has_open "$tee" "$2"; }; do
        sleep 0.2
    done
}

pairs='' jobs='' fifos='' last=''
while [ $# -gt 0 ]; do
    # Otherwise its run was cancelled since it was written down who takes part.
    if [ -p "$2" ]; then
        pairs="$pairs $1 $2" jobs="$jobs $1"
        [ -z "$last" ] || fifos="$fifos $last"
        last=$2
    fi
    shift 2
done
# Names of runs and their folders have no blanks. In the background, stdin would be /dev/null.
exec 4<&0
# shellcheck disable=SC2086
tee -p -- $fifos <&4 >"$last" &
tee=$!
exec 4<&- </dev/null
# shellcheck disable=SC2086
watch $jobs >/dev/null &
watcher=$!
# shellcheck disable=SC2086
set -- $pairs
while [ $# -gt 0 ]; do
    stand_in "$1" "$2" >/dev/null 2>&1 &
    shift 2
done
wait "$tee"
kill "$watcher" 2>/dev/null
exit 0
