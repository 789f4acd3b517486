# shellcheck shell=sh
# What the .test scripts share: lines of the Test Anything Protocol.
# Sourced, not run.  Works in any POSIX shell.

tap_count=0

# tap_ok STATUS DESCRIPTION: passed if STATUS is 0.
tap_ok() {
	tap_count=$((tap_count + 1))
	if [ "$1" -eq 0 ]; then
		printf 'ok %d - %s\n' "$tap_count" "$2"
	else
		printf 'not ok %d - %s\n' "$tap_count" "$2"
	fi
}

# tap_is GOT EXPECTED DESCRIPTION: passed if the two strings are the same.
tap_is() {
	if [ "$1" = "$2" ]; then
		tap_ok 0 "$3"
	else
		tap_ok 1 "$3"
		printf 'expected: %s\ngot:      %s\n' "$2" "$1" | sed 's/^/# /'
	fi
}

# tap_like GOT PATTERN DESCRIPTION: passed if the shell pattern matches.
tap_like() {
	# shellcheck disable=SC2254 # a pattern is meant
	case $1 in
	$2) tap_ok 0 "$3" ;;
	*)
		tap_ok 1 "$3"
		printf 'pattern:  %s\ngot:      %s\n' "$2" "$1" | sed 's/^/# /'
		;;
	esac
}

# tap_skip DESCRIPTION REASON
tap_skip() {
	tap_count=$((tap_count + 1))
	printf 'ok %d - %s # SKIP %s\n' "$tap_count" "$1" "$2"
}

# tap_skip_all REASON: nothing in this script can be tested here.
tap_skip_all() {
	printf '1..0 # SKIP %s\n' "$1"
	exit 0
}

# The plan, once all is done.
tap_done() {
	printf '1..%d\n' "$tap_count"
}

# A directory of our own, removed at the end.
tap_tmpdir() {
	tap_tmp=$(mktemp -d "${TMPDIR:-/tmp}/hz4-test.XXXXXX") || exit 99
	trap 'rm -rf "$tap_tmp"' EXIT
	trap 'exit 99' HUP INT TERM
}

# tap_box NAME: whether this build was configured with it (dual_tier, stats,
# debug, alloc_run).
tap_box() {
	case " ${hz4_boxes-} " in
	*" $1=yes "*) return 0 ;;
	esac
	return 1
}
