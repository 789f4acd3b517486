"""results.tsv: one row per measurement, and what was measured on what.

Lines "#, key, value" come first: the machine, the command, what was
skipped.  Then the header and the rows.  A run that went wrong is a row of
metric `failed` whose unit says how.
"""

import math
import statistics
from typing import NamedTuple

from ab import table

FIELDS = ("group", "workload", "threads", "allocator", "version", "round",
          "metric", "value", "unit")
GROUPS = ("lanes", "programs", "servers", "memory", "latency", "startup")
FAILED = "failed"

# Units of the metrics that are not in KiB, and what is better when more.
UNITS = {"ops_per_sec": "1/s", "requests_per_sec": "1/s", "cpu": "s",
         "wall": "s", "seconds": "s", "microseconds_a_thread": "us",
         "start": "us"}
MORE_IS_BETTER = ("ops_per_sec", "requests_per_sec")

# Columns of raw.tsv that are measurements of a group.
COLUMNS = {
    "lanes": (("ops_per_sec", "ops_per_sec"), ("cpu", "cpu_s"),
              ("peak_rss", "peak_rss_kib")),
    "programs": (("cpu", "cpu_s"), ("wall", "wall_s"),
                 ("peak_rss", "peak_rss_kib")),
}


class Malformed(Exception):
    """A table that is none; the text names the file and the line."""


class Row(NamedTuple):
    group: str
    workload: str
    threads: int
    allocator: str
    version: str
    round: int
    metric: str
    value: float
    unit: str


def unit_of(group, metric):
    if group == "latency":
        return "calls" if metric.endswith("slow") else "ns"
    return UNITS.get(metric, "KiB")


def rows_of_run(group, threads, version, raw):
    """The measurements of one row of raw.tsv."""
    common = (group, raw["lane"], threads, raw["allocator"], version,
              raw["round"])
    if raw["status"] != "ok":
        yield Row(*common, FAILED, 1, raw["status"])
        return
    if group in COLUMNS:
        found = [(m, raw.get(c)) for m, c in COLUMNS[group]]
    else:
        found = table.pairs(raw.get("figures") or "").items()
    for metric, value in found:
        if value is not None:
            yield Row(*common, metric, value, unit_of(group, metric))


def write(path, facts, rows):
    with open(path, "w", encoding="utf-8") as out:
        for key, value in facts:
            out.write(f"#\t{key}\t{table.clean(value, 1000)}\n")
        out.write("\t".join(FIELDS) + "\n")
        for row in rows:
            value = row.value
            if isinstance(value, float):
                value = f"{value:.6g}" if abs(value) < 1e6 else f"{value:.0f}"
            out.write("\t".join(map(str, row._replace(value=value))) + "\n")


def _row(cells):
    """A row of text cells; raises ValueError with what is wrong."""
    if len(cells) != len(FIELDS):
        raise ValueError(f"{len(cells)} cells instead of {len(FIELDS)}")
    row = dict(zip(FIELDS, cells))
    if row["group"] not in GROUPS:
        raise ValueError(f"unknown group \"{row['group']}\"")
    for field in ("workload", "allocator", "metric", "unit"):
        if not row[field]:
            raise ValueError(f"no {field}")
    for field in ("threads", "round"):
        if not (row[field].isascii() and row[field].isdigit()):
            raise ValueError(f"{field} \"{row[field]}\" is not a number")
        row[field] = int(row[field])
    value = table.number(row["value"])
    if value is None or not math.isfinite(value):
        raise ValueError(f"value \"{row['value']}\" is not a number")
    row["value"] = value
    return Row(**row)


def read(path):
    """Facts and rows of a file that `write` made."""
    try:
        with open(path, encoding="utf-8") as source:
            lines = source.read().split("\n")
    except (OSError, UnicodeDecodeError) as problem:
        raise Malformed(f"{path}: {getattr(problem, 'strerror', problem)}")
    facts, rows, seen, header = [], [], set(), False
    for number, line in enumerate(lines, 1):
        cells = line.split("\t")
        if line.startswith("#\t") and len(cells) == 3:
            facts.append((cells[1], cells[2]))
        elif not header and line:
            header = tuple(cells) == FIELDS
            if not header:
                raise Malformed(f"{path}, line {number}: the header has to "
                                "be " + " ".join(FIELDS))
        elif line:
            try:
                row = _row(cells)
                key = row[:4] + row[5:7]
                if key in seen:
                    raise ValueError("measured twice: "
                                     + " ".join(map(str, key)))
            except ValueError as problem:
                raise Malformed(f"{path}, line {number}: {problem}")
            seen.add(key)
            rows.append(row)
    if not rows:
        raise Malformed(f"{path}: no measurement in it")
    return facts, rows


class Results:
    """What the page asks of the rows."""

    def __init__(self, facts, rows):
        self.facts = facts
        self.rows = rows
        self.versions = {}
        self._values = {}
        self._failed = {}
        self.threads = {}
        for r in rows:
            self.versions.setdefault(r.allocator, r.version)
            self.threads.setdefault((r.group, r.workload), r.threads)
            if r.metric == FAILED:
                self._failed.setdefault(
                    (r.group, r.workload, r.allocator), []).append(r.unit)
            else:
                self._values.setdefault(
                    (r.group, r.workload, r.metric), {}).setdefault(
                        r.allocator, {})[r.round] = r.value
        names = list(self.versions)
        self.subject = next(
            (n for n in ["hz4"] + names if n in names and n != "glibc"),
            names[0])
        names.remove(self.subject)
        self.peers = names
        self.allocators = [self.subject] + names
        self.rounds = max(r.round for r in rows)

    def fact(self, key):
        return next((v for k, v in self.facts if k == key), None)

    def workloads(self, group):
        return list(dict.fromkeys(r.workload for r in self.rows
                                  if r.group == group))

    def failed(self, group, workload, allocator):
        """How its runs went wrong: a word per run."""
        return self._failed.get((group, workload, allocator), [])

    def has(self, key):
        """Whether any allocator has it."""
        return key in self._values

    def by_round(self, key, allocator):
        return self._values.get(key, {}).get(allocator, {})

    def median(self, key, allocator):
        found = self.by_round(key, allocator)
        return statistics.median(found.values()) if found else None

    def better(self, key, mine, other):
        """Round -> how many times as good `mine` is as `other`.

        Above 1 it is better, whichever way the metric goes.
        """
        a, b = self.by_round(key, mine), self.by_round(key, other)
        more = key[2] in MORE_IS_BETTER
        return {n: a[n] / b[n] if more else b[n] / a[n]
                for n in sorted(a.keys() & b.keys()) if a[n] > 0 and b[n] > 0}

    def times(self, key, other, mine=None):
        """The median of it, or None."""
        found = self.better(key, mine or self.subject, other)
        return statistics.median(found.values()) if found else None

    def best_of(self, key, names):
        medians = {n: m for n in names
                   if (m := self.median(key, n)) is not None}
        if not medians:
            return None
        choose = max if key[2] in MORE_IS_BETTER else min
        return choose(medians, key=medians.get)

    def mean(self, group, metric, other, mine=None, workloads=None):
        """Geometric mean of how many times as good, over the workloads that
        both have; None where there is none."""
        found = [self.times((group, w, metric), other, mine)
                 for w in workloads or self.workloads(group)]
        found = [x for x in found if x]
        if not found:
            return None
        return math.exp(sum(map(math.log, found)) / len(found))

    def common(self, group, metric):
        """The workloads that every allocator got through."""
        return [w for w in self.workloads(group)
                if all(self.by_round((group, w, metric), a)
                       for a in self.allocators)]
