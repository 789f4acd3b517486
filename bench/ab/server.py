"""A server under an allocator: started in a folder of its own, asked, left
to rest with a request now and then, and ended.  What is asked of it is in a
class for each."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time

from ab import runner, table

REST = 1.5  # seconds, with ordinary requests
START = 30  # seconds, at most, until it answers
# glibc's malloc for a server that is linked with another one.
LIBC = "libc.so.6"


class Server:
    """What differs.  A link is whatever `connect` gives; all may raise
    OSError or ValueError, which is the note of the run's row."""

    programs = ()  # that have to be installed
    # A function of another allocator: if the first of them calls it, and free
    # for what it gives, it runs on that allocator alone.
    foreign = b""
    amount = 0  # of the work

    def prepare(self, amount):
        """What is made once, before the first run."""

    def command(self, folder):
        """Program and arguments; it stays in the foreground."""
        raise NotImplementedError

    def connect(self, folder, timeout):
        """A link to the server; OSError while it does not answer yet."""
        raise NotImplementedError

    def warm_up(self, link):
        """Before the clock starts."""

    def load(self, link, amount):
        """The work that is timed; the number of requests."""
        raise NotImplementedError

    def shrink(self, link, amount):
        """What is given back again afterwards."""

    def ask(self, link):
        """One ordinary request, while the server rests."""
        raise NotImplementedError

    def check(self, link, amount):
        """That the server has what it has to have."""


def missing(server):
    """A program that is not installed, or None."""
    gone = next((p for p in server.programs if not find(p)), None)
    if gone or not server.foreign:
        return gone
    first = server.programs[0]
    if calls(find(first), server.foreign):
        return f"{first} without {server.foreign.decode()}"
    return None


def calls(path, function):
    """Whether a name is among those that the program asks the loader for."""
    with open(path, "rb") as text:
        return b"\0" + function + b"\0" in text.read()


def find(program):
    """Its path: servers may be where only root looks for programs."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(program, path=f"{path}:/usr/sbin:/sbin")


def user():
    """The name for a server that does not run as root unless told to."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise OSError(f"user {os.geteuid()} has no name")


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


def client(argv, timeout):
    """Run a client program, which has to end well; what it printed."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, timeout=timeout,
                              env=runner.environment(None), check=False)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{argv[0]} does not end")
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip().split("\n")
        raise OSError(f"{os.path.basename(argv[0])}: {said[-1]}")
    return done.stdout


def connected(server, folder, child, timeout):
    limit = time.monotonic() + min(timeout, START)
    while True:
        try:
            return server.connect(folder, timeout)
        except OSError:
            if child.poll() is not None or time.monotonic() > limit:
                raise
            time.sleep(0.02)


def figures_of(server, link, process, amount):
    server.warm_up(link)
    cpu, start = cpu_seconds(process), time.monotonic()
    requests = server.load(link, amount)
    took = time.monotonic() - start
    found = {"requests_per_sec": requests / took,
             "cpu": cpu_seconds(process) - cpu,
             "filled_rss": status(process, "VmRSS")}
    server.shrink(link, amount)
    end = time.monotonic() + REST
    while time.monotonic() < end:
        server.ask(link)
        time.sleep(0.01)
    server.check(link, amount)
    found["after_rss"] = status(process, "VmRSS")
    found["peak_rss"] = status(process, "VmHWM")
    return found


def ending(child, problem):
    """Status and note of a run in which `problem` came up."""
    if isinstance(problem, TimeoutError):
        return "hang", table.clean(problem)
    try:
        code = child.wait(1)
    except subprocess.TimeoutExpired:
        code = 0
    if code < 0:
        return "crash", signal.Signals(-code).name
    return "error", table.clean(problem)


def run(server, amount, lib, timeout, extra_env=None):
    """One run of the server as a row."""
    row = {"status": "ok", "note": ""}
    try:
        server.prepare(amount)
    except (OSError, ValueError) as problem:
        return {"status": "error", "note": table.clean(problem)}
    with tempfile.TemporaryDirectory(prefix="hz4-bench-") as folder, \
            tempfile.TemporaryFile() as said:
        argv = server.command(folder)
        child = subprocess.Popen(
            [find(argv[0]) or argv[0]] + argv[1:], cwd=folder,
            env=environment(lib, extra_env), stdin=subprocess.DEVNULL,
            stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            link = connected(server, folder, child, timeout)
            found = figures_of(server, link, child.pid, amount)
            row["figures"] = " ".join(
                f"{k}={v:.2f}" if isinstance(v, float) else f"{k}={v}"
                for k, v in found.items())
        except (OSError, ValueError) as problem:
            row["status"], row["note"] = ending(child, problem)
        finally:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()
    return row
