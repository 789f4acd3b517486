"""What compare runs beside lanes, programs and shapes: latency of single
calls, start-up, servers.  Each gives figures, as a shape does."""

import os
import statistics
import time
from typing import NamedTuple

from ab import lanes, runner, servers, table

LATENCY_PROGRAM = "bench_latency"
LATENCY_CALLS = 2000000
LATENCY = ("plain/1", "plain/2", "phases/1", "other/2")
LATENCY_OF = ("malloc", "touched", "free")
LATENCY_SHAPES = ("plain", "phases", "rests", "other")
STARTUP = ("true",)
STARTS = 200
QUICK_DIVISOR = 20


class Probe(NamedTuple):
    """A row of the table: its group, name, threads and amount."""

    group: str
    name: str
    threads: int
    amount: int

    @property
    def id(self):
        return self.name


def latency(names=None, quick=False):
    """`plain/1` is the shape plain with a thread."""
    found = []
    for entry in names.split(",") if names else LATENCY:
        shape, _, threads = entry.strip().partition("/")
        if shape not in LATENCY_SHAPES:
            raise ValueError(f"unknown shape of latency \"{shape}\": they "
                             "are " + ", ".join(LATENCY_SHAPES))
        count = lanes.number("number of threads", threads or "2", 64)
        found.append(Probe("latency", f"{shape}/{count}", count,
                           LATENCY_CALLS // count
                           // (QUICK_DIVISOR if quick else 1)))
    return found


def startup(names=None, quick=False):
    for name in names.split(",") if names else ():
        if name not in STARTUP:
            raise ValueError(f"unknown program to start \"{name}\": there "
                             "is " + ", ".join(STARTUP))
    return [Probe("startup", "true", 1,
                  STARTS // (QUICK_DIVISOR if quick else 1))]


def server(names=None, quick=False):
    found = []
    for name in names.split(",") if names else servers.KNOWN:
        if name not in servers.KNOWN:
            raise ValueError(f"unknown server \"{name}\": they are "
                             + ", ".join(servers.KNOWN))
        found.append(Probe("servers", name, 1,
                           servers.KNOWN[name].amount
                           // (QUICK_DIVISOR if quick else 1)))
    return found


def missing(probe):
    """The program that a probe lacks, or None."""
    return servers.missing(probe.name) if probe.group == "servers" else None


def _latency(probe, measure, bench, lib, timeout, extra_env):
    argv = [bench, probe.name.partition("/")[0], str(probe.threads),
            str(probe.amount)]
    row, said = runner.measured(measure, argv, lib, timeout,
                                extra_env=extra_env)
    figures = table.pairs(said)
    if row["status"] == "ok":
        row["figures"] = " ".join(
            f"{call}_{part}={figures[f'{call}_{part}']}"
            for call in LATENCY_OF
            for part in ("p50", "p99", "p99.9", "p99.99")) + "".join(
            f" {call}_slow="
            f"{figures[f'{call}_over200us'] - figures[f'{call}_switched']}"
            for call in LATENCY_OF)
    return row


def _startup(probe, measure, lib, timeout, extra_env):
    """Microseconds from posix_spawn to the end of /bin/true, the median."""
    row, _ = runner.measured(measure, ["/bin/true"], lib, timeout,
                             extra_env=extra_env)
    if row["status"] != "ok":
        return row
    environment = runner.environment(lib, extra_env)
    took = []
    for _ in range(probe.amount):
        start = time.perf_counter_ns()
        child = os.posix_spawn("/bin/true", ["true"], environment)
        os.waitpid(child, 0)
        took.append((time.perf_counter_ns() - start) / 1000)
    row["figures"] = f"start={statistics.median(took):.1f}"
    if "peak_rss_kib" in row:   # only bench_measure knows it
        row["figures"] += f" peak_rss={row['peak_rss_kib']}"
    return row


def run(probe, measure, bench, lib, timeout, extra_env=None):
    """One run as a row, with what was found in `figures`."""
    if probe.group == "latency":
        return _latency(probe, measure, bench, lib, timeout, extra_env)
    if probe.group == "startup":
        return _startup(probe, measure, lib, timeout, extra_env)
    return servers.run(probe.name, probe.amount, lib, timeout, extra_env)
