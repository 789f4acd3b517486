# shellcheck shell=sh
# What the scripts of packaging/ share: throw-away systems.  Sourced, not
# run.  $packaging is the directory of this file; the current directory is
# the build directory, and everything is made in build-deb/ there.

say() {
	printf '== %s\n' "$*"
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# shellcheck source=scripts/debian-lib.sh
. "${packaging:?}/../scripts/debian-lib.sh"

arch=$(dpkg --print-architecture) || die 'not on a Debian-like system'
out=$(pwd)/build-deb

# Roots are made, entered and removed by root.
need_root() {
	[ "$(id -u)" = 0 ] || die "makes throw-away systems: run it as root"
}

# one_file PATTERN...: the one file that there is.
one_file() {
	# shellcheck disable=SC2015 # die is for both
	[ $# = 1 ] && [ -f "$1" ] || die "expected one file, not: $*"
	printf '%s\n' "$1"
}

# This machine's own sources, those of the distribution alone, as lines for
# sources.list; nothing is known here of where a machine gets its packages.
# HZ4_DEB_SOURCES names a file of such lines to take instead.
machine_sources() {
	if [ -n "${HZ4_DEB_SOURCES-}" ]; then
		cat "$HZ4_DEB_SOURCES"
		return
	fi
	# shellcheck disable=SC2016 # apt-get's variables
	apt-get indextargets --format \
		'$(ORIGIN)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
		'Created-By: Packages' 2>/dev/null |
		sed -n -e 's/^Debian|//p' -e 's/^Ubuntu|//p' | sort -u
}

# How this machine's apt reaches them: proxies, certificates, clocks.
machine_apt_conf() {
	apt-config dump | grep -E \
		-e '^Acquire::(https?|Check|Retries|Max-FutureTime)' \
		-e '^Acquire::Languages'
}

# bootstrap_root ARCHITECTURES [PACKAGES]: the system as $root_tar.part.
bootstrap_root() {
	mmdebstrap --quiet --mode=root --format=tar --variant=minbase \
		--architectures="$1" ${2:+"--include=$2"} \
		--aptopt="$out/apt.conf" \
		--aptopt='APT::Install-Recommends "false"' \
		--skip=cleanup/apt/lists \
		'' "$root_tar.part" - <"$out/sources.list"
}

# make_root NAME ARCHITECTURE[,FOREIGN] [PACKAGE[,PACKAGE...]]: a minimal
# system as build-deb/root-NAME.tar.  One that is there already is taken,
# unless it is more than a day old.
make_root() {
	root_tar=$out/root-$1.tar
	if [ -f "$root_tar" ] && [ -n "$(find "$root_tar" -mtime 0)" ]; then
		return 0
	fi
	say "making the system $root_tar"
	machine_apt_conf >"$out/apt.conf"
	machine_sources >"$out/sources.list"
	[ -s "$out/sources.list" ] ||
		die "apt's sources name no Debian; run apt-get update?"
	bootstrap_root "$2" "${3-}" || {
		# A mirror in the middle of an update has indices that do not
		# match: mostly of the suites that change every day.
		say 'once more, without the suites of updates'
		sed -i '/-security \|-updates \|-backports /d' "$out/sources.list"
		bootstrap_root "$2" "${3-}"
	} || {
		rm -f "$root_tar.part"
		die 'mmdebstrap failed'
	}
	mv "$root_tar.part" "$root_tar"
}

# unpack_root NAME DIRECTORY: a fresh copy of it.
unpack_root() {
	rm -rf --one-file-system "$2" && mkdir -p "$2" &&
		tar -C "$2" -xpf "$out/root-$1.tar" --numeric-owner || return
	# mmdebstrap leaves these out, and names have to be resolved inside.
	cp /etc/resolv.conf /etc/hosts "$2/etc/" &&
		printf '#!/bin/sh\nexit 101\n' >"$2/usr/sbin/policy-rc.d" &&
		chmod 755 "$2/usr/sbin/policy-rc.d"
}

# with_mounts DIRECTORY COMMAND...: run COMMAND, outside, while /proc and
# /dev are there inside; they end with it, in namespaces of its own, and so
# does all that it has started.
with_mounts() {
	# shellcheck disable=SC2016 # for the inner shell
	unshare --mount --propagation private --pid --fork --kill-child sh -c '
		root=$1
		shift
		mount -t proc proc "$root/proc" &&
		mount --rbind /dev "$root/dev" && exec "$@"' \
		sh "$@"
}

# in_root DIRECTORY COMMAND...: run it inside, with a clean environment.
in_root() {
	in_root_dir=$1
	shift
	with_mounts "$in_root_dir" env -i HOME=/root TERM=dumb LC_ALL=C.UTF-8 \
		DEBIAN_FRONTEND=noninteractive \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		DEB_BUILD_OPTIONS="${DEB_BUILD_OPTIONS-}" \
		chroot "$in_root_dir" "$@"
}
