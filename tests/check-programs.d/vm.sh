# shellcheck shell=sh
# Part of check-programs, which says what stands here: virtual machines that compile.

program node 180 node
check_node() {
	cat >script.js <<'END'
let kept = [];
let sum = 0;
for (let i = 0; i < 1024; i++)
	kept.push(Buffer.alloc(1 << 20, i & 255));
for (const b of kept)
	sum += b[12345];
console.log(kept.length, sum);
kept = [];
for (let i = 0; i < 400000; i++)
	kept.push({ i, s: 'x'.repeat(i % 100) + i, a: [i, i + 1] });
console.log(kept.reduce((n, o) => n + o.s.length + o.a[1], 0));
kept = null;
if (global.gc)
	global.gc();
const zlib = require('zlib');
const packed = zlib.gzipSync(Buffer.alloc(5000000, 'hz'));
console.log(zlib.gunzipSync(packed).length);
const { Worker, isMainThread } = require('worker_threads');
new Worker('let a = []; for (let i = 0; i < 1e5; i++) a.push(Buffer.from(' +
    '"b" + i)); require("worker_threads").parentPort.postMessage(a.length)',
    { eval: true }).on('message', (m) => console.log('worker', m));
END
	node --expose-gc script.js
}

program java 120 java
check_java() {
	java -version 2>&1
}

program javac 180 javac java
check_javac() {
	cat >Program.java <<'END'
import java.util.*;
import java.util.stream.*;

public class Program {
	record Pair(int a, String b) {}

	public static void main(String[] args) throws Exception {
		List<Pair> list = new ArrayList<>();
		for (int i = 0; i < 300000; i++)
			list.add(new Pair(i, "s" + i % 1000));
		System.out.println(list.stream().collect(Collectors.groupingBy(
			Pair::b, Collectors.counting())).size());
		Thread[] t = new Thread[4];
		long[] sum = new long[4];
		for (int n = 0; n < 4; n++) {
			int me = n;
			t[n] = new Thread(() -> {
				for (int i = 0; i < 2000; i++)
					sum[me] += java.nio.ByteBuffer
						.allocateDirect(10000 + i)
						.capacity();
			});
			t[n].start();
		}
		for (Thread x : t)
			x.join();
		System.out.println(Arrays.toString(sum));
	}
}
END
	javac Program.java || return 1
	java Program
}

program node_workers 300 node
check_node_workers() {
	cat >script.js <<'END'
const { Worker } = require('worker_threads');
const fs = require('fs'), zlib = require('zlib');
const work = `
const { parentPort, workerData: n } = require('worker_threads');
const zlib = require('zlib'), crypto = require('crypto');
let kept = [], sum = 0;
for (let i = 0; i < 30000; i++) {
	kept.push(Buffer.allocUnsafeSlow(1 + (i * 7919 + n) % 3000).fill(n));
	if (kept.length > 2000)
		sum += kept[i % 2000][0], kept[i % 2000] = kept.pop();
}
const hash = crypto.createHash('sha256');
for (let i = 0; i < 10; i++)
	hash.update(zlib.gunzipSync(zlib.deflateSync(
	    Buffer.alloc(1 << 20, 'n' + i), { level: 1 }).length ?
	    zlib.gzipSync(Buffer.alloc(1 << 20, 'n' + i)) : ''));
const shared = new Int32Array(new SharedArrayBuffer(1 << 16));
for (let i = 0; i < 100000; i++)
	Atomics.add(shared, i & 16383, 1);
parentPort.postMessage([n, sum, hash.digest('hex'), shared[5]]);
`;
function round(r) {
	if (r == 4) {
		global.gc();
		setTimeout(() => {
			zlib.gzipSync(Buffer.alloc(5000000, 'hz'));
			fs.writeFileSync('status',
				fs.readFileSync('/proc/self/status'));
		}, 1000);
		return;
	}
	const said = [];
	for (let n = 0; n < 6; n++)
		new Worker(work, { eval: true, workerData: n })
			.on('message', (m) => said.push(m.join(' ')))
			.on('exit', (code) => {
				said.push(n + ' exit ' + code);
				if (said.length < 12)
					return;
				console.log(said.sort().join('\n'));
				round(r + 1);
			});
}
round(0);
END
	node --expose-gc script.js && rss_status node status
}

# What it says of its native memory are figures: that it says them is all.
program java_native 300 javac java
check_java_native() {
	cat >Program.java <<'END'
import java.nio.*;
import java.nio.file.*;
import java.util.zip.*;

public class Program {
	static int pack(int n) throws Exception {
		byte[] in = new byte[200000], out = new byte[300000];
		for (int i = 0; i < in.length; i++)
			in[i] = (byte) (i * n % 251);
		int sum = 0;
		for (int i = 0; i < 40; i++) {
			Deflater d = new Deflater(1 + (i + n) % 9);
			d.setInput(in);
			d.finish();
			int len = d.deflate(out);
			d.end();
			Inflater f = new Inflater();
			f.setInput(out, 0, len);
			sum += f.inflate(in);
			f.end();
			sum += ByteBuffer.allocateDirect(50000 + n).capacity();
		}
		return sum;
	}

	public static void main(String[] args) throws Exception {
		for (int round = 0; round < 4; round++) {
			Thread[] t = new Thread[8];
			int[] sums = new int[8];
			for (int n = 0; n < 8; n++) {
				int me = n;
				t[n] = new Thread(() -> {
					try {
						sums[me] = pack(me + 1);
					} catch (Exception e) {
						throw new Error(e);
					}
				});
				t[n].start();
			}
			for (Thread x : t)
				x.join();
			System.out.println(java.util.Arrays.toString(sums));
			System.gc();
		}
		Files.write(Path.of("status"),
			Files.readAllBytes(Path.of("/proc/self/status")));
	}
}
END
	javac Program.java || return 1
	java -XX:NativeMemoryTracking=detail -XX:+UnlockDiagnosticVMOptions \
		-XX:+PrintNMTStatistics -XX:+UseSerialGC -Xms48m -Xmx48m \
		-XX:+AlwaysPreTouch Program >said || return 1
	sed '/^Native Memory Tracking/,$d' said
	grep -c -E '^(Native Memory Tracking|- +(Java Heap|Thread|GC|Symbol) )' \
		said
	rss_status java status
}
