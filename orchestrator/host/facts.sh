# Facts about a host, one "key<TAB>value" a line. It changes nothing. servers.sh stands before it.
# Arguments: datadir or "" (then the server's options decide), login that takes the stream,
# option groups separated by spaces, prefixes of the groups of a series likewise, programs of the
# server, the backup tool and the reader of options, the server's option file or "", then the
# programs to look for.
set -u
newline='
'
# What has a line break in it would look like another fact.
say() {
    case $2 in
    *"$newline"*) printf 'unsayable\t%s\n' "$1" ;;
    *) printf '%s\t%s\n' "$1" "$2" ;;
    esac
}

# Prints a text with every $2 in it replaced by $3; neither is a pattern, nor code.
replace_all() {
    left=$1 done=
    while [ "$left" != "${left#*"$2"}" ]; do
        done=$done${left%%"$2"*}$3
        left=${left#*"$2"}
    done
    printf '%s\n' "$done$left"
}

datadir=$1
receive_user=$2
groups=$3
series_groups=$4
server=$5
backup=$6
print_defaults=$7
options_file=$8
shift 8
say epoch "$(date +%s.%N)"
say uptime_seconds "$(cut -d' ' -f1 /proc/uptime)"
say hostname "$(uname -n)"
say login "$(id -un)"
say receive_user "$receive_user"
say memory_available_bytes "$(awk '/^MemAvailable:/ {print $2 * 1024}' /proc/meminfo)"
say cpus "$(nproc)"
# x86 calls them flags, ARM Features; a processor that says nothing of it is taken to have none.
if grep -qE '^(flags|Features)[[:space:]]*:.* aes( |$)' /proc/cpuinfo; then say aes 1; fi
for program in "$@"; do
    if path=$(command -v -- "$program" 2>/dev/null); then say "program.$program" "$path"; fi
done
if command -v "$server" >/dev/null 2>&1; then
    version=$("$server" --no-defaults --version 2>&1 | tail -n 1)
    say version.server "$version"
    series=$(printf '%s\n' "$version" | sed -n 's/.*Ver \([0-9]*\.[0-9]*\)\..*/\1/p')
    for prefix in $series_groups; do
        [ -z "$series" ] || groups="$groups $prefix$series"
    done
fi
if command -v "$backup" >/dev/null 2>&1; then
    say version.backup "$("$backup" --no-defaults --version 2>&1 | tail -n 1)"
fi
# shellcheck disable=SC2086
options() { "$print_defaults" ${options_file:+"--defaults-file=$options_file"} $groups 2>/dev/null; }
if command -v "$print_defaults" >/dev/null 2>&1; then
    options | while IFS= read -r line; do say option "$line"; done
    [ "$datadir" ] || datadir=$(options | sed -n 's/^--datadir=//p' | tail -n 1)
fi
[ -n "$datadir" ] || datadir=/var/lib/mysql
while [ "$datadir" != / ] && [ "${datadir%/}" != "$datadir" ]; do datadir=${datadir%/}; done
say datadir "$datadir"
if [ -L "$datadir" ]; then say datadir_is_symlink 1; fi
# From here on with all links resolved: a rename must meet the directory itself.
datadir=$(readlink -f -- "$datadir" || printf '%s' "$datadir")
say real_datadir "$datadir"
parent=$(dirname -- "$datadir")
free_at=$parent
if [ -d "$datadir" ]; then
    say datadir_inode "$(stat -c %i -- "$datadir")"
    say datadir_owner "$(stat -c %U:%G -- "$datadir")"
    # Logs are left out: the backup tool copies little of them.
    say datadir_bytes "$(timeout 60 du -sB1 --exclude='ib_logfile*' --exclude='*.[0-9][0-9][0-9][0-9][0-9][0-9]' \
        -- "$datadir" | cut -f1)"
    say datadir_mode "$(stat -c %a -- "$datadir")"
    if [ -n "$(ls -A -- "$datadir" | head -n 1)" ]; then say datadir_has_data 1; fi
    is_mount_path=
    [ "$(stat -c %d -- "$datadir")" = "$(stat -c %d -- "$parent")" ] || is_mount_path=1
    # Spaces in mount paths are written as \040, which %b understands.
    while read -r _ _ _ _ where _; do
        where=$(printf '%b' "$where")
        case $where in
        "$datadir") is_mount_path=1 ;;
        "$datadir"/*) say mount_inside "$where" ;;
        esac
    done </proc/self/mountinfo
    if [ "$is_mount_path" ]; then
        say datadir_is_mount_path 1
        free_at=$datadir
    fi
    for pid in $(list_servers "$datadir"); do say server_pid "$pid"; done
fi
if [ -d "$free_at" ]; then
    say parent_free_bytes "$(df -B1 --output=avail -- "$free_at" | tail -n 1 | tr -d ' ')"
    say filesystem "$(stat -c %d -- "$free_at")"
fi
for other in "$datadir".xbvault-* "$datadir"/.xbvault/*; do
    if [ -e "$other" ]; then say sibling "$other"; fi
done
receiver=/usr/local/sbin/xbvault-receive
if [ -f "$receiver" ]; then
    say receiver_sha256 "$(sha256sum < "$receiver" | cut -d' ' -f1)"
    say receiver_owner "$(stat -c '%U %a' "$receiver")"
    if [ "$receive_user" != root ]; then
        # As a stream would start it, for a run that is not there: it refuses, and changes nothing.
        said=$(runuser -u "$receive_user" -- sudo -n -- "$receiver" xbvault-preflight 2>&1 </dev/null)
        [ $? = 77 ] || say receiver_refusal "$(printf '%s' "$said" | tail -n 1)"
    fi
fi
sshd=$(command -v sshd || echo /usr/sbin/sshd)
if [ -x "$sshd" ]; then
    "$sshd" -T -C "user=$receive_user" 2>/dev/null | while read -r key value; do
        case $key in
        clientaliveinterval | allowtcpforwarding | disableforwarding | permitlisten)
            say "sshd.$key" "$value"
            ;;
        trustedusercakeys)
            say "sshd.$key" "$value"
            if [ -r "$value" ]; then
                while IFS= read -r line; do say trusted_ca "$line"; done < "$value"
            fi
            ;;
        authorizedprincipalsfile)
            home=$(getent passwd -- "$receive_user" | cut -d: -f6)
            value=$(replace_all "$value" %u "$receive_user")
            value=$(replace_all "$value" %h "$home")
            say "sshd.$key" "$value"
            if [ -r "$value" ]; then
                while IFS= read -r line; do say principal "$line"; done < "$value"
            fi
            ;;
        esac
    done
fi
