# Runs a command only while the recipient lock names this run with this fence; else it ends with 75.
#
#   sh -c "$(cat fence.sh)" fence LOCK RUN FENCE COMMAND…
#
# It stands before every command that a run sends to its recipient (orchestrator/lock.py), so that an
# orchestrator that was stopped and wakes up after another one took over does nothing any more. As in
# lock.sh, the newest slot that is whole counts; a change goes into the older slot, and a reader that
# meets it half done takes the newer one.
newest=-1 found=nobody
while read -r serial run _ fence rest; do
    serial=${serial#serial=}
    case $serial in '' | *[!0-9]*) continue ;; esac
    case $rest in *" end=$serial") ;; *) continue ;; esac
    [ "$serial" -le "$newest" ] || newest=$serial found="$run $fence"
done <"$1"
if [ "$found" != "run=$2 fence=$3" ]; then
    printf 'xbvault fence: the lock names %s\n' "$found" >&2
    exit 75
fi
shift 3
exec "$@"
