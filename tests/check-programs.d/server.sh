# shellcheck shell=sh
# Part of check-programs, which says what stands here: servers.  Each listens on a socket in its directory
# or on the loopback interface, gets a known number of requests, and is
# stopped by its number.

program redis 120 redis-server redis-benchmark redis-cli
ready_redis() {
	! grep -q -a -w mallocx "$(command -v redis-server)" ||
		echo "it calls jemalloc's mallocx, and libc's free"
}
check_redis() {
	port=$((20000 + $$ % 20000))
	for try in 1 2 3 4 5 6 7 8 9 10; do
		port=$((port + 7 * try))
		redis-server --port "$port" --bind 127.0.0.1 --save '' \
			--dir "$PWD" --daemonize no --appendonly no \
			--io-threads 2 >server.log 2>&1 &
		server=$!
		for wait in 1 2 3 4 5 6 7 8 9 10; do
			sleep 0.2
			kill -0 "$server" 2>/dev/null || break
			redis-cli -p "$port" info server 2>/dev/null |
				grep -q "process_id:$server" && break 2
		done
		: "$wait"
		kill "$server" 2>/dev/null
		wait "$server"
	done
	cli="redis-cli -h 127.0.0.1 -p $port"
	redis-benchmark -h 127.0.0.1 -p "$port" -q -n 20000 -r 10000 -d 200 \
		-t set,get,incr,lpush,lrange_100,sadd,hset,zadd \
		>benchmark.log 2>&1
	echo "benchmark $?"
	tr '\r' '\n' <benchmark.log | grep -c 'requests per second'
	$cli eval 'for i = 1, 20000 do redis.call("set", "k" .. i,
		string.rep("v", i % 3000)) end return 1' 0
	$cli strlen k19999
	$cli del mylist
	$cli config set activedefrag no >/dev/null
	$cli debug reload >/dev/null 2>&1
	$cli strlen k2999
	$cli flushall
	$cli dbsize
	$cli shutdown nosave
	wait "$server"
	echo "server $?"
	grep -E 'crashed|hz4: ' server.log
	return 0
}

# Compressed files, and files that are sent as they are.
program nginx 300 nginx ab
check_nginx() {
	mkdir files temp
	awk 'BEGIN { for (i = 0; i < 40000; i++) print i, i * 7919 % 10007 }' \
		>files/long.txt
	head -c 900 files/long.txt >files/short.txt
	user=
	[ "$(id -u)" != 0 ] || user='user root;'
	port=$((40000 + $$ % 20000))
	for try in 1 2 3 4 5 6 7 8 9 10; do
		port=$((port + 11 * try))
		cat >nginx.conf <<END
$user
worker_processes 2;
pid $PWD/nginx.pid;
error_log $PWD/server.log;
daemon off;
events { worker_connections 200; }
http {
	access_log off;
	client_body_temp_path temp;
	proxy_temp_path temp;
	fastcgi_temp_path temp;
	uwsgi_temp_path temp;
	scgi_temp_path temp;
	gzip on;
	gzip_types text/plain;
	keepalive_requests 50;
	server {
		listen 127.0.0.1:$port;
		root $PWD/files;
		default_type text/plain;
		location /again/ { proxy_pass http://127.0.0.1:$port/; }
	}
}
END
		nginx -p "$PWD" -c nginx.conf 2>>server.log &
		server=$!
		for wait in 1 2 3 4 5 6 7 8 9 10; do
			sleep 0.3
			kill -0 "$server" 2>/dev/null || break
			[ -s nginx.pid ] && break 2
		done
		: "$wait"
		kill "$server" 2>/dev/null
		wait "$server"
	done
	for request in 10000:-k:short.txt 3000::short.txt 1500:-k:long.txt \
		3000:-k:again/short.txt 500:-k:none; do
		flag=${request#*:}
		# shellcheck disable=SC2086 # none or one
		ab -q -n "${request%%:*}" -c 16 ${flag%:*} \
			-H 'Accept-Encoding: gzip' \
			"http://127.0.0.1:$port/${request##*:}" >ab.out 2>ab.err
		echo "${request##*:}: $?"
		grep -E '^(Complete|Failed|Non-2xx|HTML|Document L)' ab.out
	done
	rss nginx "$server"
	kill -QUIT "$server"
	wait "$server"
	echo "server $?"
	grep -E 'signal [0-9]+ \(core|exited on signal|hz4: ' server.log
	return 0
}

# initdb and postgres refuse to run as root: with another number in a user
# namespace they still can read and write here.
as_user=
[ "$(id -u)" != 0 ] ||
	as_user='unshare --user --map-user=1000 --map-group=1000'

postgres_bin() {
	for name in /usr/lib/postgresql/*/bin; do
		[ ! -x "$name/initdb" ] || [ ! -x "$name/pgbench" ] ||
			bin=$name
	done
	[ -n "${bin-}" ] || bin=$(dirname "$(command -v initdb)")
}

program postgres 300
ready_postgres() {
	postgres_bin
	if [ ! -x "$bin/initdb" ] || [ ! -x "$bin/pgbench" ]; then
		echo 'postgres is not installed'
	elif ! $as_user true 2>/dev/null; then
		echo 'root without user namespaces'
	fi
}
check_postgres() {
	postgres_bin
	PGHOST=$PWD PGDATABASE=postgres PGUSER=owner
	export PGHOST PGDATABASE PGUSER
	$as_user "$bin/initdb" -D data -U owner -A trust -E UTF8 --no-sync \
		--locale=C >initdb.log 2>&1 || {
		cat initdb.log
		return 1
	}
	$as_user "$bin/postgres" -D data -k "$PWD" -c listen_addresses= \
		-c fsync=off -c shared_buffers=16MB -c autovacuum=off \
		-c max_parallel_workers_per_gather=2 >server.log 2>&1 &
	server=$!
	for wait in 1 2 3 4 5 6 7 8 9 10; do
		sleep "$wait"
		"$bin/pg_isready" -q && break
		kill -0 "$server" 2>/dev/null || break
	done
	"$bin/pgbench" -i -q -s 3 >bench.log 2>&1
	echo "filled $?"
	"$bin/pgbench" -n -c 8 -j 2 -t 400 -M prepared >bench.log 2>&1
	echo "bench $?"
	grep -E '^number of (trans|failed)' bench.log
	cat >script.sql <<'END'
\pset format unaligned
\pset tuples_only on
select (select sum(abalance) from pgbench_accounts) =
    (select sum(tbalance) from pgbench_tellers),
    (select sum(bbalance) from pgbench_branches) =
    (select sum(delta) from pgbench_history), count(*) from pgbench_history;
set work_mem = '32MB';
create temp table t as select i, i * 7919 % 10007 as k,
    repeat(md5(i::text), i % 20) as v from generate_series(1, 100000) i;
select md5(string_agg(k || v, ',' order by k, i)) from t where i < 20000;
select count(*), sum(n) from (select k, count(*) n, max(v) from t group by k) x;
select count(*) from t a join t b on a.i = b.k;
select sum(jsonb_array_length(jsonb_agg)) from (select k % 100,
    jsonb_agg(jsonb_build_object('k', k, 'v', v)) from t group by 1) x;
select count(*) from t where v ~ '(ab|cd)+[0-9]{3}$';
do $$ declare a text[] := '{}'; begin
for i in 1..20000 loop a := a || i::text; end loop;
raise notice '%', array_length(a, 1); end $$;
select pg_sleep(1);
select count(*), sum(length(v)) from t where i % 10 = 0;
select pg_backend_pid() as backend \gset
\setenv BACKEND :backend
\! cat /proc/$BACKEND/status >status
END
	"$bin/psql" -X -q -f script.sql 2>&1
	rss_status backend status
	rss server "$server"
	kill -INT "$server"
	wait "$server"
	echo "server $?"
	grep -E 'terminated by signal|PANIC|hz4: ' server.log
	return 0
}

program mariadb 400 mariadbd mariadb-install-db mariadb mariadb-admin sysbench
check_mariadb() {
	socket=$PWD/socket
	mariadb-install-db --no-defaults --datadir="$PWD/data" \
		--auth-root-authentication-method=normal --skip-test-db \
		--user="$(id -un)" >install.log 2>&1 || {
		cat install.log
		return 1
	}
	mariadbd --no-defaults --datadir="$PWD/data" --user="$(id -un)" \
		--skip-networking --socket="$socket" --pid-file="$PWD/pid" \
		--innodb-buffer-pool-size=32M --innodb-log-file-size=16M \
		--innodb-flush-log-at-trx-commit=0 >server.log 2>&1 &
	server=$!
	ask="mariadb --no-defaults -u root -S $socket -N -B"
	for wait in 1 2 3 4 5 6 7 8 9 10; do
		sleep "$wait"
		mariadb-admin --no-defaults -u root -S "$socket" --silent ping \
			>/dev/null 2>&1 && break
		kill -0 "$server" 2>/dev/null || break
	done
	$ask -e 'create database sbtest'
	for step in prepare run; do
		sysbench oltp_read_write --db-driver=mysql --threads=16 \
			--tables=4 --table-size=5000 --events=2000 --time=0 \
			--mysql-user=root --mysql-socket="$socket" \
			"$step" >"sysbench-$step.log" 2>&1
		echo "$step: $?"
	done
	grep -E 'total number of events' sysbench-run.log
	$ask sbtest -e "select count(*) > 4000 from sbtest1;
		check table sbtest1, sbtest2, sbtest3, sbtest4;
		with recursive n(i) as (select 1 union all select i + 1 from n
			where i < 1000) select count(*), md5(group_concat(
			repeat(i, i % 9) order by i)) from n;
		select json_length(json_arrayagg(c)) from (select c from sbtest2
			limit 1000) x"
	rss mariadb "$server"
	mariadb-admin --no-defaults -u root -S "$socket" shutdown
	wait "$server"
	echo "server $?"
	grep -E 'got signal|hz4: ' server.log
	return 0
}
