# Facts about the directories in which a server keeps files, one "key<TAB>value" a line. It changes
# nothing. Arguments: the data directory, links resolved, then for each kind of files its directory
# and the patterns of their names, one a line.
LC_ALL=C
export LC_ALL
set -uf
newline='
'
# What has a line break in it would look like another fact.
say() {
    case $2 in
    *"$newline"*) printf 'unsayable\t%s\n' "$1" ;;
    *) printf '%s\t%s\n' "$1" "$2" ;;
    esac
}

matches() {
    earlier_ifs=$IFS
    IFS=$newline
    for pattern in $2; do
        # shellcheck disable=SC2254
        case $1 in
        $pattern)
            IFS=$earlier_ifs
            return 0
            ;;
        esac
    done
    IFS=$earlier_ifs
    return 1
}

# Servers other than the one of this datadir, and the files that they have open.
list_foreign() {
    set +f
    for process in /proc/[0-9]*; do
        name=
        { read -r name <"$process/comm"; } 2>/dev/null
        case $name in
        mariadbd* | mysqld*) ;;
        *) continue ;;
        esac
        [ "$(readlink "$process/cwd" 2>/dev/null)" != "$datadir" ] || continue
        find "$process/fd" -type l -printf '%l\n' 2>/dev/null
    done
    set -f
}

datadir=$1
shift
foreign=$(list_foreign)
index=0
while [ $# -ge 2 ]; do
    directory=$1 patterns=$2
    shift 2
    if [ -d "$directory" ]; then
        real=$(readlink -f -- "$directory")
        say "$index.real" "$real"
        say "$index.filesystem" "$(stat -c %d -- "$real")"
        say "$index.free_bytes" "$(df -B1 --output=avail -- "$real" | tail -n 1 | tr -d ' ')"
        bytes=0
        set +f
        for file in "$real"/*; do
            set -f
            if [ -f "$file" ] && matches "${file##*/}" "$patterns"; then
                bytes=$((bytes + $(stat -c %s -- "$file")))
            fi
        done
        set -f
        say "$index.bytes" "$bytes"
        earlier_ifs=$IFS
        IFS=$newline
        for file in $foreign; do
            IFS=$earlier_ifs
            if [ "${file%/*}" = "$real" ] && matches "${file##*/}" "$patterns"; then
                say "$index.foreign" "${file##*/}"
            fi
        done
        IFS=$earlier_ifs
    fi
    index=$((index + 1))
done

profiles=/sys/kernel/security/apparmor/profiles
if [ -r "$profiles" ]; then
    while IFS= read -r line; do
        name=${line%% (*}
        case ${name##*/} in
        mariadbd | mysqld) say apparmor_profile "$line" ;;
        esac
    done <"$profiles"
    set +f
    for file in /etc/apparmor.d/*mariadbd /etc/apparmor.d/*mysqld /etc/apparmor.d/local/*mariadbd \
        /etc/apparmor.d/local/*mysqld; do
        [ -r "$file" ] || continue
        say apparmor_file "$file"
        while read -r line; do
            case $line in
            [/\"@]* | 'owner '* | 'deny '*) say apparmor_rule "$line" ;;
            esac
        done <"$file"
    done
    set -f
fi

set +f
for phase_file in /var/lib/xbvault/runs/*/swap.phase; do
    [ -r "$phase_file" ] || continue
    read -r phase <"$phase_file"
    run_dir=${phase_file%/*}
    case $phase in
    swapped | restored) ;;
    *) say half_swapped "${run_dir##*/}" ;;
    esac
done
