# shellcheck shell=sh
# What debian-try and debian-check share.  Sourced, not run.

# need PACKAGE...: install what is missing, as root or through sudo.
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
	echo "installing:$missing"
	sudo=
	if [ "$(id -u)" != 0 ]; then
		if ! command -v sudo >/dev/null; then
			echo "missing, and neither root nor sudo:$missing" >&2
			return 1
		fi
		sudo=sudo
	fi
	# shellcheck disable=SC2086 # lists of words
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y update &&
		$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
			-o Dpkg::Use-Pty=0 install --no-install-recommends \
			$missing
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
