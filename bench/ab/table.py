"""The table of runs: one row per run, written as it is measured."""

import os
import re

# Text columns; every other column holds a number or is empty.
TEXT = ("phase", "lane", "allocator", "status", "note", "workload", "metric",
        "state", "reason", "figures", "figure", "shape")
FIELDS = (
    "phase", "round", "lane", "threads", "allocator", "status",
    "ops_per_sec", "wall_s", "cpu_s", "user_s", "sys_s", "vcsw", "ivcsw",
    "minflt", "majflt", "peak_rss_kib", "end_rss_kib", "own_kib",
    "peak_live_bytes", "remote", "ring_full", "failed", "corrupted",
    "exit", "note",
)

# What the benchmark programs print.
PAIR = re.compile(r"([\w.]+)=(-?[0-9.]+)")


def clean(text, limit=200):
    """Text that fits one cell of a TSV file."""
    return " ".join(str(text).split())[:limit]


def number(text):
    """A cell as int or float; None where it is empty or no number."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None


def pairs(text):
    """The numbers by name of a text with NAME=VALUE."""
    return {k: number(v) for k, v in PAIR.findall(text)}


def _cell(value):
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.0f}"
    return clean(value, 1000)


def write(path, fields, rows):
    """Write a whole table; the old file stays until the new one is done."""
    temporary = f"{path}.tmp"
    with open(temporary, "w", encoding="utf-8") as out:
        out.write("\t".join(fields) + "\n")
        for row in rows:
            out.write("\t".join(_cell(row.get(f)) for f in fields) + "\n")
    os.replace(temporary, path)


def read(path):
    """The rows of a table as dictionaries; a torn last line is dropped."""
    with open(path, encoding="utf-8") as source:
        lines = source.read().split("\n")
    fields = lines[0].split("\t")
    rows = []
    # What follows the last newline is empty, or was cut off by a crash.
    for line in lines[1:-1]:
        cells = line.split("\t")
        if len(cells) != len(fields):
            continue
        row = {}
        for field, cell in zip(fields, cells):
            row[field] = cell if field in TEXT else number(cell)
        rows.append(row)
    return rows


class RawTable:
    """raw.tsv: appended to run by run, read back to resume."""

    def __init__(self, path, fields=FIELDS):
        self.path = path
        self.fields = fields
        self.rows = []
        if os.path.exists(path):
            self.rows = read(path)
        # Rewritten, so that a torn line does not stay in the middle.
        write(path, fields, self.rows)

    def append(self, row):
        self.rows.append(row)
        with open(self.path, "a", encoding="utf-8") as out:
            out.write("\t".join(_cell(row.get(f)) for f in self.fields)
                      + "\n")

    def has(self, **key):
        return any(all(row.get(k) == v for k, v in key.items())
                   for row in self.rows)
