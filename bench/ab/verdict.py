"""Statistics and gates of the A/B method: rows in, verdict out.

Nothing here measures or reads files, so all of it can be tested on made-up
tables.

The comparison is paired: round by round, variant over base, which were run
one right after the other; the median of these ratios is the delta.  Its
noise is the distribution-free interval of the median (order statistics of
the ratios, coverage at least 85 %: the 2nd to the 6th of 7, the 3rd to the
9th of 11).  A delta whose interval holds zero is "inside the noise".
"""

import math
import statistics
from typing import NamedTuple

GO = "GO"
NO_GO = "NO-GO"
UNJUDGED = "NOT JUDGED"
SMOKE = "SMOKE RUN"
EXIT = {GO: 0, NO_GO: 1, UNJUDGED: 2}

PASS = "pass"
FAIL = "fail"
NOISE = "noise"
MISSING = "missing"

AIM = "main_r0"
GUARDS = ("guard_r0", "main_r50", "cross128_r90")
RUNS = {"screen": 7, "replay": 11}
AIM_GATE = {"screen": 3.0, "replay": 0.0}
GUARD_GATE = -1.0
# Half the width of the interval, in percent: a guard lane that wavers by
# more, down below its gate, shows nothing either way.
NOISE_LIMIT = 5.0
COVERAGE = 0.85

# What ends a gate: the program or the allocator misbehaved.
BROKEN = ("crash", "hang", "failed", "corrupted", "error", "notloaded")
# The machine was too small: of no use to judge with.
NO_MEMORY = "memory"


def interval(values):
    """Low and high end of the median's interval, by order statistics."""
    ordered = sorted(values)
    n = len(ordered)
    best = 1
    for k in range(1, n // 2 + 1):
        tail = sum(math.comb(n, i) for i in range(k)) / 2 ** n
        if 1 - 2 * tail >= COVERAGE:
            best = k
    return ordered[best - 1], ordered[n - best]


def mad_percent(values):
    """Median absolute deviation in percent of the median."""
    middle = statistics.median(values)
    if not middle:
        return 0.0
    spread = statistics.median(abs(v - middle) for v in values)
    return 100.0 * spread / abs(middle)


def median_of(rows, field):
    values = [row[field] for row in rows if row.get(field) is not None]
    return statistics.median(values) if values else None


def rows_of(rows, **key):
    return [row for row in rows
            if all(row.get(k) == v for k, v in key.items())]


def ok(rows):
    return [row for row in rows if row["status"] == "ok"]


def family(lane):
    return lane.partition("/")[0]


class LaneResult(NamedTuple):
    """What a phase says about one lane."""

    lane: str
    state: str
    reason: str
    pairs: int = 0
    delta: float = None
    low: float = None
    high: float = None

    @property
    def inside_noise(self):
        return self.delta is not None and self.low <= 0 <= self.high


def pair_deltas(rows, phase, lane):
    """Percent by which the variant is faster, a value per complete round."""
    base = {r["round"]: r for r in ok(rows_of(
        rows, phase=phase, lane=lane, allocator="base"))}
    variant = {r["round"]: r for r in ok(rows_of(
        rows, phase=phase, lane=lane, allocator="variant"))}
    return [100.0 * (variant[n]["ops_per_sec"] / base[n]["ops_per_sec"] - 1)
            for n in sorted(base.keys() & variant.keys())
            if base[n]["ops_per_sec"] and variant[n]["ops_per_sec"]]


def _gate(lane, phase, delta, low, high):
    """State and reason of one lane's figures against its gate."""
    inside = low <= 0 <= high
    if family(lane) == AIM:
        gate = AIM_GATE[phase]
        wanted = f"at least {gate:+.1f} %" if gate else "above 0"
        reached = delta >= gate if gate else delta > 0
        if reached and not inside:
            return PASS, f"{delta:+.2f} %, {wanted}"
        if reached:
            return NOISE, f"{delta:+.2f} % is {wanted}, but inside the noise"
        if inside and high >= max(gate, 0.0):
            return NOISE, (f"{delta:+.2f} % is not {wanted}, but inside a "
                           "noise that leaves it open")
        return FAIL, f"{delta:+.2f} %, has to be {wanted}"
    wanted = f"at least {GUARD_GATE:+.1f} %"
    if delta < GUARD_GATE:
        if inside:
            return NOISE, (f"{delta:+.2f} % is not {wanted}, but inside the "
                           "noise")
        return FAIL, f"{delta:+.2f} %, has to be {wanted}"
    if low < GUARD_GATE and (high - low) / 2 > NOISE_LIMIT:
        return NOISE, (f"{delta:+.2f} %, but the noise of "
                       f"{(high - low) / 2:.1f} % would hide a loss")
    return PASS, (f"{delta:+.2f} %, {wanted}"
                  + (", inside the noise" if inside else ""))


def judge_lane(rows, phase, lane, runs):
    """One lane of one phase; `runs` is the number of pairs it needs."""
    mine = [r for r in rows_of(rows, phase=phase, lane=lane)
            if r["allocator"] in ("base", "variant")]
    deltas = pair_deltas(rows, phase, lane)
    figures = {"pairs": len(deltas)}
    if deltas:
        low, high = interval(deltas)
        figures.update(delta=statistics.median(deltas), low=low, high=high)
    broken = [r for r in mine if r["status"] in BROKEN]
    if broken:
        first = broken[0]
        reason = (f"{len(broken)} of {len(mine)} runs went wrong, first: "
                  f"{first['allocator']} in round {first['round']}: "
                  f"{first['status']} {first.get('note') or ''}".rstrip())
        return LaneResult(lane, FAIL, reason, **figures)
    starved = {r["allocator"] for r in mine if r["status"] == NO_MEMORY}
    if starved == {"variant"}:
        return LaneResult(lane, FAIL, "the variant was killed for memory, "
                          "the base was not", **figures)
    if starved:
        return LaneResult(lane, MISSING, "killed for memory: "
                          + ", ".join(sorted(starved)), **figures)
    if not deltas:
        return LaneResult(lane, MISSING, "no complete round", **figures)
    state, reason = _gate(lane, phase, figures["delta"], low, high)
    if len(deltas) < runs:
        # Too few rounds cannot pass; they can fail only by breaking.
        return LaneResult(lane, MISSING, f"{len(deltas)} of {runs} rounds "
                          f"({reason})", **figures)
    return LaneResult(lane, state, reason, **figures)


def judge_phase(rows, phase, lanes, runs=None):
    """Results per lane and the phase's state: pass, fail, noise, missing.

    Every thread variant in `lanes` has to pass; the four standard lanes all
    have to be there, whatever their number of threads.
    """
    runs = runs or RUNS[phase]
    results = [judge_lane(rows, phase, lane, runs) for lane in lanes]
    there = {family(lane) for lane in lanes}
    for name in (AIM,) + GUARDS:
        if name not in there:
            results.append(LaneResult(name, MISSING, "not run"))
    states = {r.state for r in results}
    for state in (FAIL, MISSING, NOISE):
        if state in states:
            return results, state
    return results, PASS


def judge_mechanism(base, variant):
    """The counters of both stats builds (None: not measured)."""
    if base is None or variant is None:
        return MISSING, "no run with the stats builds"
    need = [("base", base, "malloc_lock_path"),
            ("variant", variant, "malloc_lock_path"),
            ("variant", variant, "malloc_l0_hit")]
    absent = [f"{who} has no {name}" for who, counters, name in need
              if name not in counters]
    if absent:
        return MISSING, "; ".join(absent)
    hit = variant["malloc_l0_hit"]
    before, after = base["malloc_lock_path"], variant["malloc_lock_path"]
    if hit <= 0:
        return FAIL, "malloc_l0_hit is 0: L0 is never hit"
    if after >= before:
        return FAIL, (f"malloc_lock_path does not fall ({before} in the "
                      f"base, {after} in the variant) although L0 is hit "
                      f"({hit})")
    return PASS, (f"malloc_l0_hit {hit}, malloc_lock_path {before} in the "
                  f"base, {after} in the variant")


class Verdict(NamedTuple):
    verdict: str
    line: str

    @property
    def exit_status(self):
        return EXIT.get(self.verdict, 2)


def _first(results, state):
    return next((f"{r.lane}: {r.reason}" for r in results
                 if r.state == state), "")


def overall(screen, replay, mechanism):
    """GO, NO-GO or not judged, with the reason in one line.

    `screen` and `replay` are what judge_phase() returns, or None for a
    phase that was not run; `mechanism` is what judge_mechanism() returns.
    """
    stages = [("screen", screen), ("replay", replay)]
    for name, phase in stages:
        if phase and phase[1] == FAIL:
            return Verdict(NO_GO, f"{name}: {_first(phase[0], FAIL)}")
    if mechanism[0] == FAIL:
        return Verdict(NO_GO, f"mechanism check: {mechanism[1]}")
    for name, phase in stages:
        if not phase:
            return Verdict(UNJUDGED, f"{name}: not run")
        if phase[1] != PASS:
            return Verdict(UNJUDGED, f"{name}: {_first(phase[0], phase[1])}")
    if mechanism[0] != PASS:
        return Verdict(UNJUDGED, f"mechanism check: {mechanism[1]}")
    aim = next(r for r in replay[0] if family(r.lane) == AIM)
    return Verdict(GO, f"{aim.lane} {aim.delta:+.2f} % in the replay, no "
                   f"other lane below {GUARD_GATE:+.1f} %, the lock path "
                   "fell")


def smoke(rows):
    """A quick run: sound or not, but no verdict on speed."""
    bad = [r for r in rows if r["allocator"] in ("base", "variant")
           and r["status"] != "ok"]
    if bad:
        first = bad[0]
        return Verdict(NO_GO, f"{first['lane']}, {first['allocator']}: "
                       f"{first['status']} {first.get('note') or ''}"
                       .rstrip())
    if not rows:
        return Verdict(UNJUDGED, "nothing was run")
    return Verdict(SMOKE, "every run was sound; figures of a quick run are "
                   "no verdict")


EXIT[SMOKE] = 0
