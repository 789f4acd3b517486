#!/bin/sh
#
# hz4-preload - run a command on the hz4 memory allocator
#
# Every variable is named hz4p_*: a name that the caller happens to have
# exported would otherwise reach the command with our value.

hz4p_version='@PACKAGE_VERSION@'
hz4p_libdir='@libdir@'
hz4p_preload_libdir='@preload_libdir@'
hz4p_built='@flavour@'
hz4p_soname=libhz4.so.0

# Allocators and sanitizers by the names of their libraries.  A program that
# carries one either keeps using it or mixes two heaps.
hz4p_is_sanitizer() {
	case $1 in
	libasan.so* | libtsan.so* | liblsan.so* | libhwasan.so* | \
		libclang_rt.*san*) return 0 ;;
	esac
	return 1
}

hz4p_is_allocator() {
	case $1 in
	libjemalloc* | libtcmalloc* | libmimalloc* | libsnmalloc* | \
		librpmalloc* | libtbbmalloc* | libhardened_malloc* | \
		libscudo* | libhoard* | libisoalloc* | libdmalloc* | \
		libefence* | libduma* | libumem* | libmesh.so* | \
		libc_malloc_debug* | libgwp_asan* | libnedmalloc*) return 0 ;;
	esac
	return 1
}

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
on hz4, 1 if not.
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

# What the command cannot do with hz4: a line of the report, a warning, or
# with --strict the end.
hz4p_object() {
	hz4p_objections=$((hz4p_objections + 1))
	if [ -n "$hz4p_check" ]; then
		printf 'problem:  %s\n' "$*"
	elif [ -n "$hz4p_strict" ]; then
		hz4p_fail 125 "refused: $*"
	else
		hz4p_say "warning: $*"
	fi
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
hz4p_find_library() {
	case $0 in
	*/*) hz4p_dir=${0%/*}/ ;;
	*) hz4p_dir=./ ;;
	esac
	if [ -f "${hz4p_dir}libhz4.la" ]; then
		# Not installed: this is the directory it was built in.
		hz4p_dir=$(CDPATH='' cd -- "$hz4p_dir" && pwd) || exit 125
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
# The command
# --------------------------------------------------------------------------

# Look for program $1 as execvp() does.  Sets hz4p_path and returns 0, or
# returns 126 or 127.
hz4p_lookup() {
	hz4p_path=
	hz4p_status=127
	case $1 in
	'') return 127 ;;
	*/*)
		[ -e "$1" ] || return 127
		hz4p_path=$1
		[ -f "$1" ] && [ -x "$1" ] && return 0
		return 126
		;;
	esac
	hz4p_rest=${PATH-/usr/bin:/bin}:
	while [ -n "$hz4p_rest" ]; do
		hz4p_dir=${hz4p_rest%%:*}
		hz4p_rest=${hz4p_rest#*:}
		hz4p_item=${hz4p_dir:-.}/$1
		[ -f "$hz4p_item" ] || continue
		if [ -x "$hz4p_item" ]; then
			hz4p_path=$hz4p_item
			return 0
		fi
		hz4p_path=$hz4p_item
		hz4p_status=126
	done
	return $hz4p_status
}

# Print what the file $1 is, a fact a line:
#   script              starts with #!
#   elf CLASS MACHINE   32 or 64, the number of the processor
#   interp PATH         its dynamic loader; absent in a static program
#   needed NAME         a library that it names
#   defines NAME        an allocator's symbol of its own (only if $2 is deep)
#   unread              too many symbols to look for the former
#   text                none of these
#   data                the same, but with a NUL, so for no shell
# Reads the headers with od, so that it works without binutils.
hz4p_facts() {
	hz4p_elf=$1 hz4p_depth=$2 awk '
	function bytes(off, n,   cmd, line, k, f, m) {
		split("", B)
		m = 0
		cmd = sprintf("od -An -v -t u1 -j %.0f -N %.0f " \
			"\"$hz4p_elf\" 2>/dev/null", off, n)
		while ((cmd | getline line) > 0) {
			k = split(line, f, " ")
			for (line = 1; line <= k; line++)
				B[m++] = f[line] + 0
		}
		close(cmd)
		return m
	}
	function num(at, len,   i, v) {
		v = 0
		for (i = 0; i < len; i++)
			v = v * 256 + B[le ? at + len - 1 - i : at + i]
		return v
	}
	function string(at, end,   s) {
		s = ""
		for (; at < end && B[at] > 0; at++)
			s = s sprintf("%c", B[at])
		return s
	}
	function fileoff(addr,   i) {
		for (i = 0; i < loads; i++)
			if (addr >= va[i] && addr < va[i] + size[i])
				return addr - va[i] + where[i]
		return -1
	}
	# The offsets in the string table at which a name of interest starts;
	# a linker lets "malloc" be the end of "xmalloc".
	function scan_strings(len,   i, j, n, s, names, hit) {
		n = split("malloc __asan_init __tsan_init __msan_init " \
			"__lsan_init __hwasan_init", names, " ")
		s = ""
		for (i = 0; i < len; i++) {
			if (B[i] > 0) {
				s = s sprintf("%c", B[i])
				continue
			}
			for (j = 1; j <= n; j++) {
				hit = length(s) - length(names[j])
				if (hit >= 0 && substr(s, hit + 1) == names[j])
					at[i - length(names[j])] = names[j]
			}
			s = ""
		}
	}
	function deep(   n, i, entry, name, section) {
		str = fileoff(strtab)
		sym = fileoff(symtab)
		entry = wide ? 24 : 16
		if (str < 0 || sym < 0 || str <= sym || \
		    strsz > 1048576 || str - sym > 1048576) {
			print "unread"
			return
		}
		scan_strings(bytes(str, strsz))
		n = int(bytes(sym, str - sym) / entry)
		for (i = 0; i < n; i++) {
			name = num(i * entry, 4)
			section = num(i * entry + (wide ? 6 : 14), 2)
			if (name in at && section != 0)
				print "defines", at[name]
		}
	}
	BEGIN {
		n = bytes(0, 64)
		if (B[0] == 35 && B[1] == 33) {
			print "script"
			exit
		}
		if (n < 52 || B[0] != 127 || B[1] != 69 || B[2] != 76 || \
		    B[3] != 70) {
			for (i = 0; i < n && B[i] != 0; i++)
				;
			print i < n ? "data" : "text"
			exit
		}
		wide = B[4] == 2
		le = B[5] == 1
		print "elf", wide ? 64 : 32, num(18, 2)
		phoff = num(wide ? 32 : 28, wide ? 8 : 4)
		phsize = num(wide ? 54 : 42, 2)
		phnum = num(wide ? 56 : 44, 2)
		if (phnum > 256 || phsize > 256)
			exit
		if (bytes(phoff, phsize * phnum) < phsize * phnum)
			exit
		loads = 0
		word = wide ? 8 : 4
		for (i = 0; i < phnum; i++) {
			p = i * phsize
			type = num(p, 4)
			off = num(p + word, word)
			addr = num(p + 2 * word, word)
			len = num(p + 4 * word, word)
			if (type == 1) {
				where[loads] = off
				va[loads] = addr
				size[loads++] = len
			} else if (type == 2) {
				dyn = off
				dynsize = len
			} else if (type == 3) {
				interp = off
				interpsize = len
			}
		}
		if (!interpsize || interpsize > 4096)
			exit
		print "interp", string(0, bytes(interp, interpsize))
		if (!dynsize || dynsize > 65536)
			exit
		n = bytes(dyn, dynsize)
		libs = 0
		for (p = 0; p + 2 * word <= n; p += 2 * word) {
			tag = num(p, word)
			value = num(p + word, word)
			if (tag == 0)
				break
			else if (tag == 1)
				need[libs++] = value
			else if (tag == 5)
				strtab = value
			else if (tag == 6)
				symtab = value
			else if (tag == 10)
				strsz = value
		}
		str = fileoff(strtab)
		for (i = 0; str >= 0 && i < libs; i++)
			print "needed", string(0, bytes(str + need[i], 128))
		if (ENVIRON["hz4p_depth"] == "deep")
			deep()
	}'
}

# Object if running $1 gains privileges, for then ld.so drops the preload.
hz4p_check_setuid() {
	[ -u "$1" ] || [ -g "$1" ] || return 0
	# shellcheck disable=SC2012 # the fields before the name are fixed
	hz4p_ids=$(ls -ldnL -- "$1" | awk '{ print $3, $4; exit }')
	if [ -u "$1" ] && [ "${hz4p_ids% *}" != "$(id -ru)" ]; then
		hz4p_object "'$1' is setuid: ld.so ignores the preload"
	elif [ -g "$1" ] && [ "${hz4p_ids#* }" != "$(id -rg)" ]; then
		hz4p_object "'$1' is setgid: ld.so ignores the preload"
	fi
}

# The same for a file with capabilities.  Needs getcap.
hz4p_check_capabilities() {
	hz4p_item=$(PATH=${PATH-}:/usr/sbin:/sbin getcap -- "$1" 2>/dev/null)
	[ -z "$hz4p_item" ] || [ "$(id -ru)" = 0 ] ||
		hz4p_object "'$1' has capabilities: ld.so ignores the preload"
}

# Object if library $2 in program $1 is an allocator or a sanitizer.
hz4p_check_needed() {
	if hz4p_is_sanitizer "$2"; then
		hz4p_object "'$1' is built with a sanitizer ($2)"
	elif hz4p_is_allocator "$2"; then
		hz4p_object "'$1' uses an allocator of its own ($2)"
	fi
}

hz4p_library_arch() {
	hz4p_facts "$hz4p_file" | sed -n 's/^elf //p'
}

# Let the loader $2 list what program $1 would load: finds allocators below
# other libraries too, and errors of the preload itself.
hz4p_check_loaded() {
	case $2 in
	*/ld-linux*.so* | */ld64.so* | */ld.so*) [ -x "$2" ] || return 0 ;;
	*) return 0 ;;
	esac
	hz4p_compose
	hz4p_loaded=$(LD_PRELOAD=$hz4p_preload "$2" --list "$1" 2>&1) ||
		return 0
	case $hz4p_loaded in
	*"$hz4p_soname ("*) ;;
	*) hz4p_object "the loader $2 does not load $hz4p_soname" ;;
	esac
	# Another one than the library above where the program has 32 bits.
	[ -z "$hz4p_check" ] || [ "$(hz4p_library_arch)" = "$hz4p_arch" ] ||
		printf '%s\n' "$hz4p_loaded" |
		sed -n "s,^.*[[:blank:]]\(/.*/$hz4p_soname\) (.*,loads:    \1,p"
	# In a pipe the loop would count objections in a subshell.
	while IFS= read -r hz4p_line; do
		hz4p_line=${hz4p_line%% (*}
		hz4p_line=${hz4p_line%% =>*}
		hz4p_line=${hz4p_line##*[/	]}
		case " $hz4p_seen " in
		*" $hz4p_line "*) ;;
		*) hz4p_check_needed "$1" "$hz4p_line" ;;
		esac
	done <<EOF
$hz4p_loaded
EOF
}

# Look at the ELF program $1, whose facts are in hz4p_about.
hz4p_check_program() {
	hz4p_interp=
	hz4p_seen=
	hz4p_check_setuid "$1"
	[ -z "$hz4p_depth" ] || hz4p_check_capabilities "$1"
	while IFS=' ' read -r hz4p_key hz4p_value; do
		case $hz4p_key in
		elf) hz4p_arch=$hz4p_value ;;
		interp) hz4p_interp=$hz4p_value ;;
		needed)
			hz4p_seen="$hz4p_seen $hz4p_value"
			hz4p_check_needed "$1" "$hz4p_value"
			;;
		defines)
			case $hz4p_value in
			malloc) hz4p_object "'$1' has a malloc of its own" ;;
			*) hz4p_object \
				"'$1' is built with a sanitizer ($hz4p_value)" ;;
			esac
			;;
		unread) hz4p_note="symbols not looked at" ;;
		esac
	done <<EOF
$hz4p_about
EOF
	if [ -z "$hz4p_interp" ]; then
		case ${1##*/} in
		ld-linux*.so* | ld64.so* | ld.so*)
			hz4p_note='what the loader runs is not looked into'
			return
			;;
		esac
		hz4p_object "'$1' is statically linked: nothing can be preloaded"
		return
	fi
	case $hz4p_interp in
	*/ld-musl*)
		hz4p_object "'$1' runs on musl, hz4 is built for glibc" ;;
	esac
	# 32-bit beside 64-bit: with a token ld.so finds the right one.
	case $hz4p_entry in
	*\$*) ;;
	*)
		[ "$(hz4p_library_arch)" = "$hz4p_arch" ] || hz4p_object \
			"'$1' is for another kind of processor than the library"
		;;
	esac
	[ -z "$hz4p_depth" ] || hz4p_check_loaded "$1" "$hz4p_interp"
}

# Look at the file $1 that is to be executed; a script leads to its
# interpreter.  Sets hz4p_plain if the kernel cannot execute it but a shell
# can, as execvp() does.
hz4p_check_file() {
	hz4p_target=$1
	hz4p_plain=
	hz4p_chain=
	for hz4p_level in 1 2 3 4 5; do
		hz4p_show "$hz4p_target"
		if [ ! -r "$hz4p_target" ]; then
			hz4p_check_setuid "$hz4p_target"
			hz4p_note='not readable, so not looked into'
			return
		fi
		hz4p_about=$(hz4p_facts "$hz4p_target" "$hz4p_depth")
		case $hz4p_about in
		elf*)
			hz4p_check_program "$hz4p_target"
			return
			;;
		text)
			[ $hz4p_level = 1 ] && hz4p_plain=yes
			hz4p_target=/bin/sh
			;;
		data)
			# The system may know who runs it (binfmt_misc).
			hz4p_note='not looked into: neither program nor script'
			return
			;;
		script)
			IFS= read -r hz4p_line <"$hz4p_target"
			hz4p_script_target "${hz4p_line#??}" || return
			if [ ! -f "$hz4p_target" ] || [ ! -x "$hz4p_target" ]
			then
				hz4p_object "'$1' is to be run by" \
					"'$hz4p_target', which cannot be"
				return
			fi
			;;
		*) return ;;
		esac
	done
	hz4p_object "'$1' is run by scripts, and these by more"
}

# Set hz4p_target to what the words after #! run; env is looked through.
hz4p_script_target() {
	set -f
	# shellcheck disable=SC2086 # split into words as meant
	set -- $1
	set +f
	[ $# -gt 0 ] || return 1
	hz4p_target=$1
	case $1 in
	*/env)
		shift
		while [ $# -gt 0 ]; do
			case $1 in
			-* | *=*) shift ;;
			*) break ;;
			esac
		done
		[ $# -gt 0 ] && hz4p_lookup "$1" && hz4p_target=$hz4p_path
		;;
	esac
	return 0
}

hz4p_show() {
	[ -n "$hz4p_check" ] || return 0
	printf '%s%s\n' "${hz4p_chain:-command:  }" "$1"
	hz4p_chain='run by:   '
}

# --------------------------------------------------------------------------

hz4p_flavour=$hz4p_built
hz4p_check=
hz4p_strict=
hz4p_verbose=
hz4p_note=
hz4p_objections=0
hz4p_depth=

while [ $# -gt 0 ]; do
	case $1 in
	--flavour=*) hz4p_flavour=${1#*=} ;;
	--check) hz4p_check=yes ;;
	--strict) hz4p_strict=yes ;;
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
[ $# -gt 0 ] || [ -n "$hz4p_check" ] || hz4p_usage_error ''

hz4p_find_library
hz4p_compose
if [ -n "$hz4p_check" ]; then
	printf 'flavour:  %s\nlibrary:  %s\npreload:  %s\n' \
		"$hz4p_flavour" "$hz4p_file" "$hz4p_preload"
	[ $# -gt 0 ] || exit 0
fi

hz4p_lookup "$1" || {
	hz4p_status=$?
	[ $hz4p_status = 127 ] && hz4p_fail 127 "'$1': not found"
	hz4p_fail 126 "'$1': found, but cannot be executed"
}
hz4p_command=$hz4p_path
[ -z "$hz4p_check$hz4p_strict" ] || hz4p_depth=deep
hz4p_check_file "$hz4p_command"

if [ -n "$hz4p_check" ]; then
	[ -z "$hz4p_note" ] || printf 'note:     %s\n' "$hz4p_note"
	if [ "$hz4p_objections" -gt 0 ]; then
		printf 'verdict:  does not run on hz4, or not on hz4 alone\n'
		exit 1
	fi
	printf 'verdict:  runs on hz4\n'
	exit 0
fi

# From here on nothing else may be started: it would be preloaded too.
hz4p_compose
[ -z "$hz4p_verbose" ] ||
	hz4p_say "LD_PRELOAD=$hz4p_preload (flavour $hz4p_flavour)"
LD_PRELOAD=$hz4p_preload
export LD_PRELOAD

if [ -n "$hz4p_plain" ]; then
	shift
	# The system may know better who runs it (binfmt_misc): env asks it
	# first, as execvp() does, and no shell is sure to.
	case $hz4p_command in
	*=*) ;;
	*) [ ! -x /usr/bin/env ] || exec /usr/bin/env -- "$hz4p_command" "$@" ;;
	esac
	exec /bin/sh "$hz4p_command" "$@"
fi
case $1 in
-*)
	# Not an option of exec, but the name of the command.
	shift
	exec "$hz4p_command" "$@"
	;;
esac
exec "$@"
