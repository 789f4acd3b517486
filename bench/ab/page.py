"""The page and the charts that are made from results.tsv.

Whatever is measured, the page has at most LIMIT lines.  A ratio tells how
many times as good the subject (hz4) is as the best peer: above 1 it is
better, below 1 it is a loss and marked, with ~ where the rounds lie on both
sides of 1.
"""

import os
import statistics

from ab import charts, report, results

LIMIT = 150
LEVEL = 0.995		# what rounds to 1.00 is no loss
# Rows of each table at most; the rest is in the TSV.
MOST = {"lanes": 9, "programs": 19, "servers": 8, "memory": 6,
        "latency": 13}
MOST_PROBLEMS = 4
CHARTS = ("programs", "memory", "lanes", "latency")


def _mops(value):
    return f"{value / 1e6:.3g}" if value < 1e8 else f"{value / 1e6:.0f}"


def _thousand(value):
    return f"{value / 1e3:.0f}"


def _mib(value):
    value /= 1024
    return f"{value:.2f}" if value < 9.95 else f"{value:,.0f}"


def _plain(value):
    return f"{value:.1f}" if value < 99.5 else f"{value:,.0f}"


def _us(value):
    return f"{value / 1000:.2g}" if value < 9950 else f"{value / 1000:,.0f}"


def _seconds(value):
    return f"{value:.2f}"


class Line:
    """A row of a table: one or two metrics of a workload."""

    def __init__(self, group, workload, label, first, second=None):
        self.group, self.workload, self.label = group, workload, label
        self.metrics = [m for m in (first, second) if m]

    def keys(self):
        return [(self.group, self.workload, m) for m, _ in self.metrics]


# Of each server, what a request is with how a rate of it is shown, and when
# the RSS in brackets was taken.
SERVERS = {
    "redis": ("thousand SETs/s", _thousand, "after nine tenths were deleted"),
    "memcached": ("thousand sets/s", _thousand,
                  "after nine tenths were deleted"),
    "nginx": ("requests/s", _plain, "at rest"),
    "mariadb": ("transactions/s", _plain, "at rest"),
}
ANY_SERVER = ("requests/s", _plain, "at rest")

# What bench_latency measures, and how its rows are called.
CALLS = (("malloc", "malloc"), ("touched", "malloc, pages written"),
         ("free", "free"))

# Of each shape, what the table has: metrics, and how they are shown.
SHAPES = {
    "own": ("MiB a second after a peak was freed (trimmed)",
            ("after_a_second", _mib), ("trimmed", _mib)),
    "other": ("the same, freed by another thread",
              ("after_a_second", _mib), ("trimmed", _mib)),
    "onlyfree": ("four threads allocate, one frees: MiB after (trimmed)",
                 ("after_a_second", _mib), ("trimmed", _mib)),
    "idle": ("KiB of an idle thread", ("a_thread", _plain), None),
    "churn": ("us of a short thread (MiB at the end)",
              ("microseconds_a_thread", _plain), ("rss", _mib)),
    "phases": ("MiB after nine tenths were freed (then other sizes)",
               ("rss_at_a_tenth", _mib), ("rss", _mib)),
}


def lines_of(res, group):
    """The rows of a group's table."""
    out = [Line("startup", w, f"start of /bin/{w} (peak MiB)",
                ("start", _plain), ("peak_rss", _mib))
           for w in res.workloads("startup")[:1] if group == "latency"]
    for w in res.workloads(group):
        if group == "lanes":
            name = w if "/" in w else f"{w}/{res.threads[group, w]}"
            out.append(Line(group, w, name, ("ops_per_sec", _mops),
                            ("peak_rss", _mib)))
        elif group == "programs":
            out.append(Line(group, w, w, ("cpu", _seconds),
                            ("peak_rss", _mib)))
        elif group == "servers":
            what, form, after = SERVERS.get(w, ANY_SERVER)
            out += [Line(group, w, f"{w}: {what} (CPU s)",
                         ("requests_per_sec", form), ("cpu", _seconds)),
                    Line(group, w, f"{w}: peak MiB ({after})",
                         ("peak_rss", _mib), ("after_rss", _mib))]
        elif group == "memory" and w.partition(":")[0] in SHAPES:
            said, first, second = SHAPES[w.partition(":")[0]]
            out.append(Line(group, w, f"{w}: {said}", first, second))
        elif group == "latency":
            out += [Line(group, w, f"{said}, {w}", (f"{call}_p99.9", _us),
                         (f"{call}_p99.99", _us))
                    for call, said in CALLS
                    if call == "malloc" or res.has((group, w,
                                                    f"{call}_p99.9"))]
    return out


def marked(times):
    """A ratio for the page, from those of the rounds."""
    times = list(times)
    if not times:
        return "-"
    middle = statistics.median(times)
    if middle >= LEVEL:
        return f"{middle:.2f}"
    both = "~" if max(times) >= 1 else ""
    return f"**loss {both}{middle:.2f}**"


def against_best(res, key):
    best = res.best_of(key, res.peers)
    if best is None or res.median(key, res.subject) is None:
        return "-"
    return marked(res.better(key, res.subject, best).values())


def cell(res, line, name):
    shown = []
    for key, (_, form) in zip(line.keys(), line.metrics):
        value = res.median(key, name)
        shown.append("-" if value is None else form(value))
    wrong = res.failed(line.group, line.workload, name)
    if all(s == "-" for s in shown):
        return wrong[0] if wrong else "-"
    text = shown[0] + (f" ({shown[1]})" if len(shown) > 1 else "")
    if name == res.best_of(line.keys()[0], res.allocators):
        text = f"**{text}**"
    return text + ("*" if wrong else "")


def heads(res):
    return [f"{n} {res.versions[n]}" for n in res.allocators]


def group_table(res, group, title, said, ratios):
    lines = lines_of(res, group)
    if not lines:
        return [f"## {title}", "", "Not measured in this run.", ""]
    shown = lines[:MOST[group]]
    body = [[line.label] + [cell(res, line, n) for n in res.allocators]
            + ([against_best(res, k) for k in line.keys()] + ["-"])[:2]
            for line in shown]
    if len(shown) < len(lines):
        said += f" {len(lines) - len(shown)} more rows are in the TSV."
    return [f"## {title}", "", said, ""] + report.markdown(
        [""] + heads(res) + ratios, body)


# --- the subject against each peer, over a group ---------------------------

OVERALL = (
    ("lanes: throughput", "lanes", "ops_per_sec"),
    ("lanes: CPU seconds", "lanes", "cpu"),
    ("lanes: peak RSS", "lanes", "peak_rss"),
    ("programs: CPU seconds", "programs", "cpu"),
    ("programs: peak RSS", "programs", "peak_rss"),
    ("servers: throughput", "servers", "requests_per_sec"),
    ("servers: CPU seconds", "servers", "cpu"),
    ("servers: RSS after the work", "servers", "after_rss"),
    ("memory: RSS after nine tenths were freed", "memory", "rss_at_a_tenth"),
    ("memory: RSS a second after the peak", "memory", "after_a_second"),
    ("memory: an idle thread", "memory", "a_thread"),
    ("latency of malloc: p99.9", "latency", "malloc_p99.9"),
    ("latency of malloc: p99.99", "latency", "malloc_p99.99"),
    ("latency with pages written: p99.9", "latency", "touched_p99.9"),
    ("latency with pages written: p99.99", "latency", "touched_p99.99"),
    ("start-up: time", "startup", "start"),
)


def workloads_with(res, group, metric):
    """The workloads of the mean.  In another shape of bench_shapes a figure
    of the same name is another one: those whose table has it."""
    if group != "memory":
        return res.workloads(group)
    return list(dict.fromkeys(
        line.workload for line in lines_of(res, group)
        if metric in [m for m, _ in line.metrics]))


def overall(res):
    body = []
    for label, group, metric in OVERALL:
        which = workloads_with(res, group, metric)
        cells = [marked([m] if which and (m := res.mean(
            group, metric, p, workloads=which)) else [])
                 for p in res.peers]
        if any(c != "-" for c in cells):
            body.append([label] + cells)
    return body


# --- bars -------------------------------------------------------------------

def _worst(res, found):
    """The smallest of (times, what), as text and number."""
    found = [f for f in found if f[0] is not None]
    return min(found) if found else (None, "")


def _lanes(res, names, wide, metric="ops_per_sec"):
    """How many times as good as the best peer, the worst of these lanes."""
    found = []
    for w in res.workloads("lanes"):
        threads = res.threads["lanes", w]
        if w.partition("/")[0] in names and (threads >= 16) in wide:
            key = ("lanes", w, metric)
            best = res.best_of(key, res.peers)
            found.append((best and res.times(key, best),
                          f"{w}, {best}"))
    return _worst(res, found)


def _programs(res, metric):
    """The worst mean against a peer."""
    common = res.common("programs", metric)
    return _worst(res, [(common and res.mean(
        "programs", metric, p, workloads=common) or None, p)
        for p in res.peers])


def _slowest(res, other=None):
    found = []
    for w in res.workloads("programs"):
        key = ("programs", w, "cpu")
        best = other or res.best_of(key, res.peers)
        times = best and res.times(key, best)
        found.append((times, f"{w}, {best}"))
    worst, what = _worst(res, found)
    return (worst and 1 / worst), what


def _latency(res):
    found = []
    for w in res.workloads("latency"):
        for m in ("p99.9", "p99.99"):
            key = ("latency", w, f"malloc_{m}")
            best = res.best_of(key, res.peers)
            found.append((best and res.times(key, best), f"{w} {m}, {best}"))
    return _worst(res, found)


def _to_glibc(res, key):
    mine, theirs = res.median(key, res.subject), res.median(key, "glibc")
    return None if mine is None or theirs is None else mine - theirs


def _largest(res, group, metric, scale=1.0):
    found = [(m * scale, w) for w in res.workloads(group)
             if (m := res.median((group, w, metric), res.subject))
             is not None]
    return max(found) if found else (None, "")


def _least(res, metric):
    found = []
    for w in workloads_with(res, "memory", metric):
        key = ("memory", w, metric)
        best = res.best_of(key, res.peers)
        found.append((best and res.times(key, best), f"{w}, {best}"))
    return _worst(res, found)


def _glibc_rss(res):
    mean = res.mean("programs", "peak_rss", "glibc")
    return (mean and 1 / mean), "glibc"


LOCAL, REMOTE = ("guard_r0", "main_r0"), ("main_r50", "cross128_r90")
SLOW = ("latency", "malloc_slow")
# What, the bar, whether more is better, and the value with what it is of.
BARS = (
    ("guard_r0, main_r0 to the best peer", 1.03, True,
     lambda r: _lanes(r, LOCAL, (True, False))),
    ("main_r50, 16 threads", 2.0, True,
     lambda r: _lanes(r, ("main_r50",), (True,))),
    ("cross128_r90, 16 threads", 1.5, True,
     lambda r: _lanes(r, ("cross128_r90",), (True,))),
    ("main_r50, cross128_r90, fewer threads", 1.1, True,
     lambda r: _lanes(r, REMOTE, (False,))),
    ("peak RSS of the remote lanes, the best peer to hz4", 1.0, True,
     lambda r: _lanes(r, REMOTE, (True, False), "peak_rss")),
    ("programs: CPU seconds, mean, the nearest peer to hz4", 1.03, True,
     lambda r: _programs(r, "cpu")),
    ("programs: the slowest to the best of it", 1.12, False, _slowest),
    ("programs: the slowest to glibc", 1.0, False,
     lambda r: _slowest(r, "glibc")),
    ("programs: peak RSS, mean, to glibc", 1.03, False, _glibc_rss),
    ("after nine tenths were freed, the least to hz4", 1.0, True,
     lambda r: _least(r, "rss_at_a_tenth")),
    ("p99.9 and p99.99 of malloc, the best peer to hz4", 1.0, True,
     _latency),
    ("calls above 200 us that kept the CPU", 0, False,
     lambda r: _largest(r, *SLOW)),
    ("/bin/true, us more than glibc", 80, False,
     lambda r: (_to_glibc(r, ("startup", "true", "start")), "true")),
    ("KiB of an idle thread", 12, False,
     lambda r: _largest(r, "memory", "a_thread")),
)


def bars(res):
    body = []
    for what, bar, more, value_of in BARS:
        value, of_what = value_of(res)
        if value is None:
            continue
        met = value >= bar if more else value <= bar
        shown = f"{value:.3f}" if abs(value) < 10 else \
            f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"
        body.append((what, f"{'at least' if more else 'at most'} {bar}",
                     f"{shown} ({of_what})" if met else
                     f"**missed: {shown}** ({of_what})"))
    return body


# --- charts -----------------------------------------------------------------

def _chart_bars(res, value_of, form, reverse=False):
    found = [(f"{n} {res.versions[n]}", v, form(v)) for n in res.allocators
             if (v := value_of(n)) is not None]
    return sorted(found, key=lambda b: b[1], reverse=reverse)


def _inverse(mean):
    return None if mean is None else 1 / mean


def chart_panels(res):
    """Name -> panels of the charts that these results give."""
    two = "{:.2f}".format
    found = {}

    def add(chart, title, note, got, mark=None):
        if got:
            found.setdefault(chart, []).append((title, note, got, mark))

    programs = len(res.common("programs", "cpu"))
    if "glibc" in res.versions and programs:
        for chart, metric, title in (
                ("programs", "cpu", "CPU seconds of programs, glibc = 1"),
                ("memory", "peak_rss", "Peak RSS of programs, glibc = 1")):
            common = res.common("programs", metric)
            add(chart, title, f"geometric mean of {len(common)}; less is "
                "better", _chart_bars(res, lambda n, m=metric, c=common:
                _inverse(res.mean("programs", m, "glibc", n, c))
                if c else None, two), 1.0)
    for w in res.workloads("servers"):
        add("memory", f"RSS of {w} {SERVERS.get(w, ANY_SERVER)[2]}, MiB",
            "less is better", _chart_bars(
                res, lambda n, k=("servers", w, "after_rss"):
                res.median(k, n), _mib))
    for w in res.workloads("lanes"):
        name = w if "/" in w else f"{w}/{res.threads['lanes', w]}"
        add("lanes", f"{name}, million operations a second",
            "more is better", _chart_bars(
                res, lambda n, k=("lanes", w, "ops_per_sec"):
                res.median(k, n), _mops, True))
    for w in res.workloads("latency"):
        add("latency", f"p99.99 of malloc, {w}, us", "less is better",
            _chart_bars(res, lambda n, k=("latency", w, "malloc_p99.99"):
                        res.median(k, n), _us))
    return found


# --- the page ---------------------------------------------------------------

MACHINE = ("processor", "CPUs for this run", "memory", "system",
           "huge pages", "load at the start")


def problems(res):
    out = [f"- skipped: {v}" for k, v in res.facts if k == "skipped"]
    for group in results.GROUPS:
        for w in res.workloads(group):
            for n in res.allocators:
                if wrong := res.failed(group, w, n):
                    out.append(f"- {w}, {n}: {', '.join(wrong)}")
    if len(out) > MOST_PROBLEMS:
        rest = len(out) - MOST_PROBLEMS + 1
        out = out[:MOST_PROBLEMS - 1] + [f"- and {rest} more, see the TSV"]
    return out or ["Nothing."]


def text(res, source, chart_folder="", drawn=()):
    """The page as lines."""
    own = res.subject
    machine = "; ".join(f"{k}: {v}" for k, v in res.facts if k in MACHINE)
    note = res.fact("note")
    build = res.fact(f"build of {own}")
    groups = ", ".join(f"{len(res.workloads(g))} {g}" for g in results.GROUPS
                       if res.workloads(g))
    out = [f"# {own} measured against others", "",
           f"Made by `make bench-report` from `{source}`, whose first lines "
           "have the commands: do not edit. "
           f"Measured {res.fact('started') or 'at an unknown time'}, "
           f"{res.fact('rounds') or res.rounds} interleaved rounds in "
           f"changing order; workloads: {groups}.", "",
           f"Machine: {machine or 'not known'}."
           + (f" {own} was built by `{build}`." if build else "")
           + (f" {note}" if note else ""), ""]
    out += [f"Figures are medians of the rounds. The last columns say how "
            f"many times as good {own} is as the best peer of that row, for "
            "the first figure and for the one in brackets: above 1 it is "
            "better. **loss** marks where it is worse, ~ where the rounds "
            "lie on both sides of 1. The best of a row is bold. `*`: not "
            "every round ended well. Only ratios within a run count: "
            "measure your own program (README.md).", "",
            f"## {own} against each", "",
            "Geometric means over the workloads that both got through.", ""]
    out += report.markdown([""] + heads(res)[1:], overall(res) or [
        ["nothing"] + ["-"] * len(res.peers)])
    out += [" ".join(f"![{n}]({os.path.join(chart_folder, n)}.svg)"
                     for n in drawn), ""] if drawn else []
    first, second = "to the best", "in brackets"
    for group, title, said in (
            ("lanes", "Lanes", "Million operations a second (peak RSS in "
             "MiB); lane/threads, see README.md beside this page."),
            ("programs", "Programs", "CPU seconds (peak RSS in MiB)."),
            ("servers", "Servers", "What is asked of each is in README.md "
             "beside this page. CPU seconds are the server's, for the same "
             "work; RSS is its peak, and after the work and 1.5 s of "
             "rest."),
            ("memory", "Memory", "What is kept, by `bench_shapes`."),
            ("latency", "Latency and start-up", "us of a call that 99.9 % (99.99 %) of "
             "calls take at most, by `bench_latency`; shape/threads; with "
             "pages written: until the program has written to each page of "
             "the object. The start: us of a small program from "
             "`posix_spawn` to its end.")):
        out += group_table(res, group, title, said, [first, second])
    out += ["## Bars", "",
            "What hz4 aims at. Each value is the worst of its kind, and of "
            "what.", ""]
    out += report.markdown(("what", "bar", "here"),
                           bars(res) or [("nothing", "-", "-")])
    out += ["## Skipped and failed", ""] + problems(res)
    return out


def make(source, target, chart_folder):
    """Write the page and its charts from a results.tsv."""
    res = results.Results(*results.read(source))
    panels = chart_panels(res)
    os.makedirs(chart_folder, exist_ok=True)
    for name, found in panels.items():
        with open(os.path.join(chart_folder, f"{name}.svg"), "w",
                  encoding="utf-8") as out:
            out.write(charts.bars(found, res.subject))
    folder = os.path.dirname(os.path.abspath(target))
    lines = text(res, os.path.relpath(source, folder),
                 os.path.relpath(chart_folder, folder),
                 [n for n in CHARTS if n in panels])
    if len(lines) > LIMIT:
        raise results.Malformed(f"{source}: the page has {len(lines)} lines,"
                                f" more than {LIMIT}")
    with open(target, "w", encoding="utf-8") as out:
        out.write("\n".join(lines) + "\n")
