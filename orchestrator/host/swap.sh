#!/bin/sh
# Puts what a run made in the place of what was there, or takes it back. It only renames, and it can
# be cut off anywhere: run again, either way, it goes on from where it was.
#
#   swap.sh forward RUN_DIR    out -> in -> swapped
#   swap.sh back    RUN_DIR    back-out -> back-in -> restored
#
# RUN_DIR/swap.list is fixed before the first rename (orchestrator/steps/places.py writes it): for
# each place a block of lines, and `end` after the last one. Nothing in it is ever run as code.
#   whole | entries    the directory itself is renamed, or what lies in it
#   PLACE              where the server wants its files
#   OLD                where the earlier ones are set aside
#   NEW                where the new ones wait
#   +PATTERN           entries of PLACE that are the server's
#   -NAME              an entry that is left alone, whatever the patterns say
#   .
# RUN_DIR/swap.phase says what is being done:
#   out       PLACE -> OLD        back-out  PLACE -> NEW
#   in        NEW -> PLACE        back-in   OLD -> PLACE
# Each is finished, and is on disk, before the next one is written down. So while one lasts, an entry
# stands at its beginning or at its end. What is at its end already, and at its beginning again, has
# appeared meanwhile (a server that was started on half a datadir): it is set aside beside OLD and
# told as "stray PATH"; nothing is ever written over.

LC_ALL=C
export LC_ALL
umask 077
set -uf
newline='
'

die() {
    printf 'xbvault swap: %s\n' "$*" >&2
    exit 3
}

is_there() {
    [ -e "$1" ] || [ -L "$1" ]
}

read_phase() {
    phase=
    [ ! -e "$phase_file" ] || read -r phase <"$phase_file" || die "cannot read $phase_file"
}

write_phase() {
    printf '%s\n' "$1" >"$phase_file.new" && sync -- "$phase_file.new" &&
        mv -f -T -- "$phase_file.new" "$phase_file" && sync -- "$run_dir" ||
        die "cannot write $phase_file"
    phase=$1
}

# Calls a function for every block of the list, with kind, place, old, new, take and leave set.
each_place() {
    whole_list=
    while IFS= read -r kind <&3; do
        if [ "$kind" = end ]; then
            whole_list=1
            break
        fi
        IFS= read -r place <&3 && IFS= read -r old <&3 && IFS= read -r new <&3 || break
        take='' leave='' line=
        while IFS= read -r line <&3; do
            case $line in
            +*) take=$take${line#+}$newline ;;
            -*) leave=$leave${line#-}$newline ;;
            *) break ;;
            esac
        done
        [ "$line" = . ] || break
        "$1"
    done 3<"$list"
    [ "$whole_list" ] || die "$list is not whole"
}

check_block() {
    for path in "$place" "$old" "$new"; do
        case $path in
        /*) ;;
        *) die "$list names no absolute path: $path" ;;
        esac
    done
    case $kind in
    whole)
        [ ! -L "$place" ] || die "$place is a symbolic link"
        [ "$phase" ] && [ "$phase" != restored ] || [ -d "$new" ] || die "$new is not there"
        ;;
    entries)
        vault=${old%/*}
        unseen="is not there: is its filesystem mounted?"
        [ -d "$vault" ] && [ ! -L "$vault" ] || die "$vault $unseen"
        case $phase in
        '' | restored)
            [ -d "$new" ] || die "$new $unseen"
            mkdir -p -- "$old" && chown --reference="$place" -- "$old" || die "cannot make $old"
            ;;
        swapped) # the clean-up has removed what was empty
            [ -d "$old" ] || die "$old $unseen"
            mkdir -p -- "$new" || die "cannot make $new"
            ;;
        *) [ -d "$old" ] && [ -d "$new" ] || die "$old or $new $unseen" ;;
        esac
        # To another filesystem, mv would copy.
        devices=$(stat -c %d -- "$place" "$old" "$new" | sort -u)
        [ "${#devices}" -gt 0 ] && [ "$devices" = "${devices%%$newline*}" ] ||
            die "$old and $new do not lie on the filesystem of $place"
        ;;
    *) die "$list has no kind $kind" ;;
    esac
}

# Another run that was cut off in its swap must be finished or taken back first.
check_others() {
    set +f
    for other in "$run_dir"/../*/swap.phase; do
        set -f
        [ -e "$other" ] && ! [ "$other" -ef "$phase_file" ] || continue
        their_phase=
        read -r their_phase <"$other"
        case $their_phase in
        swapped | restored) ;;
        *)
            other=${other%/*}
            die "run ${other##*/} has left its swap half done: resume or undo that run first"
            ;;
        esac
    done
    set -f
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

is_left_alone() {
    earlier_ifs=$IFS
    IFS=$newline
    for kept in $leave; do
        if [ "$kept" = "$1" ]; then
            IFS=$earlier_ifs
            return 0
        fi
    done
    IFS=$earlier_ifs
    return 1
}

set_stray_aside() {
    number=1
    while is_there "$old.stray/$number"; do number=$((number + 1)); done
    mkdir -p -- "$old.stray/$number" && mv -t "$old.stray/$number" -- "$1" ||
        die "cannot move $1 out of the way"
    printf 'stray %s\n' "$old.stray/$number/${1##*/}" >&4
}

# Renames PLACE to $2 or $1 to PLACE, if it is there.
move_whole() {
    is_there "$1" || return 0
    if is_there "$2"; then
        set_stray_aside "$place"
        is_there "$1" || return 0
    fi
    mv -T -- "$1" "$2" || die "cannot rename $1 to $2"
}

# Writes the names of the entries of $1 that are to go to $2, and makes way for them. From PLACE go
# only those that are the server's.
select_entries() {
    set +f
    for entry in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        set -f
        name=${entry##*/}
        is_there "$entry" || continue
        if [ "$1" = "$place" ]; then
            matches "$name" "$take" && ! is_left_alone "$name" || continue
        fi
        if is_there "$2/$name"; then
            set_stray_aside "$place/$name"
            [ "$1" != "$place" ] || continue
        fi
        printf '%s\0' "$entry" || die "cannot write $names_file"
    done
    set -f
}

move_entries() {
    select_entries "$1" "$2" >"$names_file" || die "cannot write $names_file"
    xargs -0 -r mv -t "$2" -- <"$names_file" || die "cannot rename from $1 to $2"
}

# --- one phase for one place ---

take_out() {
    if [ "$kind" = whole ]; then move_whole "$place" "$old"; else move_entries "$place" "$old"; fi
    settle
}

put_in() {
    if [ "$kind" = whole ]; then
        is_there "$new" || is_there "$place" || die "neither $new nor $place is there"
        move_whole "$new" "$place"
    else
        move_entries "$new" "$place"
    fi
    settle
}

take_back_out() {
    if [ "$kind" = whole ]; then move_whole "$place" "$new"; else move_entries "$place" "$new"; fi
    settle
}

give_back() {
    if [ "$kind" = whole ]; then move_whole "$old" "$place"; else move_entries "$old" "$place"; fi
    settle
}

settle() {
    if [ "$kind" = whole ]; then sync -f -- "${place%/*}/"; else sync -f -- "$place"; fi ||
        die "cannot sync $place"
}

# --- both ways ---

go_forward() {
    case $phase in
    swapped) return ;;
    back-*) die "the swap is being taken back: undo the run" ;;
    '' | restored)
        check_others
        each_place check_block
        write_phase out
        ;;
    *) each_place check_block ;;
    esac
    if [ "$phase" = out ]; then
        each_place take_out
        write_phase in
    fi
    each_place put_in
    write_phase swapped
}

go_back() {
    case $phase in
    '' | restored) return ;;
    esac
    each_place check_block
    case $phase in
    out) write_phase back-in ;;
    in | swapped) write_phase back-out ;;
    esac
    if [ "$phase" = back-out ]; then
        each_place take_back_out
        write_phase back-in
    fi
    each_place give_back
    write_phase restored
}

main() {
    action=$1 run_dir=$2
    list=$run_dir/swap.list phase_file=$run_dir/swap.phase names_file=$run_dir/swap.names
    exec 4>&1 9>>"$run_dir/swap.lock" || die "cannot write below $run_dir"
    # A swap whose connection broke may go on for a while.
    flock -w 300 9 || die "another swap of this run is at work"
    read_phase
    case $action in
    forward) go_forward ;;
    back) go_back ;;
    *) die "forward or back" ;;
    esac
    rm -f -- "$names_file"
}

main "$@"
