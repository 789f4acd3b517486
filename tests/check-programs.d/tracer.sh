# shellcheck shell=sh
# Part of check-programs, which says what stands here: libraries that are preloaded as well, in front of libc's
# calls, with locks of their own.

program faketime 60 faketime perl
check_faketime() {
	faketime '2020-02-29 12:00:00' date '+%F %H'
	faketime '2020-02-29 12:00:00' perl -e '
		for my $i (1 .. 300000) { push @{ $h{ $i % 997 } }, "x" x ($i % 97) }
		printf "%d %s\n", scalar keys %h, (localtime)[5] + 1900'
}

program torsocks 60 torsocks perl
check_torsocks() {
	torsocks perl -e '
		my @a = map { "x" x ($_ % 3000) } 1 .. 20000;
		printf "%d\n", scalar @a'
	echo "status $?"
}

program heaptrack 120 heaptrack awk
check_heaptrack() {
	heaptrack -o traced awk 'BEGIN { for (i = 0; i < 20000; i++)
		a[i % 777] = a[i % 777] i; print length(a) }' >log 2>heaptrack.log
	echo "status $?"
	grep -c '^777$' log
	ls traced*
}

program fakeroot 60 fakeroot perl
check_fakeroot() {
	fakeroot perl -e 'print `id -u`; my @a = map { "x" x $_ } 1 .. 3000; print scalar @a, "\n"'
}
