#!/bin/sh
# Backup sets in a repository, on its host (orchestrator/repository/store.py sends this).
#
#   store.sh look    REPOSITORY              print what the directory is like, as key=value lines
#   store.sh list    REPOSITORY              print every entry of it, and every entry of its folders
#   store.sh show    REPOSITORY FILE NAME…   print a file of each of these folders
#   store.sh make    SET                     make the folder of a set, unless it is there
#   store.sh write   SET PART_BYTES LEDGER DOUBLE
#                                            cut stdin into parts, and write them down in LEDGER;
#                                            DOUBLE is the text of double.pl
#   store.sh publish SET                     rename manifest.json.new to manifest.json
#   store.sh read    SET FIRST LAST …        write these parts to stdout, one after the other; of this
#                                            set, then of others that are named in the same way
#   store.sh sums    SET NAME…               print SHA-256 and size of files, read from the disk
#   store.sh remove  SET NAME…               remove a set; the names are its files beside parts and manifest
#
# SET is REPOSITORY/BACKUP_ID. Exit status: 0 done, 64 wrong call, 65 something is there that must not
# be, 66 something is not there, 74 it failed.
#
# Neither SET nor REPOSITORY may be a symbolic link. Both are entered once and names are taken from
# there, so that nobody can put another directory in their place half way.
#
# `write` makes each part as NAME.new, with its SHA-256 from the same bytes, and renames it when it is
# on disk; after that, the line "SHA256 BYTES NAME" goes to LEDGER. What an earlier `write` has left is
# thrown away first. `remove` can be cut off anywhere, and goes on when it is run again.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 077
set -uf
manifest=manifest.json
expired=manifest.expired

die() {
    code=$1
    shift
    printf 'xbvault store: %s\n' "$*" >&2
    exit "$code"
}

is_there() {
    [ -e "$1" ] || [ -L "$1" ]
}

is_file() {
    [ -f "$1" ] && [ ! -L "$1" ]
}

check_number() {
    case $1 in
    '' | 0* | *[!0-9]* | ????????????????*) die 64 "not a number above 0: '$1'" ;;
    esac
}

# Never a path, and nothing that a program takes for an option.
check_name() {
    case $1 in
    '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*) die 64 "not a name: '$1'" ;;
    esac
    [ "${#1}" -le 200 ] || die 64 'name is too long'
}

# Goes into a directory that is no link; $2 is its name for a reader.
enter() {
    [ ! -L "$1" ] || die 65 "$2 is a symbolic link"
    [ -d "$1" ] || die 66 "there is no directory $2: is its filesystem mounted?"
    cd -P -- "$1" || die 66 "cannot go into $2"
    # It may have been exchanged meanwhile.
    [ ! -L "$3" ] && [ "$3" -ef . ] || die 65 "$2 is a symbolic link, or was exchanged"
}

enter_repository() {
    case $1 in
    /*[!/]*) ;;
    *) die 64 "not an absolute path: '$1'" ;;
    esac
    repository=$1
    enter "$repository" "$repository" "$repository"
}

# Sets path, for a reader, and name.
find_set() {
    path=$1
    name=${path##*/}
    check_name "$name"
    enter_repository "${path%/*}"
}

enter_set() {
    find_set "$1"
    enter "./$name" "$path" "../$name"
}

settle() {
    sync -- "$1" || die 74 "cannot sync $1 in ${path:-$repository}"
}

# --- the repository ---

do_look() {
    enter_repository "$1"
    writable=0
    [ ! -w . ] || writable=1
    free=$(df -B1 --output=avail -- . | tail -n 1 | tr -d ' ') && filesystem=$(stat -c %d -- .) ||
        die 74 "cannot look at $repository"
    printf 'writable=%s\nfree_bytes=%s\nfilesystem=%s\n' "$writable" "$free" "$filesystem"
}

# Kind, size and path of each entry, with a NUL behind each of them: names are chosen by whoever can
# write there. Kind u is a folder that cannot be read.
do_list() {
    enter_repository "$1"
    [ -r . ] || die 74 "cannot read $repository"
    find . -ignore_readdir_race -mindepth 1 -maxdepth 2 \
        -type d ! \( -readable -executable \) -printf 'u\0%s\0%P\0' -prune -o \
        -printf '%y\0%s\0%P\0' || die 74 "cannot list $repository"
}

# Name and content of each, base64, with a NUL behind each of them; what is gone is left out.
do_show() {
    enter_repository "$1"
    file=$2
    check_name "$file"
    shift 2
    for name; do
        check_name "$name"
        [ ! -L "$name" ] && is_file "$name/$file" || continue
        printf '%s\0' "$name" && base64 -w 0 -- "$name/$file" && printf '\0' ||
            die 74 "cannot read $repository/$name/$file"
    done
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

# --- a set that is being made ---

do_make() {
    find_set "$1"
    is_there "$name" || mkdir -- "$name" || die 74 "cannot make $path"
    enter "./$name" "$path" "../$name"
    check_unpublished
    chmod 0700 . || die 74 "cannot set the mode of $path"
    settle .
    settle ..
}

check_unpublished() {
    for file in "$manifest" "$expired"; do
        ! is_there "$file" || die 65 "$path has its $file already: it is not written to any more"
    done
}

# Prints "SHA256 NAME" for each part that is written; ends with 0 when stdin has.
write_parts() {
    number=1
    while [ "$number" -le 999999 ]; do
        file=$(printf 'part-%06d.age' "$number")
        (set -C && : >"$file.new") || return 74
        # The sum comes last, when all has gone through.
        answer=$({
            {
                perl -e "$2" "$1" off 3>&1 >"$file.new"
                printf '%s\n' "$?" >&4
            } | $sha256
        } 4>&1)
        sum=${answer##*
}
        sum=${sum%% *}
        case ${answer%%
*}.$sum in
        0.????????????????????????????????????????????????????????????????) ;;
        *)
            printf 'xbvault store: cannot write %s\n' "$file" >&2
            return 74
            ;;
        esac
        if [ ! -s "$file.new" ]; then
            rm -f -- "$file.new"
            return
        fi
        printf '%s %s\n' "$sum" "$file"
        number=$((number + 1))
    done
    printf 'xbvault store: the stream has more than 999999 parts\n' >&2
    return 74
}

# Puts each part in place when it is on disk, while the next one is written already. Reads what
# write_parts tells, and last how it has ended.
finish_parts() {
    while read -r sum file; do
        if [ "$sum" = end ]; then
            [ "$file" = 0 ] || die 74 "the parts of $path are not whole"
            return 0
        fi
        sync -- "$file.new" && mv -n -T -- "$file.new" "$file" && ! is_there "$file.new" &&
            bytes=$(stat -c %s -- "$file") &&
            printf '%s %s %s\n' "$sum" "$bytes" "$file" >>"$1" && sync -- "$1" ||
            die 74 "cannot finish $file of $path"
    done
    die 74 "the parts of $path are not whole"
}

do_write() {
    check_number "$2"
    case $3 in /*) ;; *) die 64 "not an absolute path: '$3'" ;; esac
    exec 9>>"$3" || die 74 "cannot write $3"
    flock -n 9 || die 74 "another one writes $1"
    enter_set "$1"
    check_unpublished
    clear_parts && : >"$3" && sync -- "$3" || die 74 "cannot begin $path anew"
    choose_sum
    {
        write_parts "$2" "$4"
        printf 'end %s\n' "$?"
    } | finish_parts "$3" || exit 74
    [ -s "$3" ] || die 74 "no byte came for $path"
    settle .
}

clear_parts() {
    set +f
    set -- part-[0-9][0-9][0-9][0-9][0-9][0-9].age part-[0-9][0-9][0-9][0-9][0-9][0-9].age.new
    set -f
    remove_all "$@"
}

# Many names are more than one command line can hold.
remove_all() {
    printf '%s\0' "$@" | xargs -0 -r rm -f --
}

do_publish() {
    enter_set "$1"
    if is_there "$manifest.new"; then
        is_file "$manifest.new" || die 65 "$manifest.new in $path is no file"
        clear_unfinished || die 74 "cannot remove what was left in $path"
        settle "$manifest.new"
        settle .
        mv -f -T -- "$manifest.new" "$manifest" || die 74 "cannot rename the manifest in $path"
    fi
    is_file "$manifest" || die 66 "there is no $manifest.new in $path"
    settle .
}

# What a write that was killed has left.
clear_unfinished() {
    set +f
    set -- part-[0-9][0-9][0-9][0-9][0-9][0-9].age.new .xbvault.??????????
    set -f
    remove_all "$@"
}

# --- a set that is there ---

# 141: SIGPIPE. Whoever looks for what failed first then looks at what read from here.
die_reading() {
    [ "$2" != 141 ] || die 74 'Broken pipe: what reads the stream has gone'
    die 74 "cannot read $1 of $path"
}

# Past the page cache where the filesystem can do that, which costs a fifth of reading through it, and
# leaves it to others.
pass_part() {
    [ "$direct" ] || {
        direct=no
        dd if="$1" of=/dev/null bs=4096 count=1 iflag=direct status=none 2>/dev/null && direct=yes
    }
    if [ "$direct" = yes ]; then
        dd if="$1" bs=1M iflag=direct status=none
    else
        cat -- "$1"
    fi
}

do_read() {
    direct=''
    while [ "$#" -gt 0 ]; do
        [ "$#" -gt 2 ] || die 64 'a set needs its first and its last part'
        check_number "$2"
        check_number "$3"
        [ "$3" -le 999999 ] || die 64 'a set has 999999 parts at most'
        enter_set "$1"
        number=$2
        while [ "$number" -le "$3" ]; do
            file=$(printf 'part-%06d.age' "$number")
            is_file "$file" || die 66 "$file of $path is missing, or is no file"
            pass_part "$file" || die_reading "$file" "$?"
            number=$((number + 1))
        done
        shift 3
    done
}

do_sums() {
    enter_set "$1"
    choose_sum
    shift
    for file; do
        check_name "$file"
        is_file "$file" || die 66 "$file of $path is missing, or is no file"
        sum=$($sha256 <"$file") && bytes=$(stat -c %s -- "$file") ||
            die 74 "cannot read $file of $path"
        printf '%s %s %s\n' "${sum%% *}" "$bytes" "$file"
    done
}

do_remove() {
    find_set "$1"
    shift
    is_there "$name" || return 0
    enter "./$name" "$path" "../$name"
    check_ours "$@"
    if is_there "$manifest"; then
        mv -f -T -- "$manifest" "$expired" || die 74 "cannot rename $manifest in $path"
        settle .
    fi
    clear_parts && clear_unfinished && remove_all "$manifest.new" "$@" ||
        die 74 "cannot remove the files of $path"
    settle .
    rm -f -- "$expired" || die 74 "cannot remove $expired in $path"
    settle .
    cd .. && rmdir -- "$name" || die 74 "cannot remove $path"
    settle .
}

# Dies at the first entry that is none of a set.
check_ours() {
    for extra; do check_name "$extra"; done
    ours=" $manifest $manifest.new $expired $* "
    set +f
    for file in * .[!.]* ..?*; do
        set -f
        is_there "$file" || continue
        case $file in
        part-[0-9][0-9][0-9][0-9][0-9][0-9].age | part-[0-9][0-9][0-9][0-9][0-9][0-9].age.new) ;;
        .xbvault.??????????) ;;
        *[!A-Za-z0-9._-]*) die 65 "$path holds a file that is not of the set; nothing was removed" ;;
        *)
            case $ours in
            *" $file "*) ;;
            *) die 65 "$path holds $file, which is not of the set; nothing was removed" ;;
            esac
            ;;
        esac
        is_file "$file" || die 65 "$file in $path is no file; nothing was removed"
    done
    set -f
}

main() {
    verb=${1:-}
    [ $# -ge 2 ] || die 64 'wrong call'
    shift
    case $verb.$# in
    look.1 | list.1 | make.1 | publish.1 | write.4) ;;
    show.1 | show.2 | sums.1) die 64 'wrong call' ;;
    show.* | sums.* | remove.* | read.*) ;;
    *) die 64 'wrong call' ;;
    esac
    "do_$verb" "$@"
}

main "$@"
exit
