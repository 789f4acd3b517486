# shellcheck shell=sh
# Part of check-programs, which says what stands here: programs that keep or change data, without a server.

program sqlite 120 sqlite3
check_sqlite() {
	cat >script.sql <<'END'
create table t(id integer primary key, k integer, v text);
with recursive n(i) as (select 1 union all select i + 1 from n
	where i < 300000)
	insert into t select i, i * 7919 % 10007, hex(i * i) || '-' || i from n;
create index tk on t(k);
select count(*), sum(length(v)), min(v), max(v) from t;
select k, count(*), group_concat(id) from t where k < 5 group by k;
select count(*) from t a join t b on a.k = b.id where a.id < 50000;
delete from t where id % 3 = 0;
update t set v = v || v where k % 2 = 0;
select count(*), sum(length(v)) from t;
vacuum;
pragma integrity_check;
END
	sqlite3 :memory: <script.sql
	sqlite3 file.db <script.sql
}

# Samba's, whose modules are opened with RTLD_DEEPBIND.
program ldb 300 ldbadd ldbsearch ldbmodify ldbdel awk
check_ldb() {
	awk 'BEGIN { print "dn: dc=example\nobjectClass: top\ndc: example\n"
		for (i = 0; i < 4000; i++)
			printf "dn: cn=u%d,dc=example\nobjectClass: person\n" \
			    "cn: u%d\nsn: s%d\ndescription: %0*d\n\n",
			    i, i, i * 7919 % 101, i % 300 + 1, i }' >data.ldif
	awk 'BEGIN { for (i = 0; i < 4000; i += 7)
		printf "dn: cn=u%d,dc=example\nchangetype: modify\n" \
		    "replace: sn\nsn: changed\n\n", i }' >change.ldif
	peak ldbadd ldbadd -H tdb://data.ldb data.ldif || return 1
	ldbmodify -H tdb://data.ldb change.ldif || return 1
	peak ldbsearch ldbsearch -H tdb://data.ldb '(sn=changed)' cn sn >found ||
		return 1
	tail -n 4 found
	sort found | cksum
	ldbsearch -H tdb://data.ldb '(&(sn=s1*)(!(cn=u9*)))' description |
		sort | cksum
	ldbdel -H tdb://data.ldb cn=u7,dc=example
	ldbsearch -H tdb://data.ldb '(cn=u7)' cn
	ldbsearch -H tdb://none.ldb '(cn=u7)' 2>&1
	echo "status $?"
}

# Debian's convert and identify, and none that stand before them.
program imagemagick 300 convert identify
ready_imagemagick() {
	PATH=/usr/bin:$PATH
	convert -version 2>/dev/null | grep -q ImageMagick ||
		echo 'convert is not of ImageMagick'
}
check_imagemagick() {
	PATH=/usr/bin:$PATH
	MAGICK_THREAD_LIMIT=2
	export MAGICK_THREAD_LIMIT
	convert -size 1200x900 gradient:red-blue -swirl 120 \
		\( -size 1200x900 pattern:checkerboard \) \
		-compose blend -define compose:args=60 -composite a.png &&
		peak convert convert a.png -resize 140% -rotate 11 \
			-gaussian-blur 0x2 -colors 200 b.gif &&
		convert a.png b.gif -crop 300x300 +repage -append c.miff &&
		convert a.png -define webp:lossless=true -sharpen 0x1 \
			-equalize -sepia-tone 70% d.ppm || return 1
	for f in a.png b.gif c.miff d.ppm; do
		identify -format '%m %wx%h %k %#\n' "$f"
	done | cksum
	i=0
	while [ $i -lt 20 ]; do
		i=$((i + 1))
		convert a.png -crop "$((i * 50))x400+$i+$i" +repage -flip \
			-modulate "$((i * 5))" ppm:- | cksum
	done
	convert none.png x.png 2>&1
	echo "status $?"
}
