#!/bin/sh
#
# hz4-preload - run a command on the hz4 memory allocator
#
# Finds the library and puts it into LD_PRELOAD.  hz4-inspect then looks into
# the command and becomes it.
#
# Every variable is named hz4p_*: a name that the caller happens to have
# exported would otherwise reach the command with our value.

hz4p_version='@PACKAGE_VERSION@'
hz4p_libdir='@libdir@'
hz4p_preload_libdir='@preload_libdir@'
hz4p_built='@flavour@'
hz4p_soname=libhz4.so.0
hz4p_inspect='@pkglibexecdir@/hz4-inspect'

hz4p_usage() {
	cat <<EOF
usage: hz4-preload [OPTION...] [--] COMMAND [ARGUMENT...]
       hz4-preload --check [OPTION...] [--] [COMMAND]

Run COMMAND with hz4 in the place of libc's memory allocator.

  --flavour=NAME  another build of the library: base, dual-tier, stats, ...
  --check         say what would be loaded and whether COMMAND can use it
  --strict        refuse, instead of warn, where COMMAND cannot use hz4
  --verbose       say on stderr what is preloaded
  --help          print this text
  --version       print the version

Exit status: COMMAND's own; 125 if hz4-preload fails, 126 if COMMAND cannot
be executed, 127 if it is not found.  With --check: 0 if COMMAND would run
on hz4, 1 if not, or else 125, 126 or 127 for the same reasons.
EOF
}

hz4p_say() {
	printf 'hz4-preload: %s\n' "$1" >&2
}

hz4p_fail() {
	hz4p_say "$2"
	exit "$1"
}

hz4p_usage_error() {
	[ -z "$1" ] || hz4p_say "$1"
	hz4p_usage >&2
	exit 125
}

# --------------------------------------------------------------------------
# The library
# --------------------------------------------------------------------------

# Names of the flavours that are installed, for a message.
hz4p_list_flavours() {
	hz4p_list=$hz4p_built
	for hz4p_dir in "$hz4p_others"/*; do
		[ -f "$hz4p_dir/$hz4p_soname" ] ||
			[ -f "$hz4p_dir/.libs/$hz4p_soname" ] || continue
		hz4p_list="$hz4p_list, ${hz4p_dir##*/}"
	done
	printf '%s\n' "$hz4p_list"
}

# Set hz4p_file, the library to look at, and hz4p_entry, what LD_PRELOAD
# shall hold.  They differ where the entry has a token that ld.so expands.
# In the build tree hz4p_inspect is there, too.
hz4p_find_library() {
	case $0 in
	*/*) hz4p_dir=${0%/*}/ ;;
	*) hz4p_dir=./ ;;
	esac
	if [ -f "${hz4p_dir}libhz4.la" ]; then
		# Not installed: this is the directory it was built in.
		hz4p_dir=$(CDPATH='' cd -- "$hz4p_dir" && pwd) || exit 125
		hz4p_inspect=$hz4p_dir/hz4-inspect
		hz4p_others=$hz4p_dir/flavours
		[ "$hz4p_flavour" = "$hz4p_built" ] ||
			hz4p_dir=$hz4p_others/$hz4p_flavour
		hz4p_file=$hz4p_dir/.libs/$hz4p_soname
		hz4p_entry=$hz4p_file
	else
		hz4p_others=$hz4p_libdir/hz4
		hz4p_suffix=/$hz4p_soname
		[ "$hz4p_flavour" = "$hz4p_built" ] ||
			hz4p_suffix=/hz4/$hz4p_flavour/$hz4p_soname
		hz4p_entry=$hz4p_preload_libdir$hz4p_suffix
		case $hz4p_entry in
		*\$*) hz4p_file=$hz4p_libdir$hz4p_suffix ;;
		*) hz4p_file=$hz4p_entry ;;
		esac
	fi

	case $hz4p_entry in
	*[:\ ]*) hz4p_fail 125 \
		"cannot preload '$hz4p_entry': the path has a blank or a colon" ;;
	esac
	if [ ! -f "$hz4p_file" ]; then
		hz4p_say "no library '$hz4p_file'"
		hz4p_fail 125 "flavours here: $(hz4p_list_flavours)"
	fi
	[ -r "$hz4p_file" ] ||
		hz4p_fail 125 "cannot read the library '$hz4p_file'"
}

# Put hz4p_entry in front of what LD_PRELOAD holds, without another hz4.
hz4p_compose() {
	hz4p_preload=$hz4p_entry
	hz4p_rest=${LD_PRELOAD-}
	while [ -n "$hz4p_rest" ]; do
		hz4p_item=${hz4p_rest%%[: ]*}
		case $hz4p_rest in
		*[:\ ]*) hz4p_rest=${hz4p_rest#*[: ]} ;;
		*) hz4p_rest= ;;
		esac
		case $hz4p_item in
		'' | libhz4.so | */libhz4.so) ;;
		"$hz4p_soname" | */"$hz4p_soname") ;;
		"$hz4p_soname".* | */"$hz4p_soname".*) ;;
		*) hz4p_preload=$hz4p_preload:$hz4p_item ;;
		esac
	done
}

# --------------------------------------------------------------------------

hz4p_flavour=$hz4p_built
hz4p_mode=run
hz4p_verbose=

while [ $# -gt 0 ]; do
	case $1 in
	--flavour=*) hz4p_flavour=${1#*=} ;;
	--check) hz4p_mode=check ;;
	--strict) [ $hz4p_mode = check ] || hz4p_mode=strict ;;
	--verbose) hz4p_verbose=yes ;;
	--help)
		hz4p_usage
		exit 0
		;;
	--version)
		printf 'hz4-preload %s\n' "$hz4p_version"
		exit 0
		;;
	--)
		shift
		break
		;;
	-*) hz4p_usage_error "unknown option '$1'" ;;
	*) break ;;
	esac
	shift
done

case $hz4p_flavour in
'' | *[!a-z0-9+-]*)
	hz4p_usage_error "--flavour=$hz4p_flavour: not a name of a flavour" ;;
esac
[ $# -gt 0 ] || [ $hz4p_mode = check ] || hz4p_usage_error ''

hz4p_find_library
hz4p_compose
if [ $hz4p_mode = check ]; then
	printf 'flavour:  %s\nlibrary:  %s\npreload:  %s\n' \
		"$hz4p_flavour" "$hz4p_file" "$hz4p_preload"
	[ $# -gt 0 ] || exit 0
elif [ -n "$hz4p_verbose" ]; then
	hz4p_say "LD_PRELOAD=$hz4p_preload (flavour $hz4p_flavour)"
fi

[ ! -x "$hz4p_inspect" ] ||
	exec "$hz4p_inspect" $hz4p_mode "$hz4p_file" "$hz4p_preload" "$@"

# To run a command without a look at it is better than not to run it.
[ $hz4p_mode = run ] ||
	hz4p_fail 125 "no '$hz4p_inspect', which looks into '$1'"
LD_PRELOAD=$hz4p_preload
export LD_PRELOAD
case $1 in
# To env this is a variable.  "exec" has options in some shells only.
*=*) exec nice -n 0 -- "$@" ;;
*) exec env -- "$@" ;;
esac
