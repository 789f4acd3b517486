"""summary.tsv, allocators.tsv, the picture and REPORT.md of hz4-ab."""

import os
import re

from ab import machine, picture, table, verdict

SUMMARY_FIELDS = (
    "phase", "lane", "rounds", "base_mops", "base_mad_pct", "variant_mops",
    "variant_mad_pct", "delta_pct", "noise_low_pct", "noise_high_pct",
    "state", "reason", "base_rss_mib", "variant_rss_mib",
    "base_rss_over_live", "variant_rss_over_live", "base_vcsw",
    "variant_vcsw", "base_ivcsw", "variant_ivcsw", "base_cpu_s",
    "variant_cpu_s")
ALLOCATOR_FIELDS = (
    "lane", "allocator", "runs", "ok", "mops", "mad_pct", "ratio_to_base",
    "cpu_s", "vcsw", "ivcsw", "faults", "peak_rss_mib", "peak_live_mib",
    "rss_over_live", "end_rss_mib")
COUNTERS = (
    "malloc_calls", "malloc_l0_hit", "malloc_l0_refill_calls",
    "malloc_l0_refill_objs", "malloc_alloc_run_hit",
    "malloc_alloc_run_refill_calls", "malloc_alloc_run_refill_objs",
    "malloc_transfer_hit", "malloc_lock_path", "malloc_span_create")


def _scaled(value, factor):
    return None if value is None else value * factor


def rss_over_live(rows):
    """Median of what the allocator made resident over the live bytes.

    The program's own resident memory (slots and rings) is taken off.
    """
    values = [{"q": 1024.0 * (r["peak_rss_kib"] - (r["own_kib"] or 0))
               / r["peak_live_bytes"]}
              for r in rows if r.get("peak_live_bytes")
              and r.get("peak_rss_kib")]
    return verdict.median_of(values, "q")


def figures(rows):
    """Medians of one allocator's sound runs of one lane."""
    good = verdict.ok(rows)
    faults = verdict.median_of(good, "minflt")
    ops = [r["ops_per_sec"] for r in good if r.get("ops_per_sec")]
    return {
        "runs": len(rows), "ok": len(good),
        "mops": _scaled(verdict.median_of(good, "ops_per_sec"), 1e-6),
        "mad_pct": verdict.mad_percent(ops) if ops else None,
        "cpu_s": verdict.median_of(good, "cpu_s"),
        "vcsw": verdict.median_of(good, "vcsw"),
        "ivcsw": verdict.median_of(good, "ivcsw"),
        "faults": faults,
        "peak_rss_mib": _scaled(
            verdict.median_of(good, "peak_rss_kib"), 1 / 1024),
        "peak_live_mib": _scaled(
            verdict.median_of(good, "peak_live_bytes"), 1 / 1048576),
        "rss_over_live": rss_over_live(good),
        "end_rss_mib": _scaled(
            verdict.median_of(good, "end_rss_kib"), 1 / 1024),
    }


def summary_rows(rows, phases):
    """A row per phase and lane; `phases` maps a phase to its results."""
    out = []
    for phase, (results, _) in phases.items():
        for r in results:
            row = {"phase": phase, "lane": r.lane, "rounds": r.pairs,
                   "delta_pct": r.delta, "noise_low_pct": r.low,
                   "noise_high_pct": r.high, "state": r.state,
                   "reason": r.reason}
            for who in ("base", "variant"):
                f = figures(verdict.rows_of(rows, phase=phase, lane=r.lane,
                                            allocator=who))
                row.update({
                    f"{who}_mops": f["mops"], f"{who}_mad_pct": f["mad_pct"],
                    f"{who}_rss_mib": f["peak_rss_mib"],
                    f"{who}_rss_over_live": f["rss_over_live"],
                    f"{who}_vcsw": f["vcsw"], f"{who}_ivcsw": f["ivcsw"],
                    f"{who}_cpu_s": f["cpu_s"]})
            out.append(row)
    return out


def allocator_rows(rows, lanes, names):
    """Screen medians of every allocator, with the paired ratio to base."""
    out = []
    for lane in lanes:
        base = {r["round"]: r["ops_per_sec"] for r in verdict.ok(
            verdict.rows_of(rows, phase="screen", lane=lane,
                            allocator="base"))}
        for name in names:
            mine = verdict.rows_of(rows, phase="screen", lane=lane,
                                   allocator=name)
            ratios = [{"q": r["ops_per_sec"] / base[r["round"]]}
                      for r in verdict.ok(mine) if base.get(r["round"])]
            out.append({"lane": lane, "allocator": name,
                        "ratio_to_base": verdict.median_of(ratios, "q"),
                        **figures(mine)})
    return out


def show(value, form="{:.2f}"):
    return "-" if value is None else form.format(value)


def markdown(header, body):
    """A table; columns of figures are aligned to the right."""
    body = [list(row) for row in body]
    figures_only = [
        bool(body) and all(re.match(r"-$|[-+]?\d", str(row[i]))
                           and "`" not in str(row[i]) for row in body)
        for i in range(len(header))]
    lines = ["| " + " | ".join(header) + " |",
             "| " + " | ".join("---:" if right else "---"
                               for right in figures_only) + " |"]
    for row in body:
        lines.append("| " + " | ".join(
            str(cell).replace("|", "\\|") for cell in row) + " |")
    return lines + [""]


def draw(folder, alloc, lanes, names):
    """lanes.svg from allocators.tsv's rows; why not, if not."""
    panels = []
    for title, field in (("Throughput", "ratio_to_base"),
                         ("Peak RSS", "peak_rss_mib")):
        values = {(r["lane"], r["allocator"]): r[field] for r in alloc}
        if field == "peak_rss_mib":
            for lane in lanes:
                base = values.get((lane, "base"))
                for name in names:
                    mine = values.get((lane, name))
                    values[lane, name] = mine / base \
                        if mine and base else None
        panels.append((f"{title}, base = 1", "ratio to base", lanes, names,
                       values, None))
    if not any(v is not None for p in panels for v in p[4].values()):
        return "no sound run to draw"
    return picture.bars(os.path.join(folder, "lanes.svg"), panels)


def _phase_section(phase, results, state, rows, needed):
    lines = [f"## {phase.capitalize()}: {state}", ""]
    body = []
    for s in summary_rows(rows, {phase: (results, state)}):
        span = "-" if s["noise_low_pct"] is None else \
            f"{s['noise_low_pct']:+.2f} .. {s['noise_high_pct']:+.2f}"
        body.append((
            s["lane"], f"{s['rounds']} of {needed}",
            f"{show(s['base_mops'])} ({show(s['base_mad_pct'], '{:.1f}')})",
            f"{show(s['variant_mops'])} "
            f"({show(s['variant_mad_pct'], '{:.1f}')})",
            show(s["delta_pct"], "{:+.2f}"), span, s["state"]))
    lines += markdown(("lane", "rounds", "base Mops/s (MAD %)",
                       "variant Mops/s (MAD %)", "delta %", "noise %",
                       "gate"), body)
    lines += [f"- {r.lane}: {r.state}: {r.reason}" for r in results] + [""]
    body = []
    for lane in dict.fromkeys(r.lane for r in results):
        for who in ("base", "variant"):
            f = figures(verdict.rows_of(rows, phase=phase, lane=lane,
                                        allocator=who))
            body.append((lane, who, show(f["peak_rss_mib"], "{:.1f}"),
                         show(f["rss_over_live"]),
                         show(f["vcsw"], "{:.0f}"),
                         show(f["ivcsw"], "{:.0f}"), show(f["cpu_s"]),
                         show(f["faults"], "{:.0f}")))
    return lines + markdown(
        ("lane", "build", "peak RSS MiB", "RSS / live", "voluntary switches",
         "involuntary switches", "CPU s", "page faults"), body)


def _mechanism_section(mechanism, rows):
    state, reason = mechanism["state"]
    lines = [f"## Mechanism check: {state}", "", reason + ".", ""]
    base, variant = mechanism["base"] or {}, mechanism["variant"] or {}
    if not base and not variant:
        return lines
    names = [n for n in COUNTERS if n in base or n in variant]
    body = [(n, base.get(n, "-"), variant.get(n, "-")) for n in names]
    for row_name, top in (("lock path, % of malloc_calls",
                           "malloc_lock_path"),
                          ("L0 hits, % of malloc_calls", "malloc_l0_hit")):
        body.append([row_name] + [
            show(100.0 * c[top] / c["malloc_calls"], "{:.4f}")
            if c.get("malloc_calls") and top in c else "-"
            for c in (base, variant)])
    for field, label in (("vcsw", "voluntary context switches"),
                         ("ivcsw", "involuntary context switches")):
        body.append([label] + [show(verdict.median_of(
            verdict.rows_of(rows, phase="mechanism", allocator=who), field),
            "{:.0f}") for who in ("base-stats", "variant-stats")])
    lines += markdown(("counter", "base", "variant"), body)
    return lines


def _gates(runs):
    return [
        "## Gates", "",
        f"- Screen ({runs['screen']} rounds): median main_r0 at least +3.0 "
        "% and outside the noise; guard_r0, main_r50 and cross128_r90 at "
        "least -1.0 % each; nothing crashed, hung or failed to allocate.",
        f"- Replay ({runs['replay']} rounds, after a passed screen): main_r0 "
        "above zero and outside the noise; no other lane below -1.0 %.",
        "- Mechanism check: L0 is hit, and the lock path falls.",
        "- The delta is the median over the rounds of variant over base, "
        "run one after the other in each round. The noise is the "
        "distribution-free interval of that median (coverage at least "
        f"{100 * verdict.COVERAGE:.0f} %). A delta whose interval holds zero "
        "is inside the noise: no GO by main_r0, and no NO-GO by another "
        "lane. Another lane whose interval reaches below its gate and is "
        f"wider than {verdict.NOISE_LIMIT:.0f} % to each side is not "
        "judged.", ""]


def write(folder, run, rows, phases, mechanism, result):
    """All of the outputs but raw.tsv; `run` is the content of run.json."""
    lanes = run["lane_ids"]
    names = list(run["libraries"])
    table.write(os.path.join(folder, "summary.tsv"), SUMMARY_FIELDS,
                summary_rows(rows, phases))
    alloc = allocator_rows(rows, lanes, names)
    table.write(os.path.join(folder, "allocators.tsv"), ALLOCATOR_FIELDS,
                alloc)
    why_not = draw(folder, alloc, lanes, names)

    lines = ["# hz4-ab: base against variant", "",
             f"**{result.verdict}**: {result.line}", "",
             f"Started {run['started']}.", "", "## Machine", ""]
    lines += markdown(("property", "value"), run["machine"])
    lines += ["## Builds", ""]
    lines += markdown(
        ("name", "library", "configuration", "sha256"),
        [(name, f"`{machine.shown(b['path'])}`", b["configuration"],
          (b["sha256"] or "-")[:16])
         for name, b in {**run["libraries"], **run["stats"]}.items()])
    lines += ["## Lanes", ""]
    lines += markdown(
        ("lane", "threads", "steps", "slots", "min", "max", "remote %",
         "ring"), [[i] + lane.args() for i, lane in
                   zip(lanes, run["lanes"])])
    if run["quick"]:
        lines += ["A quick run: a fraction of the steps and few rounds, to "
                  "see that everything works.", ""]
    lines += [f"Memory was {'' if run['warm'] else 'not '}touched and given "
              "back before every run of a remote lane"
              + (" and of the others." if run["warm"] == "all" else "."), ""]
    for phase, (results, state) in phases.items():
        lines += _phase_section(phase, results, state, rows,
                                run["runs"][phase])
    lines += _mechanism_section(mechanism, rows)
    lines += _gates(run["runs"])

    lines += ["## All allocators", "",
              "Medians of the screen's rounds; the ratio is to the base in "
              "the same round. RSS / live leaves out the lane program's own "
              "memory.", ""]
    lines += markdown(
        ("lane", "allocator", "sound runs", "Mops/s", "ratio", "MAD %",
         "peak RSS MiB", "RSS / live", "voluntary switches",
         "involuntary switches"),
        [(a["lane"], a["allocator"], f"{a['ok']} of {a['runs']}",
          show(a["mops"]), show(a["ratio_to_base"], "{:.3f}"),
          show(a["mad_pct"], "{:.1f}"), show(a["peak_rss_mib"], "{:.1f}"),
          show(a["rss_over_live"]), show(a["vcsw"], "{:.0f}"),
          show(a["ivcsw"], "{:.0f}")) for a in alloc])
    if why_not:
        lines += [f"No picture: {why_not}.", ""]
    else:
        lines += ["![throughput and RSS over the lanes](lanes.svg)", ""]

    wrong = [r for r in rows if r["status"] != "ok"]
    lines += ["## Runs that went wrong", ""]
    if wrong:
        lines += markdown(
            ("phase", "round", "lane", "allocator", "status", "note"),
            [(r["phase"], r["round"], r["lane"], r["allocator"],
              r["status"], r["note"]) for r in wrong])
    else:
        lines += ["None.", ""]
    if run.get("perf_note"):
        lines += ["## perf", "", run["perf_note"], ""]
    path = os.path.join(folder, "REPORT.md")
    with open(f"{path}.tmp", "w", encoding="utf-8") as out:
        out.write("\n".join(lines).rstrip("\n") + "\n")
    os.replace(f"{path}.tmp", path)
    return why_not
