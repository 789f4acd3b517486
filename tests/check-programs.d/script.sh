# shellcheck shell=sh
# Part of check-programs, which says what stands here: interpreters, with data in all of their kinds.

program python 600 python3
python_modules() {
	for m in "$@"; do
		python3 -m test "$m" >"$m.log" 2>&1
		echo "$m: $?"
		grep 'hz4: ' "$m.log"
	done
	return 0
}

ready_python() {
	python3 -c 'import test.test_json, test.test_dict' 2>/dev/null ||
		echo 'its test modules are not installed (on Debian:' \
			'libpython3.*-testsuite)'
}
check_python() {
	python_modules test_json test_dict test_list test_bytes \
		test_threading test_subprocess
}

program python_malloc 300 python3
# All of Python's objects from malloc, not from its own pools.
check_python_malloc() {
	PYTHONMALLOC=malloc
	export PYTHONMALLOC
	cat >script.py <<'END'
import json, threading, zlib
data = {str(i): [i, str(i) * (i % 50), {"k": i / 3}] for i in range(60000)}
text = json.dumps(data)
print(len(text), zlib.crc32(text.encode()))
print(json.loads(text) == data)
out = [0] * 4
def work(n):
    s = []
    for i in range(100000):
        s.append(bytes(i % 700))
        if i % 3 == 0:
            s[i // 2 % len(s)] = b""
    out[n] = sum(map(len, s))
t = [threading.Thread(target=work, args=(n,)) for n in range(4)]
[x.start() for x in t]
[x.join() for x in t]
print(out)
END
	python3 script.py
}

program perl 120 perl
check_perl() {
	cat >script.pl <<'END'
use strict;
my (%h, @a);
for my $i (1 .. 200000) {
	$h{"key" . ($i * 7919 % 100003)} .= "v$i,";
	push @a, [$i, "x" x ($i % 100)];
}
my $sum = 0;
$sum += length $h{$_} for sort keys %h;
print scalar(keys %h), " $sum\n";
my $text = join " ", map { $_->[1] } @a;
my $n = () = $text =~ /x{3,7}\b/g;
print length($text), " $n\n";
@a = ();
for my $i (1 .. 20) {
	my $pid = fork;
	if (!$pid) { my @b = map { "b$_" } 1 .. 1000; exit(@b % 7); }
	waitpid $pid, 0;
	print $? >> 8, "\n" if $i == 20;
}
END
	perl script.pl
}

program php 300 php
# Its extensions are opened with RTLD_DEEPBIND.  The second run takes all of
# PHP's objects from malloc, not from its own pools.
ready_php() {
	for name in dom mbstring sqlite3; do
		php -r "exit(extension_loaded('$name') ? 0 : 1);" \
			>/dev/null 2>&1 || {
			echo "its extension $name is not loaded (on Debian:" \
				'php-xml php-mbstring php-sqlite3)'
			return
		}
	done
}
check_php() {
	cat >script.php <<'END'
<?php
$loaded = get_loaded_extensions();
sort($loaded);
echo implode(' ', $loaded), "\n";
$n = [];
for ($i = 0; $i < 200000; $i++) {
	$key = 'k' . ($i * 7919 % 50021);
	$n[$key] = ($n[$key] ?? '') . ",$i";
}
echo count($n), ' ', array_sum(array_map('strlen', $n)), "\n";
$doc = new DOMDocument();
$root = $doc->appendChild($doc->createElement('root'));
for ($i = 0; $i < 20000; $i++) {
	$e = $root->appendChild($doc->createElement('item', "text $i"));
	$e->setAttribute('id', (string)($i % 97));
}
$text = $doc->saveXML();
$again = new DOMDocument();
$again->loadXML($text);
$path = new DOMXPath($again);
echo strlen($text), ' ', $path->query('//item[@id="13"]')->length, "\n";
echo @$again->loadXML('<a><b></a>') ? 'well' : 'ill', "\n";
$wide = str_repeat("gr\u{fc}\u{df} ", 50000);
echo mb_strlen(mb_strtoupper($wide)), ' ',
    strlen(mb_convert_encoding($wide, 'UTF-16', 'UTF-8')), "\n";
$db = new SQLite3(':memory:');
$db->exec('create table t(a integer, b text)');
$put = $db->prepare('insert into t values (?, ?)');
for ($i = 0; $i < 20000; $i++) {
	$put->bindValue(1, $i % 100);
	$put->bindValue(2, str_repeat('x', $i % 300));
	$put->execute();
	$put->reset();
}
echo $db->querySingle('select sum(length(b)) from t where a < 50'), "\n";
echo preg_match_all('/,(\d*7)\b/', implode($n)), "\n";
echo strlen(json_encode($n)), ' ', count(json_decode(json_encode($n), true)),
    ' ', strlen(serialize($n)), "\n";
copy('/proc/self/status', 'status');
END
	php script.php && rss_status php status &&
		USE_ZEND_ALLOC=0 php script.php && rss_status malloc status
}

program ruby 300 ruby
check_ruby() {
	cat >script.rb <<'END'
h = Hash.new { |x, k| x[k] = [] }
200_000.times { |i| h["k#{i * 7919 % 10007}"] << "v#{i}" }
puts h.size, h.values.sum { |v| v.sum(&:size) }
text = h.map { |k, v| "#{k}=#{v.join(',')}" }.join("\n")
puts text.size, text.scan(/v\d*7\b/).size
puts Marshal.load(Marshal.dump(h.to_a)) == h.to_a
sums = 4.times.map { |n|
  Thread.new { (1..20_000).sum { |i| ('x' * (i % 500 + n)).size } }
}.map(&:value)
p sums
10.times { |i| Process.wait(fork { exit!(h.size % 7) }) }
puts $?.exitstatus
big = (1..2000).reduce(:*)
puts big.to_s.size
20.times { (1..20_000).map { |i| "s#{i}" }; GC.start }
h = text = nil
GC.start
IO.write('status', IO.read('/proc/self/status'))
END
	ruby script.rb && rss_status ruby status
}

program lua 120
# Debian's name has the version.
lua_command() {
	for name in lua lua5.4 lua5.3; do
		command -v $name && return
	done
}
ready_lua() {
	[ -n "$(lua_command)" ] || echo 'lua is not installed'
}
check_lua() {
	cat >script.lua <<'END'
local t = {}
for i = 1, 200000 do
	local k = "k" .. (i * 7919 % 50021)
	t[k] = (t[k] or "") .. "," .. i
end
local n, len = 0, 0
for _, v in pairs(t) do n = n + 1; len = len + #v end
print(n, len)
local parts = {}
for i = 1, 20000 do parts[i] = string.rep("x", i % 700) end
local text = table.concat(parts, " ")
print(#text, select(2, text:gsub("x+", "y")))
local sum = 0
for i = 1, 20000 do
	local co = coroutine.wrap(function(a)
		local b = coroutine.yield(a + 1)
		return { a, b }
	end)
	co(i)
	sum = sum + #co(i)
end
print(sum)
local a = {}
for i = 1, 100000 do a[i] = { i * 16807 % 65537, tostring(i) } end
table.sort(a, function(x, y)
	return x[1] < y[1] or x[1] == y[1] and x[2] < y[2]
end)
print(a[1][2], a[100000][2], pcall(string.rep, "x", 1 << 62))
a, parts, text = nil, nil, nil
collectgarbage()
local f = io.open("/proc/self/status")
local g = io.open("status", "w")
g:write(f:read("a"))
g:close()
END
	"$(lua_command)" script.lua && rss_status lua status
}

program emacs 300 emacs
check_emacs() {
	HOME=$PWD
	export HOME
	cat >script.el <<'END'
(require 'cl-lib)
(let ((h (make-hash-table :test 'equal)))
  (dotimes (i 100000)
    (push (format "v%d" i) (gethash (format "k%d" (% (* i 7919) 10007)) h)))
  (princ (format "%d %d\n" (hash-table-count h)
    (let ((n 0)) (maphash (lambda (_ v) (setq n (+ n (length v)))) h) n))))
(with-temp-buffer
  (dotimes (i 30000) (insert (format "line %d of many\n" (% (* i 7919) 30011))))
  (princ (format "%d\n" (how-many "7 of" (point-min) (point-max))))
  (sort-lines nil (point-min) (point-max))
  (goto-char (point-min))
  (while (re-search-forward "line \\([0-9]+\\)" nil t)
    (replace-match "\\1 row"))
  (princ (format "%d %s\n" (buffer-size) (md5 (current-buffer))))
  (call-process-region (point-min) (point-max) "sort" t t nil "-n")
  (princ (format "%s\n" (secure-hash 'sha1 (current-buffer)))))
(with-temp-file "part.el"
  (insert ";;; part.el --- part -*- lexical-binding: t -*-\n")
  (dotimes (i 300)
    (insert (format "(defun part-%d (x y) (let ((z (+ x %d)))
      (cl-loop for i from 1 to y collect (list i z (* z i)))))\n" i i)))
  (insert "(provide 'part)\n"))
(byte-compile-file "part.el")
(load (expand-file-name "part.elc") nil t)
(princ (format "%S\n" (part-299 2 3)))
(garbage-collect)
(with-temp-buffer
  (insert-file-contents "/proc/self/status")
  (write-region (point-min) (point-max) "status" nil 'silent))
END
	emacs -Q --batch -l script.el && rss_status emacs status
}

program octave 300 octave-cli
check_octave() {
	HOME=$PWD
	export HOME
	cat >script.m <<'END'
n = 400;
a = reshape(mod((1:n * n) * 7919, 10007), n, n) / 10007;
b = a' * a + n * eye(n);
printf("%.6e %.6e\n", trace(b), norm(b \ ones(n, 1)));
c = cell(1, 20000);
for i = 1:20000
  c{i} = repmat("x", 1, mod(i, 100));
end
t = strjoin(c, ",");
printf("%d %d\n", length(t), numel(strsplit(t, ",")));
s = struct();
for i = 1:2000
  s.(sprintf("f%d", i)) = rand(1, i);
end
printf("%d\n", numel(fieldnames(s)));
p = regexprep(t, "x{3}", "y");
printf("%d %d\n", length(p), sum(p == "y"));
x = zeros(1, 0);
for i = 1:20000
  x(end + 1) = i;
end
printf("%d\n", sum(sort(x, "descend")(1:10)));
clear a b c t s p x
% What was freed goes back after a second, in calls that come then.
pause(1);
for i = 1:2000
  x{i} = zeros(1, 20);
end
clear x
f = fopen("/proc/self/status");
g = fopen("status", "w");
fputs(g, fread(f, Inf, "char=>char")');
fclose(g);
END
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
	export OMP_NUM_THREADS OPENBLAS_NUM_THREADS
	octave-cli --no-gui --norc --quiet script.m && rss_status octave status
}
