# shellcheck shell=sh
# What debian-try and debian-check share.  Sourced, not run.

# configure would look for bash, which forks more slowly than Debian's sh.
export CONFIG_SHELL=/bin/sh

# as_root COMMAND...: dpkg wants the directories of root's programs, which
# are not in the path after a plain su.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		env PATH="$PATH:/usr/sbin:/sbin" "$@"
	else
		sudo "$@"
	fi
}

# need PACKAGE...: install what is missing, as root or through sudo.  Where
# that fails, the last line says so.
need() {
	missing=
	for package in "$@"; do
		case $(dpkg-query -W -f '${db:Status-Status}' "$package" \
			2>/dev/null) in
		installed) ;;
		*) missing="$missing $package" ;;
		esac
	done
	[ -n "$missing" ] || return 0
	if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
		echo "${0##*/}: neither root nor sudo to install:$missing" >&2
		return 1
	fi
	echo "installing:$missing"
	# A source that cannot be reached need not be one that is wanted.
	# shellcheck disable=SC2086 # a list of words
	{
		as_root env DEBIAN_FRONTEND=noninteractive \
			apt-get -q -y update
		as_root env DEBIAN_FRONTEND=noninteractive \
			apt-get -q -y -o Dpkg::Use-Pty=0 \
			-o DPkg::Lock::Timeout=300 \
			install --no-install-recommends $missing
	} || {
		echo "${0##*/}: could not install:$missing" >&2
		return 1
	}
}

# prepare: configure and everything that it is made from.
prepare() {
	if [ ! -x configure ] || [ ! -f build-aux/ltmain.sh ] ||
		[ "$(find configure.ac m4 -newer configure)" ] ||
		[ "$(find ./*.am packaging/*.am -newer Makefile.in)" ]; then
		./bootstrap
	fi
}

# build DIRECTORY [CONFIGURE-OPTION...]
build() {
	build_dir=$1
	shift
	mkdir -p "$build_dir" &&
		(cd "$build_dir" && "${top:?}/configure" --quiet "$@") &&
		make -C "$build_dir" -s -j "$(nproc)"
}
