"""Servers under an allocator: redis, asked over a socket of the loopback
interface."""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from ab import runner, table

KNOWN = {"redis": "redis-server"}
KEYS = 150000
WRITES = 3		# of each key, each time of another size
LEAST, MOST = 10, 2000	# bytes of a value
BATCH = 500		# commands on the way at once, twice
REST = 1.5		# seconds, with ordinary requests
# glibc's malloc for a server that is linked with another one.
LIBC = "libc.so.6"


def missing(name):
    """The program, where it is not installed."""
    program = KNOWN[name]
    return None if shutil.which(program) else program


def environment(lib, extra_env=None):
    """Debian's redis-server is linked with jemalloc: glibc's malloc has to
    be preloaded like any other."""
    return runner.environment(lib or LIBC, extra_env)


def status(process, field):
    """KiB of a line of /proc/PID/status."""
    with open(f"/proc/{process}/status", encoding="ascii") as text:
        for line in text:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise OSError(f"no {field} of process {process}")


def cpu_seconds(process):
    with open(f"/proc/{process}/stat", encoding="ascii") as text:
        fields = text.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def word(text):
    """A word of a command in redis' protocol."""
    return b"$%d\r\n%s\r\n" % (len(text), text)


class Connection:
    def __init__(self, path, timeout):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.waiting = 0

    def send(self, commands):
        """A batch, while the one before it is being answered: `waiting`
        is below 0 where answers to this one came with those."""
        self.socket.sendall(b"".join(commands))
        self.drain()
        self.waiting += len(commands)

    def drain(self):
        """Read one line for each command on the way."""
        last = b"\n"
        while self.waiting > 0:
            last = self.socket.recv(1 << 16)
            if not last:
                raise OSError("the server closed the connection")
            if last.startswith(b"-"):
                raise OSError(last.decode("utf-8", "replace"))
            self.waiting -= last.count(b"\n")
        return last


def _connect(path, child, timeout):
    limit = time.monotonic() + timeout
    while True:
        try:
            return Connection(path, timeout)
        except OSError:
            if child.poll() is not None or time.monotonic() > limit:
                raise
            time.sleep(0.02)


def _work(link, process, keys):
    """What is asked of the server; the figures."""
    rng = random.Random(1)
    order = [word(b"key:%d" % k) for k in range(keys)]
    values = {n: word(b"v" * n) for n in range(LEAST, MOST + 1)}
    write, erase = b"*3\r\n" + word(b"SET"), b"*2\r\n" + word(b"DEL")
    cpu, start = cpu_seconds(process), time.monotonic()
    for _ in range(WRITES):
        rng.shuffle(order)
        for at in range(0, keys, BATCH):
            batch = order[at:at + BATCH]
            sizes = rng.choices(range(LEAST, MOST + 1), k=len(batch))
            link.send([write + k + values[n] for k, n in zip(batch, sizes)])
    link.drain()
    took = time.monotonic() - start
    figures = {"sets_per_sec": WRITES * keys / took,
               "cpu": cpu_seconds(process) - cpu,
               "filled_rss": status(process, "VmRSS")}
    rng.shuffle(order)
    gone = order[:keys * 9 // 10]
    for at in range(0, len(gone), BATCH):
        link.send([erase + k for k in gone[at:at + BATCH]])
    link.drain()
    end = time.monotonic() + REST
    while time.monotonic() < end:
        link.send([write + word(b"one") + values[LEAST]])
        link.drain()
        time.sleep(0.01)
    link.send([b"*1\r\n" + word(b"DBSIZE")])
    if link.drain() != b":%d\r\n" % (keys - len(gone) + 1):
        raise OSError("not all keys that were deleted are gone")
    figures["after_rss"] = status(process, "VmRSS")
    figures["peak_rss"] = status(process, "VmHWM")
    return figures


def run(name, keys, lib, timeout, extra_env=None):
    """One run of the server as a row."""
    row = {"status": "ok", "note": ""}
    with tempfile.TemporaryDirectory(prefix="hz4-bench-") as folder, \
            tempfile.TemporaryFile() as said:
        path = os.path.join(folder, "socket")
        child = subprocess.Popen(
            [KNOWN[name], "--port", "0", "--unixsocket", path, "--save", "",
             "--appendonly", "no", "--dir", folder, "--daemonize", "no"],
            env=environment(lib, extra_env), stdin=subprocess.DEVNULL, stdout=said,
            stderr=subprocess.STDOUT, start_new_session=True)
        try:
            figures = _work(_connect(path, child, timeout), child.pid, keys)
            row["figures"] = " ".join(
                f"{k}={v:.2f}" if isinstance(v, float) else f"{k}={v}"
                for k, v in figures.items())
        except (OSError, ValueError) as problem:
            ended = child.poll()
            row.update(status="error", note=table.clean(problem))
            if isinstance(problem, TimeoutError):
                row.update(status="hang")
            elif ended is not None and ended < 0:
                row.update(status="crash",
                           note=signal.Signals(-ended).name)
        finally:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()
    return row
