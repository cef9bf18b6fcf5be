# What a step needs to know of a host at the moment, one "key<TAB>value" a line, and "end". It changes
# nothing, and asks far less than facts.sh. servers.sh stands before it. Argument: the data directory
# with links resolved.
set -u
say() { printf '%s\t%s\n' "$1" "$2"; }

say memory_available_bytes "$(awk '/^MemAvailable:/ {print $2 * 1024}' /proc/meminfo)"
say cpus "$(nproc)"
for pid in $(list_servers "$1"); do say server_pid "$pid"; done
if [ -d "$1" ]; then
    say datadir_inode "$(stat -c %i -- "$1")"
    say datadir_owner "$(stat -c %U:%G -- "$1")"
    say datadir_mode "$(stat -c %a -- "$1")"
    if [ -n "$(ls -A -- "$1" | head -n 1)" ]; then say datadir_has_data 1; fi
fi
echo end
