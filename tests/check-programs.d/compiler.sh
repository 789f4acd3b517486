# shellcheck shell=sh
# Part of check-programs, which says what stands here: compilers and what they make.

program gcc 300 gcc
# Several files of C, one of them long.
c_files() {
	for f in 1 2 3 4 5 6; do
		awk -v f="$f" 'BEGIN {
			n = f == 1 ? 3000 : 300
			print "#include <stdio.h>\n#include <string.h>"
			for (i = 0; i < n; i++)
				printf "int f%d_%d(int x)\n{\n\tint s = x;" \
				    "\n\tfor (int i = 0; i < %d; i++)\n" \
				    "\t\ts = s * %d + (i ^ x);\n" \
				    "\treturn s;\n}\n", f, i, i % 9, i + 3
			printf "int file%d(int x)\n{\n\tint s = 0;\n", f
			for (i = 0; i < n; i++)
				printf "\ts += f%d_%d(x + %d);\n", f, i, i
			print "\treturn s;\n}"
		}' >"file$f.c"
	done
	awk 'BEGIN { print "#include <stdio.h>"
		for (f = 1; f < 7; f++) printf "int file%d(int);\n", f
		print "int main(void)\n{"
		for (f = 1; f < 7; f++)
			printf "\tprintf(\"%%d\\n\", file%d(%d));\n", f, f
		print "\treturn 0;\n}" }' >main.c
}

check_gcc() {
	c_files
	for f in *.c; do
		gcc -O2 -g -fwrapv -ffile-prefix-map="$PWD=." -c "$f" ||
			return 1
	done
	gcc -o program ./*.o || return 1
	./program
	cksum file1.o main.o
	gcc -O2 -flto=2 -fwrapv -o program2 ./*.c || return 1
	./program2 | cksum
	gcc -c does-not-exist.c 2>&1
	echo "status $?"
}

program cxx 300 g++
check_cxx() {
	cat >program.cc <<'END'
#include <algorithm>
#include <future>
#include <iostream>
#include <map>
#include <regex>
#include <string>
#include <unordered_map>
#include <vector>
static std::map<std::string, std::vector<int>> make(int n)
{
	std::map<std::string, std::vector<int>> m;
	for (int i = 0; i < n; i++)
		m["k" + std::to_string(i * 7919 % 1009)].push_back(i);
	return m;
}
int main()
{
	std::vector<std::future<std::map<std::string, std::vector<int>>>> f;
	for (int i = 1; i <= 4; i++)
		f.push_back(std::async(std::launch::async, make, i * 50000));
	std::size_t n = 0;
	for (auto &x : f)
		for (auto &[k, v] : x.get())
			n += k.size() * v.size();
	std::unordered_map<std::size_t, std::string> u;
	for (std::size_t i = 0; i < 100000; i++)
		u[i * i] = std::to_string(i);
	std::string text(20000, 'a');
	std::smatch match;
	std::cout << n << ' ' << u.size() << ' '
	    << std::regex_search(u[81], match, std::regex("[0-9]+")) << '\n';
}
END
	g++ -std=c++17 -O2 -pthread -o program program.cc || return 1
	./program
	g++ -std=c++17 -O0 -g -fsyntax-only program.cc
}

program project 600 make cc
# hz4 itself, out of its tree.
ready_project() {
	if [ -z "$source" ]; then
		echo 'no --source'
	elif [ ! -x "$source/configure" ]; then
		echo "$source has no configure"
	elif [ -f "$source/config.status" ]; then
		echo "$source is configured"
	fi
}
check_project() {
	"$source/configure" --quiet >log 2>&1 || {
		tail -n 20 log
		return 1
	}
	make -j2 >log 2>&1 || {
		tail -n 20 log
		return 1
	}
	grep -c 'warning:' log
	for f in .libs/*.o src/.libs/*.o src/*.o; do
		if [ -f "$f" ]; then
			objdump -d "$f" | sed 1,2d | cksum
		fi
	done
}

program new_handler 120 g++
ready_new_handler() {
	[ -f "${here:?}/programs/new_handler.cc" ] || echo 'source is missing'
}
check_new_handler() {
	g++ -std=c++17 -O2 -o program "$here/programs/new_handler.cc" ||
		return 1
	./program
}

program rustc 600 rustc
# Debian's compiler has the system's malloc, others bring one of their own.
check_rustc() {
	PATH=/usr/bin:$PATH
	cat >program.rs <<'END'
use std::collections::{BTreeMap, HashMap};
use std::thread;

fn work(seed: u64) -> u64 {
    let mut map: HashMap<u64, Vec<String>> = HashMap::new();
    let mut x = seed;
    for i in 0..60_000u64 {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        map.entry(x >> 52).or_default().push(format!("{}-{}", i, x % 1000));
    }
    let tree: BTreeMap<u64, usize> = map.iter()
        .map(|(k, v)| (*k, v.iter().map(String::len).sum())).collect();
    tree.values().map(|&n| n as u64).sum::<u64>() + tree.len() as u64
}

fn main() {
    for round in 0..5 {
        let all: Vec<_> = (1..=4u64)
            .map(|n| thread::spawn(move || work(n + round))).collect();
        let sums: Vec<u64> = all.into_iter().map(|t| t.join().unwrap()).collect();
        println!("{:?}", sums);
    }
    let kept: Vec<Box<[u8]>> = (0..40_000)
        .map(|i| vec![i as u8; i % 700].into_boxed_slice()).collect();
    println!("{}", kept.iter().map(|b| b.len()).sum::<usize>());
    std::fs::copy("/proc/self/status", "status").unwrap();
}
END
	peak rustc rustc --edition 2021 -C opt-level=2 -C codegen-units=2 \
		program.rs || return 1
	cksum <program
	./program && rss_status program status
	rustc --edition 2021 does-not-exist.rs 2>&1
	echo "status $?"
}

program go 600 go
# Memory of C's in the hands of goroutines, which change their threads.
ready_go() {
	command -v cc >/dev/null || echo 'cc is not installed'
}
check_go() {
	mkdir home || return
	cat >program.go <<'END'
package main

/*
#include <stdlib.h>
#include <string.h>

static char *fill(size_t n, int c)
{
	char *p = malloc(n);
	if (p)
		memset(p, c, n);
	return p;
}
*/
import "C"

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"unsafe"
)

func main() {
	var all sync.WaitGroup
	to := make(chan *C.char, 100)
	sums := make([]int, 8)
	for n := 0; n < 8; n++ {
		all.Add(1)
		go func(n int) {
			defer all.Done()
			for i := 0; i < 20000; i++ {
				to <- C.fill(C.size_t(1+(i*7919+n)%3000), C.int(n))
			}
		}(n)
	}
	var done sync.WaitGroup
	for n := 0; n < 4; n++ {
		done.Add(1)
		go func(n int) {
			defer done.Done()
			for p := range to {
				sums[n] += int(*p)
				C.free(unsafe.Pointer(p))
			}
		}(n)
	}
	all.Wait()
	close(to)
	done.Wait()
	total := 0
	for _, s := range sums {
		total += s
	}
	fmt.Println(total)
	var kept []*C.char
	for i := 0; i < 20000; i++ {
		kept = append(kept, C.CString(strings.Repeat("x", i%2000)))
	}
	length := 0
	for _, p := range kept {
		length += int(C.strlen(p))
	}
	fmt.Println(length)
	status, _ := os.ReadFile("/proc/self/status")
	os.WriteFile("status", status, 0666)
}
END
	HOME=$PWD/home GOCACHE=$PWD/home/cache GOPATH=$PWD/home/go
	GO111MODULE=off GOFLAGS='' CGO_ENABLED=1 GOTOOLCHAIN=local GOTELEMETRY=off
	export HOME GOCACHE GOPATH GO111MODULE GOFLAGS CGO_ENABLED \
		GOTOOLCHAIN GOTELEMETRY
	go build -o program program.go || return 1
	./program && rss_status program status
}
