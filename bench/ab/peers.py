"""The statistics of compare: allocators side by side over workloads."""

import math
import statistics

from ab import table, verdict

# What is compared, and the raw column it comes from: smaller is better.
METRICS = (("wall", "wall_s"), ("cpu", "cpu_s"), ("rss", "peak_rss_kib"))
GLIBC = "glibc"


def values(rows, workload, allocator, field):
    """Round -> value, of the sound runs."""
    return {r["round"]: r[field] for r in verdict.ok(verdict.rows_of(
        rows, lane=workload, allocator=allocator)) if r.get(field)}


def best_of(rows, workload, allocators, field):
    """The allocator with the smallest median, or None."""
    medians = {}
    for name in allocators:
        mine = values(rows, workload, name, field)
        if mine:
            medians[name] = statistics.median(mine.values())
    return min(medians, key=medians.get) if medians else None


def paired(rows, workload, name, other, field):
    """Round -> ratio of one allocator to another."""
    mine = values(rows, workload, name, field)
    theirs = values(rows, workload, other, field)
    return {n: mine[n] / theirs[n] for n in mine.keys() & theirs.keys()}


def ratio(rows, workload, name, other, field):
    """Median of the paired ratios.

    Where no round has both (one of them crashed in every other), that of
    the medians.
    """
    both = paired(rows, workload, name, other, field)
    if both:
        return statistics.median(both.values())
    mine = values(rows, workload, name, field)
    theirs = values(rows, workload, other, field)
    if not mine or not theirs:
        return None
    return statistics.median(mine.values()) \
        / statistics.median(theirs.values())


def geometric_mean(numbers):
    return math.exp(sum(map(math.log, numbers)) / len(numbers))


def per_workload(rows, workloads, allocators):
    """A row per workload and allocator: medians, ratios, sound runs."""
    out = []
    for workload in workloads:
        best = {m: best_of(rows, workload, allocators, field)
                for m, field in METRICS}
        for name in allocators:
            mine = verdict.rows_of(rows, lane=workload, allocator=name)
            row = {"workload": workload, "allocator": name,
                   "runs": len(mine), "ok": len(verdict.ok(mine))}
            wrong = [r for r in mine if r["status"] != "ok"]
            if wrong:
                row["note"] = f"{wrong[0]['status']}: {wrong[0]['note']}"
            for metric, field in METRICS:
                found = list(values(rows, workload, name, field).values())
                if found:
                    row[metric] = statistics.median(found)
                    row[f"{metric}_mad_pct"] = verdict.mad_percent(found)
                if best[metric]:
                    row[f"{metric}_to_best"] = ratio(
                        rows, workload, name, best[metric], field)
                if GLIBC in allocators:
                    row[f"{metric}_to_glibc"] = ratio(
                        rows, workload, name, GLIBC, field)
            out.append(row)
    return out


def _mean_over(rows, workloads, name, other_of, field):
    """Geometric mean of the median ratios, and its range over the rounds.

    A round counts for the range when every one of the workloads has its
    ratio, so that all means are over the same workloads.
    """
    ratios = []
    rounds = None
    by_round = []
    for workload in workloads:
        other = other_of(workload)
        both = paired(rows, workload, name, other, field)
        by_round.append(both)
        ratios.append(ratio(rows, workload, name, other, field))
        rounds = both.keys() if rounds is None else rounds & both.keys()
    means = [geometric_mean([b[n] for b in by_round]) for n in rounds or ()]
    mean = geometric_mean(ratios)
    return mean, min(means, default=mean), max(means, default=mean)


def means(rows, workloads, allocators):
    """A row per allocator: geometric means to the best and to glibc.

    `common` workloads are those that every allocator got through at least
    once: only they are fair to all.  An allocator that failed one shows it
    in `failed`.
    """
    out = []
    for metric, field in METRICS:
        common = [w for w in workloads if all(
            values(rows, w, name, field) for name in allocators)]
        for name in allocators:
            row = {"allocator": name, "metric": metric,
                   "workloads": len(common),
                   "failed": sum(1 for w in workloads if any(
                       r["status"] != "ok" for r in verdict.rows_of(
                           rows, lane=w, allocator=name)))}
            if common:
                row["to_best"], row["to_best_low"], row["to_best_high"] = \
                    _mean_over(rows, common, name, lambda w: best_of(
                        rows, w, allocators, field), field)
                row["worst"] = max(ratio(
                    rows, w, name, best_of(rows, w, allocators, field),
                    field) for w in common)
                if GLIBC in allocators:
                    (row["to_glibc"], row["to_glibc_low"],
                     row["to_glibc_high"]) = _mean_over(
                         rows, common, name, lambda w: GLIBC, field)
            out.append(row)
    return out


def kept(rows, shapes, allocators):
    """A row per shape, allocator and figure: median, spread, range.

    An allocator without a sound run has one row, without a figure.
    """
    out = []
    for shape in shapes:
        for name in allocators:
            mine = verdict.rows_of(rows, lane=shape, allocator=name)
            good = [table.pairs(r["figures"]) for r in verdict.ok(mine)]
            common = {"shape": shape, "allocator": name, "runs": len(mine),
                      "ok": len(good)}
            for figure in dict.fromkeys(f for g in good for f in g):
                found = [g[figure] for g in good if figure in g]
                out.append({
                    **common, "figure": figure,
                    "median": statistics.median(found),
                    "mad_pct": verdict.mad_percent(found),
                    "low": min(found), "high": max(found)})
            if not good:
                out.append({**common, "figure": ""})
    return out
