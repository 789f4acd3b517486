# shellcheck shell=sh
# Part of check-programs, which says what stands here: shells and tools.

program bash 120 bash
check_bash() {
	cat >script <<'END'
declare -A count
for i in {1..20000}; do
	word=${i//[13579]/x}
	count[$word]=$((${count[$word]:-0} + 1))
done
echo "${#count[@]} ${count[x]} ${count[2x]}"
text=
for i in {1..3000}; do text+="$i,"; done
echo "${#text} ${text:5000:40}"
for i in {1..200}; do (echo "$i"; exit "$((i % 3))"); done | cksum
mapfile -t lines < <(for i in {1..5000}; do echo "line $i"; done)
echo "${#lines[@]} ${lines[4999]}"
f() { [ "$1" -eq 0 ] || f "$(($1 - 1))"; }
f 500
echo "$(echo "$(echo nested)")"
END
	bash script
}

program ls 120 ls
check_ls() {
	# A tree of its own: others may change the system's meanwhile.
	mkdir tree || return
	for d in 1 2 3 4 5 6 7 8 9; do
		seq -f "tree/$d/a file %g" 300 >names
		mkdir "tree/$d" && tr '\n' '\0' <names | xargs -0 touch
	done
	# shellcheck disable=SC2012 # ls is what is tested
	ls -aR tree | cksum
	# shellcheck disable=SC2012
	ls -lnR --time-style=+x tree | cksum
	ls --color=always -F tree/5
	ls /does/not/exist 2>&1
	echo "status $?"
}

program coreutils 120 awk sed grep find tr wc head
check_coreutils() {
	find /usr/include -name '*.h' | wc -l
	find /usr/include -name '*.h' -exec cat {} + | tr '[:lower:]' '[:upper:]' |
		sed 's/INCLUDE/include/g' | grep -c include
	awk 'BEGIN { for (i = 0; i < 300000; i++) { k = (i * 7919) % 50021
		n[k] = n[k] "," i }
		for (k = 0; k < 50021; k++) s += length(n[k]); print s }'
	cat /proc/self/comm - </dev/null
	head -c 1000000 /dev/zero | od -An -tx1 | cksum
}

program sort 120 sort awk
check_sort() {
	awk 'BEGIN { x = 1; for (i = 0; i < 1000000; i++) {
		x = (x * 16807) % 2147483647; print x, i } }' >numbers
	sort --parallel=2 -S 64M numbers | cksum
	sort -n -r -k2 --parallel=4 numbers | cksum
	sort -u -S 1M numbers | wc -l
}

program git 300 git
check_git() {
	HOME=$PWD
	GIT_CONFIG_NOSYSTEM=1
	GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org
	GIT_COMMITTER_NAME=c GIT_COMMITTER_EMAIL=c@example.org
	GIT_AUTHOR_DATE='1000000000 +0000'
	GIT_COMMITTER_DATE='1000000000 +0000'
	export HOME GIT_CONFIG_NOSYSTEM GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL \
		GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL GIT_AUTHOR_DATE \
		GIT_COMMITTER_DATE
	git -c init.defaultBranch=main init -q repository || return 1
	cd repository || return 1
	i=0
	while [ "$i" -lt 1000 ]; do
		i=$((i + 1))
		echo "change $i of many" >>"file$((i % 17))"
		git add -A && git commit -q -m "change $i" || return 1
	done
	git rev-parse HEAD
	git gc -q --aggressive --prune=now || return 1
	git fsck --strict --no-progress || return 1
	git count-objects -v | grep in-pack
	git log -p | cksum
	git blame file3 | cksum
	cd .. || return 1
	git clone -q --no-local repository copy || return 1
	git -C copy log --oneline | wc -l
	git -C copy diff HEAD~500 --stat | tail -n 1
}

program tar_xz 300 tar xz awk
check_tar_xz() {
	mkdir tree
	awk 'BEGIN { for (f = 0; f < 40; f++) { x = f + 1
		name = "tree/file" f
		for (i = 0; i < 30000; i++) {
			x = (x * 16807) % 2147483647
			print x, i, "text of a line" >name }
		close(name) } }'
	tar --sort=name --mtime=@0 --owner=0 --group=0 -cf tree.tar tree
	cksum <tree.tar
	xz -T2 -3 -k --block-size=4MiB tree.tar
	xz -t tree.tar.xz
	xz -T2 -dc tree.tar.xz | cksum
	rm -r tree
	tar -xJf tree.tar.xz
	cat tree/* | cksum
}
