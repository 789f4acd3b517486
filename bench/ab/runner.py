"""One run of a program under one allocator, whatever becomes of it."""

import glob
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from ab import table

LANE_PROGRAM = "bench_random_mixed_mt_remote_malloc"
MEASURE_PROGRAM = "bench_measure"
SHAPES_PROGRAM = "bench_shapes"
PAGE = resource.getpagesize()
GLIBC = "glibc"

# Debian's names, in every directory where it puts libraries.
KNOWN = (
    ("jemalloc", "libjemalloc.so.2"),
    ("tcmalloc", "libtcmalloc_minimal.so.4"),
    ("mimalloc2", "libmimalloc.so.2"),
    ("mimalloc3", "libmimalloc.so.3"),
    ("snmalloc", "libsnmallocshim.so"),
    ("rpmalloc", "librpmalloc.so"),
)
LIBRARY_DIRS = ("/usr/lib/*-linux-gnu*", "/usr/lib64", "/usr/lib",
                "/usr/local/lib")

COUNTER = re.compile(r"^\s*([A-Za-z_][\w.]*)\s*[:=\s]\s*(-?\d+)\b")


class Unusable(Exception):
    """Something the user named is not there or does not work."""


def find_program(name, given, script):
    """The benchmark programs: as named, beside the script, in ./bench."""
    places = [given] if given else [
        os.path.join(os.path.dirname(script), name),
        os.path.join("bench", name), name]
    for place in places:
        if os.path.isdir(place):
            place = os.path.join(place, name)
        if os.path.isfile(place) and os.access(place, os.X_OK):
            return os.path.abspath(place)
    raise Unusable(f"cannot find the program {name} ("
                   + ", ".join(places) + "): build it, or name it with "
                   "--bench")


def library(spec):
    """The path that goes into LD_PRELOAD; None for the C library's own."""
    if spec == GLIBC:
        return None
    path = os.path.abspath(spec)
    if path.endswith(".la") and os.path.isfile(path):
        with open(path, encoding="utf-8", errors="replace") as text:
            found = re.search(r"^dlname='(.+)'", text.read(), re.M)
        if found:
            path = os.path.join(os.path.dirname(path), ".libs",
                                found.group(1))
    if not os.path.isfile(path):
        raise Unusable(f"{spec}: no such library")
    if re.search(r"[\s:]", path):
        raise Unusable(f"{path}: LD_PRELOAD cannot carry a path with blanks "
                       "or colons")
    return path


def installed():
    """Name and path of the allocators found where Debian puts them."""
    found = {}
    for name, soname in KNOWN:
        for pattern in LIBRARY_DIRS:
            for path in sorted(glob.glob(os.path.join(pattern, soname))):
                found.setdefault(name, path)
    return found


def environment(lib, extra=None):
    env = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    if lib:
        env["LD_PRELOAD"] = lib
    env.update(extra or {})
    return env


def _child_setup():
    # Should memory run out, this process is to die and not the runner;
    # and a crash is a row of the table, not a file of gigabytes.
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as f:
            f.write("1000")
    except OSError:
        pass
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Outcome:
    """How a process ended: exit status or signal, output, and if late."""

    def __init__(self, code, late, out, err, wall):
        self.code = code
        self.late = late
        self.out = out
        self.err = err
        self.wall = wall

    @property
    def not_loaded(self):
        return "cannot be preloaded" in self.err

    def ending(self):
        """Status and note for whatever is wrong; None, None when fine."""
        said = self.err.strip().split("\n")[0]
        if self.late:
            return "hang", "no end within the time limit"
        if self.code == -signal.SIGKILL:
            return "memory", "killed (SIGKILL), by the kernel for memory " \
                "unless somebody else did it"
        if self.code < 0:
            try:
                name = signal.Signals(-self.code).name
            except ValueError:
                name = f"signal {-self.code}"
            return "crash", f"{name} {said}".strip()
        if self.not_loaded:
            return "notloaded", said
        if self.code != 0:
            return "error", f"exit status {self.code} {said}".strip()
        return None, None


def _tail(stream, limit=65536):
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - limit))
    return stream.read().decode("utf-8", "replace")


def run_process(argv, env, timeout, cwd=None):
    """Run to the end or the time limit; nothing of it survives."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        try:
            child = subprocess.Popen(
                argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out,
                stderr=err, start_new_session=True, preexec_fn=_child_setup)
        except OSError as problem:
            return Outcome(127, False, "", str(problem), 0.0)
        late = False
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            # Also what an interrupt or the command itself leaves behind.
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            code = child.wait()
        return Outcome(code, late, _tail(out), _tail(err),
                       time.monotonic() - start)


def result_line(text, prefix="RESULT "):
    """The NAME=VALUE pairs of the program's last result line."""
    for line in reversed(text.split("\n")):
        if line.startswith(prefix):
            return table.pairs(line)
    return {}


def run_lane(bench, lane, lib, timeout, extra_env=None):
    """One run of the lane program as a row (without phase and round)."""
    outcome = run_process([bench] + lane.args(),
                          environment(lib, extra_env), timeout)
    row = {"lane": lane.id, "threads": lane.threads, "exit": outcome.code,
           "status": "ok", "note": ""}
    figures = result_line(outcome.out)
    row.update((k, v) for k, v in figures.items() if k in table.FIELDS)
    status, note = outcome.ending()
    if status in (None, "error"):
        if figures.get("corrupted"):
            status, note = "corrupted", f"{figures['corrupted']} objects"
        elif figures.get("failed"):
            status, note = "failed", f"{figures['failed']} allocations"
        elif status is None and not figures.get("ops_per_sec"):
            status, note = "error", "no result line"
    if status:
        row.update(status=status, note=table.clean(note))
    return row


def check_library(bench, lib):
    """Fail early, and with the loader's words, on a library that is none."""
    outcome = run_process([bench] + "1 1000 10 1 100 0 1".split(),
                          environment(lib), 60)
    return outcome.ending()


def measured(measure, argv, lib, timeout, cwd=None, extra_env=None):
    """One run as a row, times and the peak RSS, and what it printed.

    Without the helper program the figures come from the command's resource
    usage as the runner sees it, whose peak RSS starts at the runner's own.
    """
    row = {"status": "ok", "note": ""}
    if measure:
        with tempfile.NamedTemporaryFile() as record:
            outcome = run_process([measure, record.name, lib or ""] + argv,
                                  environment(None, extra_env), timeout, cwd)
            figures = table.pairs(record.read().decode("ascii"))
        ended_by = figures.pop("signal", 0)
        if figures and outcome.code == 0 and not outcome.late:
            outcome.code = -ended_by or figures["exit"]
    else:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        outcome = run_process(argv, environment(lib, extra_env), timeout,
                              cwd)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        figures = {"wall_s": outcome.wall,
                   "user_s": after.ru_utime - before.ru_utime,
                   "sys_s": after.ru_stime - before.ru_stime,
                   "vcsw": after.ru_nvcsw - before.ru_nvcsw,
                   "ivcsw": after.ru_nivcsw - before.ru_nivcsw}
    # A shell that lost its command to a signal says so by 128 + number.
    if 128 < outcome.code < 128 + signal.NSIG:
        outcome.code = 128 - outcome.code
    row.update(figures)
    if "user_s" in figures:
        row["cpu_s"] = figures["user_s"] + figures["sys_s"]
    row["exit"] = outcome.code
    status, note = outcome.ending()
    if status:
        row.update(status=status, note=table.clean(note))
    return row, outcome.out


def run_command(measure, command, lib, timeout, cwd=None, extra_env=None):
    """One run of a shell command as a row (without phase and round)."""
    if re.search(r"[^\w@%+=:,./~ -]", command) or "~" in command:
        argv = ["/bin/sh", "-c", command]
    else:
        argv = shlex.split(command)
        if "=" in argv[0]:
            argv.insert(0, "env")
    return measured(measure, argv, lib, timeout, cwd, extra_env)[0]


def run_shape(measure, program, shape, lib, timeout, extra_env=None):
    """One run of a shape as a row, with what it printed in `figures`."""
    row, said = measured(measure, [program] + shape.args(), lib, timeout,
                         extra_env=extra_env)
    figures = table.PAIR.findall(said)
    if row["status"] == "ok" and figures:
        row["figures"] = " ".join(f"{k}={v}" for k, v in figures)
    elif row["status"] == "ok":
        row.update(status="error", note="no figures")
    return row


def missing_program(command):
    """The command's program when it cannot be found, else None."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    while words and ("=" in words[0] or words[0] == "env"):
        words.pop(0)
    if words and not re.search(r"[^\w@%+:,./-]", words[0]) and \
            not shutil.which(words[0]) and \
            words[0] not in ("cd", "for", "while", "if", "set", "export"):
        return words[0]
    return None


def counters(text):
    """NAME VALUE lines, leniently: also with = or :, other lines skipped.

    A name that comes twice (per thread or size class) keeps its first
    value, which is the total.
    """
    found = {}
    for line in text.split("\n"):
        match = COUNTER.match(line)
        if match:
            found.setdefault(match.group(1), int(match.group(2)))
    return found


def run_stats(bench, lane, lib, timeout, path):
    """A run of a build with statistics; what it wrote lands in `path`.

    It writes to a temporary name first: a comma or percent sign in `path`
    would mean something in HZ4_OPTIONS.
    """
    options = os.environ.get("HZ4_OPTIONS", "")
    options = f"{options}," if options else ""
    with tempfile.TemporaryDirectory(prefix="hz4-ab-") as folder:
        target = os.path.join(folder, "stats")
        row = run_lane(bench, lane, lib, timeout,
                       {"HZ4_OPTIONS": f"{options}stats_file={target}"})
        if os.path.exists(target):
            shutil.copyfile(target, path)
    return row


def available():
    """Bytes that can be touched without pushing anything out."""
    free = 0
    try:
        with open("/proc/meminfo", encoding="ascii") as text:
            free = 1024 * int(re.search(r"MemAvailable:\s+(\d+)",
                                        text.read()).group(1))
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as text:
            limit = text.read().strip()
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as text:
            used = int(text.read())
        if limit != "max":
            free = min(free, int(limit) - used)
    except (OSError, AttributeError, ValueError):
        pass
    return max(free, 0)


TOUCH = """
import mmap, sys
m = mmap.mmap(-1, int(sys.argv[1]), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(m), %d):
    m[at] = 1
""" % PAGE


def warm(size):
    """Touch and give back `size` bytes, in a process of their own.

    The host of a virtual machine then has backed them, and the run that
    follows does not pay for it.  At most 60 % of what is available, so
    that nothing is pushed out for it.
    """
    size = min(int(size), available() * 6 // 10) // PAGE * PAGE
    if size > 0:
        run_process([sys.executable, "-I", "-S", "-c", TOUCH, str(size)],
                    environment(None), 120)
