#!/usr/bin/env python3
"""The A/B method's verdicts, on made-up tables: nothing is measured.

Run from anywhere: python3 tests/ab_verdict_test.py
"""

import contextlib
import importlib.machinery
import importlib.util
import io
import os
import shutil
import socket
import sys
import tempfile
import unittest
from unittest import mock

sys.dont_write_bytecode = True
BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..",
                     "bench")
sys.path.insert(0, BENCH)

from ab import (lanes, peers, picture, probes, report,  # noqa: E402
                runner, server, servers, shapes, table, verdict)

LANES = list(lanes.STANDARD)
# Small wavering that leaves the median where it is, for 7 and 11 rounds.
WAVER = (0.0, 0.4, -0.3, 0.2, -0.4, 0.1, -0.1, 0.3, -0.2, 0.05, -0.05)


def row(phase, number, lane, allocator, ops, status="ok", **more):
    return {"phase": phase, "round": number, "lane": lane, "threads": 16,
            "allocator": allocator, "status": status, "ops_per_sec": ops,
            "wall_s": 1.0, "cpu_s": 2.0, "vcsw": 10, "ivcsw": 20,
            "minflt": 5, "peak_rss_kib": 2048, "own_kib": 1024,
            "peak_live_bytes": 1048576, "failed": 0, "corrupted": 0,
            "note": "", **more}


def made_up(phase, deltas, runs=None, waver=WAVER, lane_names=LANES):
    """Rows in which a lane's variant is faster by deltas[lane] percent."""
    rows = []
    for number in range(1, (runs or verdict.RUNS[phase]) + 1):
        for lane in lane_names:
            # The machine drifts: pairs cancel it, medians would not.
            base = 1e8 * (1 + 0.05 * number)
            delta = deltas.get(lane, 0.0) + waver[(number - 1) % len(waver)]
            rows.append(row(phase, number, lane, "base", base))
            rows.append(row(phase, number, lane, "variant",
                            base * (1 + delta / 100)))
    return rows


GOOD = {"main_r0": 5.0, "guard_r0": 0.5, "main_r50": 1.0,
        "cross128_r90": -0.3}
STATS_BASE = {"malloc_calls": 1000, "malloc_lock_path": 100}
STATS_VARIANT = {"malloc_calls": 1000, "malloc_lock_path": 40,
                 "malloc_l0_hit": 500}


def judge(screen=GOOD, replay=GOOD, mechanism=(STATS_BASE, STATS_VARIANT),
          change=None):
    rows = made_up("screen", screen)
    if replay is not None:
        rows += made_up("replay", replay)
    if change:
        rows = change(rows)
    return verdict.overall(
        verdict.judge_phase(rows, "screen", LANES),
        verdict.judge_phase(rows, "replay", LANES) if replay is not None
        else None, verdict.judge_mechanism(*mechanism))


def spoil(phase, lane, allocator, number, **change):
    """A change of one row of a table."""
    def apply(rows):
        for r in rows:
            if (r["phase"], r["lane"], r["allocator"], r["round"]) == \
                    (phase, lane, allocator, number):
                r.update(change)
        return rows
    return apply


class Statistics(unittest.TestCase):
    def test_interval_is_by_order(self):
        self.assertEqual(verdict.interval([7, 1, 3, 2, 5, 6, 4]), (2, 6))
        self.assertEqual(verdict.interval(range(1, 12)), (3, 9))

    def test_interval_of_few_values_is_their_range(self):
        self.assertEqual(verdict.interval([3, 1]), (1, 3))
        self.assertEqual(verdict.interval([2]), (2, 2))

    def test_one_outlier_of_seven_does_not_matter(self):
        low, high = verdict.interval([4, 4.1, 4.2, 4.3, 4.4, 4.5, -90])
        self.assertGreater(low, 3.9)
        self.assertLess(high, 4.6)

    def test_mad(self):
        self.assertEqual(verdict.mad_percent([100, 90, 110, 100]), 5.0)
        self.assertEqual(verdict.mad_percent([0, 0]), 0.0)

    def test_pairs_cancel_drift(self):
        rows = made_up("screen", {"main_r0": 4.0}, waver=(0.0,))
        for delta in verdict.pair_deltas(rows, "screen", "main_r0"):
            self.assertAlmostEqual(delta, 4.0)


class Go(unittest.TestCase):
    def test_go(self):
        result = judge()
        self.assertEqual(result.verdict, verdict.GO)
        self.assertEqual(result.exit_status, 0)
        self.assertIn("main_r0 +5.00 %", result.line)

    def test_replay_needs_only_a_positive_main_r0(self):
        self.assertEqual(judge(replay={**GOOD, "main_r0": 1.0}).verdict,
                         verdict.GO)

    def test_a_guard_at_its_gate_passes(self):
        steady = made_up("screen", {**GOOD, "guard_r0": -0.99},
                         waver=(0.0,))
        self.assertEqual(
            verdict.judge_lane(steady, "screen", "guard_r0", 7).state,
            verdict.PASS)

    def test_peers_do_not_count(self):
        def crash(rows):
            return rows + [row("screen", 1, "main_r0", "peer", None,
                               "crash")]
        self.assertEqual(judge(change=crash).verdict, verdict.GO)


class NoGo(unittest.TestCase):
    def check(self, result, *words):
        self.assertEqual(result.verdict, verdict.NO_GO, result.line)
        self.assertEqual(result.exit_status, 1)
        for word in words:
            self.assertIn(word, result.line)

    def test_main_r0_below_its_gate(self):
        self.check(judge({**GOOD, "main_r0": 2.5}, None), "screen",
                   "main_r0", "+2.50 %")

    def test_main_r0_slower(self):
        self.check(judge({**GOOD, "main_r0": -4.0}, None), "main_r0")

    def test_each_other_lane_below_its_gate(self):
        for lane in verdict.GUARDS:
            with self.subTest(lane):
                self.check(judge({**GOOD, lane: -2.0}, None), "screen",
                           lane)

    def test_replay_not_positive(self):
        self.check(judge(replay={**GOOD, "main_r0": -1.5}), "replay",
                   "main_r0")

    def test_replay_of_another_lane(self):
        self.check(judge(replay={**GOOD, "main_r50": -3.0}), "replay",
                   "main_r50")

    def test_broken_runs(self):
        for status in verdict.BROKEN:
            for who in ("base", "variant"):
                with self.subTest(status=status, who=who):
                    self.check(judge(change=spoil(
                        "screen", "guard_r0", who, 3, status=status,
                        ops_per_sec=None, note="SIGABRT")), status, who,
                        "round 3")

    def test_crash_in_the_replay(self):
        self.check(judge(change=spoil("replay", "main_r50", "variant", 11,
                                      status="crash")), "replay", "crash")

    def test_a_crash_outweighs_missing_rounds(self):
        rows = [row("screen", 1, "main_r0", "base", 1e8),
                row("screen", 1, "main_r0", "variant", None, "crash")]
        phase = verdict.judge_phase(rows, "screen", LANES)
        self.check(verdict.overall(phase, None, (verdict.MISSING, "")),
                   "crash")

    def test_variant_alone_killed_for_memory(self):
        self.check(judge(change=spoil("screen", "cross128_r90", "variant",
                                      1, status="memory")), "memory")

    def test_l0_never_hit(self):
        self.check(judge(mechanism=(STATS_BASE, {
            **STATS_VARIANT, "malloc_l0_hit": 0})), "malloc_l0_hit")

    def test_lock_path_does_not_fall(self):
        for after in (100, 120):
            self.check(judge(mechanism=(STATS_BASE, {
                **STATS_VARIANT, "malloc_lock_path": after})),
                "malloc_lock_path")


class NotJudged(unittest.TestCase):
    def check(self, result, *words):
        self.assertEqual(result.verdict, verdict.UNJUDGED, result.line)
        self.assertEqual(result.exit_status, 2)
        for word in words:
            self.assertIn(word, result.line)

    @staticmethod
    def noisy(phase, lane, delta, width):
        steps = [width * x for x in (0, 1, -1, .8, -.8, .6, -.6)]
        rows = made_up(phase, GOOD)
        return [r for r in rows if r["lane"] != lane] + made_up(
            phase, {lane: delta}, waver=steps, lane_names=[lane])

    def phase(self, rows, phase="screen"):
        return verdict.overall(verdict.judge_phase(rows, phase, LANES),
                               None, (verdict.PASS, ""))

    def test_gain_inside_the_noise_is_no_go_either_way(self):
        self.check(self.phase(self.noisy("screen", "main_r0", 4.0, 9.0)),
                   "main_r0", "inside the noise")

    def test_gain_that_noise_leaves_open(self):
        self.check(self.phase(self.noisy("screen", "main_r0", 2.0, 9.0)),
                   "main_r0", "noise")

    def test_loss_inside_the_noise(self):
        self.check(self.phase(self.noisy("screen", "guard_r0", -1.5, 4.0)),
                   "guard_r0", "noise")

    def test_noise_that_would_hide_a_loss(self):
        self.check(self.phase(self.noisy("screen", "main_r50", 0.0, 20.0)),
                   "main_r50", "hide")

    def test_wide_noise_far_from_the_gate_is_no_matter(self):
        rows = self.noisy("screen", "main_r50", 60.0, 20.0)
        self.assertEqual(
            verdict.judge_lane(rows, "screen", "main_r50", 7).state,
            verdict.PASS)

    def test_narrow_noise_does_not_excuse_a_miss(self):
        rows = self.noisy("screen", "main_r0", 1.0, 1.9)
        state = verdict.judge_lane(rows, "screen", "main_r0", 7).state
        self.assertEqual(state, verdict.FAIL)

    def test_too_few_rounds(self):
        rows = made_up("screen", GOOD, runs=5)
        self.check(self.phase(rows), "5 of 7 rounds")

    def test_a_round_without_its_partner_is_no_round(self):
        rows = [r for r in made_up("screen", GOOD)
                if not (r["lane"] == "main_r0" and r["round"] == 4
                        and r["allocator"] == "base")]
        self.check(self.phase(rows), "6 of 7 rounds")

    def test_missing_lane(self):
        rows = made_up("screen", GOOD, lane_names=LANES[:3])
        result = verdict.overall(
            verdict.judge_phase(rows, "screen", LANES[:3]), None,
            (verdict.PASS, ""))
        self.check(result, "cross128_r90", "not run")

    def test_both_killed_for_memory(self):
        def change(rows):
            for who in ("base", "variant"):
                spoil("screen", "main_r50", who, 2, status="memory")(rows)
            return rows
        self.check(judge(change=change), "killed for memory")

    def test_no_rows_at_all(self):
        self.check(self.phase([]), "no complete round")

    def test_no_replay(self):
        self.check(judge(replay=None), "replay: not run")

    def test_no_stats_builds(self):
        self.check(judge(mechanism=(None, None)), "mechanism")

    def test_counters_missing(self):
        self.check(judge(mechanism=(STATS_BASE, {"malloc_calls": 5})),
                   "malloc_l0_hit")

    def test_thread_variants_are_all_needed(self):
        both = LANES + [f"{lane}/2" for lane in LANES]
        rows = made_up("screen", {**GOOD, **{
            f"{k}/2": v for k, v in GOOD.items()}}, lane_names=both)
        self.assertEqual(verdict.judge_phase(rows, "screen", both)[1],
                         verdict.PASS)
        self.assertEqual(verdict.judge_phase(
            [r for r in rows if r["lane"] != "main_r0/2"], "screen",
            both)[1], verdict.MISSING)


class Tables(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "raw.tsv")

    def test_round_trip(self):
        raw = table.RawTable(self.path)
        raw.append(row("screen", 1, "main_r0", "base", 123456789,
                       note="a\ttab\nand more"))
        back = table.RawTable(self.path).rows
        self.assertEqual(back[0]["ops_per_sec"], 123456789)
        self.assertEqual(back[0]["note"], "a tab and more")
        self.assertEqual(back[0]["round"], 1)
        self.assertIsNone(back[0]["majflt"])

    def test_a_torn_line_is_dropped_and_can_be_measured_again(self):
        raw = table.RawTable(self.path)
        raw.append(row("screen", 1, "main_r0", "base", 1))
        with open(self.path, "a", encoding="utf-8") as out:
            out.write("screen\t1\tmain_r0\t16\tvar")
        again = table.RawTable(self.path)
        self.assertEqual(len(again.rows), 1)
        again.append(row("screen", 1, "main_r0", "variant", 2))
        self.assertEqual(
            [r["allocator"] for r in table.RawTable(self.path).rows],
            ["base", "variant"])


class Parsing(unittest.TestCase):
    def test_result_line(self):
        figures = runner.result_line(
            "words\nRESULT ops_per_sec=12 wall_s=0.5 failed=0\n")
        self.assertEqual(figures, {"ops_per_sec": 12, "wall_s": 0.5,
                                   "failed": 0})
        self.assertEqual(runner.result_line("nothing"), {})

    def test_counters_leniently(self):
        text = ("# statistics\nmalloc_calls 12\n malloc_l0_hit: 3\n"
                "malloc_lock_path=4\nclass 1 of 2\nmalloc_calls 99\n"
                "version 0.1 of it\n")
        found = runner.counters(text)
        self.assertEqual(found["malloc_calls"], 12)
        self.assertEqual(found["malloc_l0_hit"], 3)
        self.assertEqual(found["malloc_lock_path"], 4)

    def test_endings(self):
        def ending(code, err="", late=False):
            return runner.Outcome(code, late, "", err, 0).ending()[0]
        self.assertIsNone(ending(0))
        self.assertEqual(ending(-6, "hz4: free(): double free"), "crash")
        self.assertEqual(ending(-9), "memory")
        self.assertEqual(ending(-9, late=True), "hang")
        self.assertEqual(ending(1), "error")
        self.assertEqual(ending(
            0, "ERROR: ld.so: object 'x' cannot be preloaded"), "notloaded")

    def run_lane(self, code, text):
        outcome = runner.Outcome(code, False, text, "", 1.0)
        with mock.patch.object(runner, "run_process", return_value=outcome):
            return runner.run_lane("bench", lanes.STANDARD["main_r0"], None,
                                   5)

    def test_failed_and_corrupted_are_told_apart(self):
        line = "RESULT ops_per_sec=1 failed={} corrupted={}\n"
        self.assertEqual(self.run_lane(1, line.format(3, 0))["status"],
                         "failed")
        self.assertEqual(self.run_lane(1, line.format(0, 2))["status"],
                         "corrupted")
        self.assertEqual(self.run_lane(0, line.format(0, 0))["status"],
                         "ok")
        self.assertEqual(self.run_lane(0, "")["status"], "error")

    def test_lanes(self):
        with mock.patch.object(lanes, "cores", return_value=2):
            ids = [x.id for x in lanes.select("main_r0,main_r0/cores")]
            self.assertEqual(ids, ["main_r0", "main_r0/2"])
            ids = [x.id for x in lanes.select(None, "16,cores")]
            self.assertEqual(len(ids), 8)
        few = lanes.select("main_r0", "2")[0]
        self.assertEqual((few.threads, few.iters), (2, 16000000))
        many = lanes.select("main_r0", "64")[0]
        self.assertEqual((many.threads, many.iters), (64, 2000000))
        for wrong in ("main_r1", "main_r0/x", "main_r0/0"):
            with self.assertRaises(ValueError):
                lanes.select(wrong)

    def test_shapes(self):
        chosen = shapes.select("own, idle:5,own:1024")
        self.assertEqual([x.id for x in chosen], ["own:1024", "idle:5"])
        self.assertEqual(chosen[1].args(), ["idle", "5"])
        self.assertEqual(len(shapes.select()), 6)
        quick = shapes.select("churn,churn:7", quick=True)
        self.assertEqual([x.id for x in quick], ["churn:500", "churn:7"])
        for wrong in ("own:", "own:0", "own:-1", "own:1x", "own:1000001",
                      "own:1:2"):
            with self.assertRaisesRegex(ValueError, "amount of a shape"):
                shapes.select(wrong)
        for wrong in ("owned", "own,", "all,own"):
            with self.assertRaisesRegex(ValueError, "unknown shape"):
                shapes.select(wrong)

    def test_lanes_with_more_steps(self):
        plain, more = lanes.select("guard_r0/2,guard_r0/2x8")
        self.assertEqual((plain.id, more.id), ("guard_r0/2", "guard_r0/2x8"))
        self.assertEqual(more.iters, 8 * plain.iters)
        self.assertEqual(len(more.args()), 8)
        self.assertEqual(more.args()[0], "2")
        self.assertEqual(verdict.family(more.id), "guard_r0")
        standard = lanes.select("main_r0/16x2,main_r0/16x1")
        self.assertEqual([x.id for x in standard],
                         ["main_r0/16x2", "main_r0"])
        self.assertEqual(standard[0].iters, 4000000)
        quick = lanes.select("main_r0/16x2", quick=True)[0]
        self.assertEqual(quick.iters, 200000)
        for wrong in ("0", "", "-1", "1.5", "8x8", "x", "1001", " 8"):
            with self.assertRaisesRegex(ValueError, "multiple of the steps"):
                lanes.select(f"main_r0/2x{wrong}")
        with self.assertRaisesRegex(ValueError, "number of threads"):
            lanes.select("main_r0/x8")


def load_script(name):
    loader = importlib.machinery.SourceFileLoader(
        f"script_{name.replace('-', '_')}", os.path.join(BENCH, name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class WholeRuns(unittest.TestCase):
    """hz4-ab from the arguments to the report, with made-up runs."""

    def setUp(self):
        self.script = load_script("hz4-ab")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.libs = {}
        for name in ("base", "variant", "base-stats", "variant-stats",
                     "bench"):
            path = os.path.join(self.folder, name)
            with open(path, "w", encoding="utf-8") as out:
                out.write(name)
            os.chmod(path, 0o755)
            self.libs[name] = path
        self.out = os.path.join(self.folder, "out, 100%")
        self.calls = 0
        self.stop_after = None
        self.deltas = dict(GOOD)
        self.broken = {}
        for target, stand_in in (
                ("run_lane", self.fake_lane), ("warm", lambda size: None),
                ("check_library", lambda bench, lib: (None, None))):
            patch = mock.patch.object(runner, target, stand_in)
            patch.start()
            self.addCleanup(patch.stop)
        # The picture has a test of its own.
        patch = mock.patch.object(picture, "bars",
                                  return_value="gnuplot is not installed")
        patch.start()
        self.addCleanup(patch.stop)

    def fake_lane(self, bench, lane, lib, timeout, extra_env=None):
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        name = os.path.basename(lib or "glibc")
        ops = 1e8 * (1 + self.calls % 3 / 1000)
        if name == "variant":
            ops *= 1 + self.deltas[lane.name] / 100
        if extra_env:
            counters = STATS_VARIANT if "variant" in name else STATS_BASE
            path = extra_env["HZ4_OPTIONS"].split("stats_file=")[1]
            with open(path, "w", encoding="utf-8") as stats:
                stats.writelines(f"{k} {v}\n" for k, v in counters.items())
        result = row("", 0, lane.id, "", ops)
        result.update(self.broken.get((lane.name, name), {}))
        return result

    def run_script(self, *args):
        said = io.StringIO()
        with mock.patch.object(sys, "argv", ["hz4-ab", *args]), \
                mock.patch.dict(os.environ), \
                contextlib.redirect_stdout(said), \
                contextlib.redirect_stderr(io.StringIO()) as self.err:
            os.environ.pop("HZ4_OPTIONS", None)
            status = self.script.main()
        return status, said.getvalue()

    def start(self, *more, stats=True):
        args = ["--bench", self.libs["bench"], "--out", self.out]
        if stats:
            args += ["--base-stats", self.libs["base-stats"],
                     "--variant-stats", self.libs["variant-stats"]]
        return self.run_script(*args, *more, self.libs["base"],
                               self.libs["variant"])

    def report(self):
        with open(os.path.join(self.out, "REPORT.md"),
                  encoding="utf-8") as text:
            return text.read()

    def test_go_with_all_outputs(self):
        status, said = self.start("--peer", "glibc")
        self.assertEqual(status, 0, said)
        self.assertIn("GO: ", said)
        # 7 rounds of 3 allocators, 2 stats runs, 11 rounds of 2, 4 lanes
        self.assertEqual(self.calls, 7 * 3 * 4 + 2 + 11 * 2 * 4)
        self.assertEqual(len(table.read(
            os.path.join(self.out, "raw.tsv"))), self.calls)
        summary = table.read(os.path.join(self.out, "summary.tsv"))
        self.assertEqual(len(summary), 8)
        self.assertAlmostEqual(summary[1]["delta_pct"], 5.0, delta=0.3)
        text = self.report()
        for words in ("**GO**", "Mechanism check: pass", "gnuplot is not",
                      "| malloc_lock_path | 100 | 40 |", "glibc"):
            self.assertIn(words, text)

    def test_order_is_interleaved(self):
        self.start()
        first = [(r["lane"], r["allocator"]) for r in table.read(
            os.path.join(self.out, "raw.tsv"))[:4]]
        self.assertEqual(first, [("guard_r0", "base"),
                                 ("guard_r0", "variant"),
                                 ("main_r0", "base"),
                                 ("main_r0", "variant")])

    def test_no_replay_after_a_failed_screen(self):
        self.deltas["main_r0"] = 1.0
        status, said = self.start()
        self.assertEqual(status, 1)
        self.assertIn("NO-GO: screen: main_r0", said)
        self.assertEqual(self.calls, 7 * 2 * 4 + 2)

    def test_a_crash_is_a_row_and_the_run_goes_on(self):
        self.broken["main_r50", "variant"] = {
            "status": "crash", "ops_per_sec": None,
            "note": "SIGSEGV", "peak_rss_kib": None}
        status, _ = self.start()
        self.assertEqual(status, 1)
        self.assertEqual(self.calls, 7 * 2 * 4 + 2)
        self.assertIn("| SIGSEGV |", self.report())

    def test_peer_that_crashes_changes_nothing(self):
        self.broken["main_r50", "glibc"] = {"status": "crash",
                                            "ops_per_sec": None}
        status, said = self.start("--peer", "glibc")
        self.assertEqual(status, 0, said)

    def test_no_stats_builds(self):
        status, said = self.start(stats=False)
        self.assertEqual(status, 2)
        self.assertIn("stats builds", said)

    def test_quick_gives_no_verdict(self):
        status, said = self.start("--quick")
        self.assertEqual(status, 0)
        self.assertIn("SMOKE RUN", said)
        self.assertEqual(self.calls, 4 * 2 + 2)
        self.assertNotIn("**GO**", self.report())

    def test_quick_with_a_crash(self):
        self.broken["guard_r0", "base"] = {"status": "crash"}
        self.assertEqual(self.start("--quick")[0], 1)

    def test_interrupted_and_resumed(self):
        whole = 7 * 2 * 4 + 2 + 11 * 2 * 4
        for stop in (0, 13, 56, 57, 100):
            with self.subTest(stop):
                self.calls, self.stop_after = 0, stop
                self.out = os.path.join(self.folder, f"out-{stop}")
                status, said = self.start()
                self.assertEqual(status, 2)
                self.assertIn(f"--resume {self.out}", said)
                self.assertIn("NOT JUDGED", self.report())
                self.assertEqual(len(table.read(os.path.join(
                    self.out, "raw.tsv"))), stop)
                self.stop_after = None
                status, said = self.run_script("--resume", self.out)
                self.assertEqual(status, 0, said)
                self.assertEqual(self.calls, whole)

    def test_resume_refuses_another_library(self):
        self.stop_after = 5
        self.start()
        with open(self.libs["variant"], "a", encoding="utf-8") as out:
            out.write("rebuilt")
        status, _ = self.run_script("--resume", self.out)
        self.assertEqual(status, 2)
        self.assertIn("changed", self.err.getvalue())

    def test_bad_usage(self):
        for args in (["--resume", self.folder], [],
                     ["--lanes", "nope", "glibc", "glibc"],
                     ["--lanes", "main_r0/2x0", "glibc", "glibc"],
                     ["--runs", "0", "glibc", "glibc"],
                     ["--threads", "many", "glibc", "glibc"],
                     ["/nonexistent/lib.so", "glibc"]):
            with self.subTest(args):
                status, _ = self.run_script("--bench", self.libs["bench"],
                                            *args)
                self.assertEqual(status, 2)
                self.assertEqual(
                    self.err.getvalue().count("\n"), 1)


class Reports(unittest.TestCase):
    def test_rss_over_live_leaves_out_the_program(self):
        rows = [row("screen", 1, "main_r0", "base", 1)]
        self.assertEqual(report.rss_over_live(rows), 1.0)
        self.assertIsNone(report.rss_over_live([]))

    def test_no_gnuplot(self):
        with mock.patch("shutil.which", return_value=None):
            self.assertEqual(picture.bars("x.svg", []),
                             "gnuplot is not installed")

    @unittest.skipUnless(shutil.which("gnuplot"), "needs gnuplot")
    def test_gnuplot(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "a 'b'.svg")
            self.assertIsNone(picture.bars(path, [
                ("title", "label", ["lane_1", "lane_2"], ["a", "b%"],
                 {("lane_1", "a"): 1.0, ("lane_2", "b%"): 2.5}, None)]))
            with open(path, encoding="utf-8") as text:
                self.assertIn("lane_2", text.read())


class Comparisons(unittest.TestCase):
    ROWS = [
        {"round": n, "lane": lane, "allocator": name, "status": "ok",
         "wall_s": wall * (1 + n / 10), "cpu_s": wall, "note": "",
         "peak_rss_kib": 1000}
        for n in (1, 2, 3)
        for lane, name, wall in (("a", "glibc", 4.0), ("a", "x", 2.0),
                                 ("a", "y", 1.0), ("b", "glibc", 1.0),
                                 ("b", "x", 2.0), ("b", "y", 1.0))]

    def test_ratios_and_means(self):
        rows = peers.per_workload(self.ROWS, ["a", "b"],
                                  ["glibc", "x", "y"])
        self.assertAlmostEqual(rows[1]["wall_to_best"], 2.0)
        self.assertAlmostEqual(rows[1]["wall_to_glibc"], 0.5)
        means = {(m["metric"], m["allocator"]): m for m in peers.means(
            self.ROWS, ["a", "b"], ["glibc", "x", "y"])}
        self.assertAlmostEqual(means["wall", "y"]["to_glibc"], 0.5)
        self.assertAlmostEqual(means["wall", "x"]["to_best"], 2.0)
        self.assertAlmostEqual(means["wall", "x"]["to_best_low"], 2.0)
        self.assertAlmostEqual(means["wall", "glibc"]["worst"], 4.0)
        self.assertAlmostEqual(means["rss", "x"]["to_glibc"], 1.0)

    def test_a_failed_workload_is_left_out_for_all(self):
        rows = [dict(r) for r in self.ROWS]
        for r in rows:
            if (r["lane"], r["allocator"]) == ("a", "x"):
                r["status"] = "crash"
        means = {(m["metric"], m["allocator"]): m for m in peers.means(
            rows, ["a", "b"], ["glibc", "x", "y"])}
        self.assertEqual(means["wall", "y"]["workloads"], 1)
        self.assertEqual(means["wall", "x"]["failed"], 1)
        self.assertEqual(means["wall", "y"]["failed"], 0)


class MadeUp(unittest.TestCase):
    """compare with made-up runs: what its tests share."""

    def setUp(self):
        self.script = load_script("compare")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.out = os.path.join(self.folder, "out")
        self.lib = os.path.join(self.folder, "libx.so")
        self.programs = os.path.join(self.folder, "programs.tsv")
        self.write(self.lib, "x")
        self.write(self.programs, "# comment\n\nlist\tls -l\n"
                   "gone\tno-such-program-at-all x\nbad\tls bad\n")
        self.calls = 0
        self.stop_after = None
        self.seen = set()  # kind of run, library, what its environment has
        patch = mock.patch.object(runner, "run_command", self.fake)
        patch.start()
        self.addCleanup(patch.stop)
        patch = mock.patch("shutil.which", lambda name, path=None: None
                           if name in ("gnuplot", "no-such-program-at-all")
                           else name)
        patch.start()
        self.addCleanup(patch.stop)

    @staticmethod
    def write(path, text):
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)

    def fake(self, measure, command, lib, timeout, cwd=None, extra_env=None):
        self.seen.add(("program", lib, str(extra_env)))
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        result = row("", 0, "", "", None, wall_s=1.0 if lib else 2.0)
        if command == "ls bad" and lib:
            result.update(status="crash", note="SIGSEGV")
        return result

    def run_script(self, *args):
        said = io.StringIO()
        with mock.patch.object(sys, "argv", [
                "compare", "--no-installed", "--lib", f"x={self.lib}",
                "--lib", "glibc", "--out", self.out, "--workloads",
                self.programs, "--rounds", "3", *args]), \
                contextlib.redirect_stdout(said), \
                contextlib.redirect_stderr(io.StringIO()) as self.err:
            status = self.script.main()
        return status, said.getvalue()


class WholeComparisons(MadeUp):
    """compare from the arguments to the report."""

    def test_tables_missing_and_failed(self):
        status, said = self.run_script()
        self.assertEqual(status, 1)
        self.assertEqual(self.calls, 3 * 2 * 2)
        self.assertIn("no-such-program-at-all is not installed", said)
        self.assertIn("bad, x, round 1: crash: SIGSEGV", said)
        means = table.read(os.path.join(self.out, "means.tsv"))
        wall = [m for m in means if m["metric"] == "wall"]
        self.assertEqual([m["workloads"] for m in wall], [1, 1])
        self.assertAlmostEqual(wall[0]["to_glibc"], 0.5)
        with open(os.path.join(self.out, "REPORT.md"),
                  encoding="utf-8") as text:
            said = text.read()
        self.assertIn("| list | **2.00 (2.00)** | 2.00 (2.00) |", said)
        self.assertIn("- bad, x: crash, crash, crash", said)
        self.assertIn("skipped: gone: no-such-program-at-all is not", said)

    def test_orders_change(self):
        names = ["a", "b", "c"]
        orders = [tuple(self.script.shuffled(names, number, workload))
                  for number in range(20) for workload in ("one", "other")]
        self.assertEqual(orders[7], tuple(self.script.shuffled(
            names, 3, "other")))
        self.assertEqual(len(set(orders)), 6)
        self.assertEqual({len(set(order)) for order in orders}, {3})

    def test_interrupted_and_resumed(self):
        self.stop_after = 5
        self.assertEqual(self.run_script()[0], 2)
        self.assertEqual(self.run_script()[0], 2)
        self.assertIn("--resume", self.err.getvalue())
        self.stop_after = None
        path = os.path.join(self.out, "results.tsv")
        with open(path, encoding="utf-8") as text:
            lines = text.read().split("\n")
        self.write(path, "\n".join(["#\tstarted\tlong ago"] + lines[1:]))
        self.assertEqual(self.run_script("--resume")[0], 1)
        self.assertEqual(self.calls, 3 * 2 * 2)
        with open(path, encoding="utf-8") as text:
            self.assertTrue(text.read().startswith("#\tstarted\tlong ago"))
        self.write(self.lib, "rebuilt")
        self.assertEqual(self.run_script("--resume")[0], 2)
        self.assertIn("other libraries", self.err.getvalue())

    def test_bad_workload_files(self):
        for text in ("name only\n", "a\tls\na\tls\n", "\tls\n"):
            self.write(self.programs, text)
            self.assertEqual(self.run_script()[0], 2)
            self.assertIn("line", self.err.getvalue())

    def test_workloads_are_not_called_as_lanes_or_shapes(self):
        self.write(self.programs, "main_r0\tls\n")
        self.assertEqual(self.run_script("--lanes", "main_r0")[0], 2)
        self.assertIn("main_r0 is a workload and", self.err.getvalue())


class Shapes(MadeUp):
    """The shapes of compare, with made-up figures of the program."""

    def setUp(self):
        super().setUp()
        self.write(self.programs, "list\tls -l\n")
        bench = os.path.join(self.folder, runner.SHAPES_PROGRAM)
        self.write(bench, "")
        os.chmod(bench, 0o755)
        self.endings = {}
        self.printed = "before=10 peak={} a_thread=-0.5\n"
        self.started = []
        patch = mock.patch.object(runner, "run_process", self.process)
        patch.start()
        self.addCleanup(patch.stop)

    def process(self, argv, env, timeout, cwd=None):
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        mine = "x" if env.get("LD_PRELOAD") == self.lib else "glibc"
        self.seen.add((os.path.basename(argv[0]), mine, env.get("ONE")))
        self.started.append((mine, *argv[1:]))
        number = self.started.count(self.started[-1])
        code = self.endings.get((mine, number), 0)
        said = self.printed.format((7, 300, 100)[number - 1])
        return runner.Outcome(code, code == -9, "" if code else said, "",
                              1.0)

    def run_shapes(self, names, *args):
        return self.run_script("--bench", self.folder, "--shapes", names,
                               *args)

    def kept(self):
        return {(r["shape"], r["allocator"], r["figure"]): r
                for r in table.read(os.path.join(self.out, "shapes.tsv"))}

    def test_figures_have_tables_of_their_own(self):
        status, said = self.run_shapes("own:4,idle")
        self.assertEqual(status, 0, said)
        self.assertEqual(
            [sorted(self.started[i:i + 2]) for i in (0, 2)],
            [[("glibc", "own", "4"), ("x", "own", "4")],
             [("glibc", "idle", "1000"), ("x", "idle", "1000")]])
        peak = self.kept()["own:4", "x", "peak"]
        self.assertEqual([peak[k] for k in ("runs", "ok", "median", "low",
                                            "high")], [3, 3, 100, 7, 300])
        self.assertAlmostEqual(peak["mad_pct"], 93)
        with open(os.path.join(self.out, "results.tsv"),
                  encoding="utf-8") as text:
            self.assertIn("\nmemory\town:4\t0\tx\tunknown\t2\tpeak\t300"
                          "\tKiB\n", text.read())
        self.assertRegex(said, r"What is kept, idle:1000\n.*a_thread\n"
                         r"x  +3 of 3 +10 +100 \(7 \.\. 300\) +-0\.5\n")

    def test_shapes_are_no_part_of_ratios_and_means(self):
        self.run_shapes("own:4")
        for name, count in (("summary.tsv", 2), ("means.tsv", 6)):
            rows = table.read(os.path.join(self.out, name))
            self.assertEqual(len(rows), count)
        self.assertEqual({r["workloads"] for r in rows}, {1})

    def test_shapes_that_fail_are_rows(self):
        self.endings = {("x", 2): -11, ("glibc", 1): -9, ("glibc", 2): 3,
                        ("glibc", 3): -6}
        status, said = self.run_shapes("own:4")
        self.assertEqual(status, 1)
        for problem in ("x, round 2: crash: SIGSEGV",
                        "glibc, round 1: hang: no end",
                        "glibc, round 2: error: exit status 3",
                        "glibc, round 3: crash: SIGABRT"):
            self.assertIn(f"own:4, {problem}", said)
        self.assertRegex(said, r"\nx +2 of 3 +10 +53\.5 \(7 \.\. 100\)")
        self.assertRegex(said, r"\nglibc +0 of 3 +- +- +-\n")
        self.assertIn(("own:4", "glibc", ""), self.kept())

    def test_a_shape_without_figures_is_a_failure(self):
        self.printed = "nothing to say\n"
        status, said = self.run_shapes("own:4")
        self.assertEqual(status, 1)
        self.assertIn("own:4, x, round 1: error: no figures", said)

    def test_a_variable_of_one_allocator(self):
        bench = os.path.join(self.folder, probes.LATENCY_PROGRAM)
        self.write(bench, "")
        os.chmod(bench, 0o755)
        self.printed = " ".join(
            f"{call}_{part}=1" for call in ("malloc", "touched", "free")
            for part in ("p50", "p99", "p99.9", "p99.99", "over200us",
                         "switched"))
        spawned = set()
        posix_spawn = os.posix_spawn

        def spawn(path, argv, env, **how):
            if how:  # since 3.13 subprocess calls it, too
                return posix_spawn(path, argv, env, **how)
            spawned.add((env.get("LD_PRELOAD"), env.get("ONE")))
            return os.spawnv(os.P_NOWAIT, path, argv)

        with mock.patch.object(os, "posix_spawn", spawn):
            status, said = self.run_shapes(
                "idle", "--env", "x=ONE=a=b", "--latency", "plain/1",
                "--startup", "true", "--quick")
        self.assertEqual(status, 0, said)
        self.assertEqual(
            {s for s in self.seen if s[0] != "program"},
            {(program, *what) for program in (
                runner.SHAPES_PROGRAM, probes.LATENCY_PROGRAM, "true")
             for what in (("x", "a=b"), ("glibc", None))})
        self.assertEqual(
            {s for s in self.seen if s[0] == "program"},
            {("program", self.lib, "{'ONE': 'a=b'}"),
             ("program", None, "None")})
        self.assertEqual(spawned, {(self.lib, "a=b"), (None, None)})
        with open(os.path.join(self.out, "results.tsv"),
                  encoding="utf-8") as text:
            self.assertIn("#\tenvironment of x\tONE=a=b\n", text.read())
        for specs in (["y=ONE=1"], ["x=ONE"], ["x==1"], ["x"],
                      ["x=LD_PRELOAD=1"], ["x=ONE=1", "x=ONE=2"]):
            with self.subTest(specs):
                self.assertEqual(self.run_shapes("idle", *(
                    word for spec in specs
                    for word in ("--env", spec)))[0], 2)
                self.assertIn(f"compare: --env {specs[-1]}: ",
                              self.err.getvalue())

    def test_figures_survive_an_interrupt(self):
        self.stop_after = 7
        self.assertEqual(self.run_shapes("own:4")[0], 2)
        self.stop_after = None
        self.assertEqual(self.run_shapes("own:4", "--resume")[0], 0)
        self.assertEqual(self.calls, 3 * 2 * 2)
        self.assertEqual(self.kept()["own:4", "x", "peak"]["high"], 300)
        self.assertEqual(self.run_shapes("own:5", "--resume")[0], 2)
        self.assertIn("other libraries, lanes, shapes",
                      self.err.getvalue())

    def test_shapes_alone(self):
        self.write(self.programs, "# none\n")
        status, said = self.run_shapes("churn:9")
        self.assertEqual(status, 0)
        self.assertNotIn("Geometric means", said)
        self.assertIn("What is kept, churn:9", said)

    def test_bad_shapes(self):
        for names in ("own:0", "nope", "own:1,", "none,own"):
            with self.subTest(names):
                self.assertEqual(self.run_shapes(names)[0], 2)
                self.assertRegex(self.err.getvalue(),
                                 r"^compare: .*shape.*\n$")
        os.remove(os.path.join(self.folder, runner.SHAPES_PROGRAM))
        self.assertEqual(self.run_shapes("own:1")[0], 2)
        self.assertRegex(self.err.getvalue(), "^compare: cannot find the "
                         "program bench_shapes .*\n$")
        self.assertEqual(self.calls, 0)
        self.assertFalse(os.path.exists(self.out))

    def test_what_is_run_by_default(self):
        for args, found in (
                ([], (4, 6)), (["--lanes", "main_r0"], (1, 0)),
                (["--shapes", "own"], (0, 1)),
                (["--shapes", "none"], (0, 0)),
                (["--lanes", "all", "--shapes", "all"], (4, 6))):
            args = self.script.parser().parse_args(["--threads", "16",
                                                    *args])
            self.assertEqual(tuple(map(len, self.script.chosen(args, {}))),
                             found)
        self.assertEqual(self.script.chosen(args, {"a": "ls"})[1],
                         shapes.select())
        args = self.script.parser().parse_args([])
        self.assertEqual(self.script.chosen(args, {"a": "ls"}), [[], []])


class Probes(MadeUp):
    """Latency, start-up, servers and the peers' versions."""

    def setUp(self):
        super().setUp()
        self.write(self.programs, "list\tls -l\n")
        bench = os.path.join(self.folder, probes.LATENCY_PROGRAM)
        self.write(bench, "")
        os.chmod(bench, 0o755)
        self.said = " ".join(
            f"{call}_{part}={i}"
            for call in ("malloc", "touched", "free")
            for i, part in enumerate(
                ("p50", "p99", "p99.9", "p99.99", "p99.999", "longest",
                 "over200us", "switched"), 1)).replace("switched=8",
                                                       "switched=3")
        patch = mock.patch.object(runner, "measured", self.measured)
        patch.start()
        self.addCleanup(patch.stop)

    def measured(self, measure, argv, lib, timeout, cwd=None,
                 extra_env=None):
        self.argv = argv
        return {"status": "ok", "note": "", "peak_rss_kib": 7}, self.said

    def results(self):
        with open(os.path.join(self.out, "results.tsv"),
                  encoding="utf-8") as text:
            return text.read()

    def test_latency(self):
        status, said = self.run_script(
            "--bench", self.folder, "--latency", "other/2", "--rounds", "1")
        self.assertEqual(status, 0, said)
        self.assertEqual(self.argv[1:], ["other", "2", "1000000"])
        for line in ("malloc_p99.9\t3\tns", "free_p99.99\t4\tns",
                     "touched_p99.9\t3\tns", "touched_slow\t4\tcalls",
                     "malloc_slow\t4\tcalls"):
            self.assertIn("latency\tother/2\t2\tx\tunknown\t1\t" + line,
                          self.results())

    def test_startup(self):
        with mock.patch.object(runner, "environment",
                               lambda lib, extra: dict(os.environ)):
            status, said = self.run_script("--startup", "true", "--quick")
        self.assertEqual(status, 0, said)
        self.assertRegex(self.results(),
                         r"startup\ttrue\t1\tx\tunknown\t1\tstart\t[0-9.]+"
                         r"\tus\n.*\tpeak_rss\t7\tKiB\n")

    def test_a_server_that_is_missing(self):
        with mock.patch.object(servers.KNOWN["redis"], "programs",
                               ("ls", "no-such-program-at-all")):
            status, said = self.run_script("--servers", "redis")
        self.assertEqual(status, 1)
        self.assertIn("redis: the program no-such-program-at-all is not "
                      "installed", said)

    def test_a_server_for_one_allocator_alone(self):
        path = os.path.join(self.folder, "a-server")
        for inside, found in (("\0mallocx_of_ours\0free\0", None),
                              ("\0free\0mallocx\0",
                               "a-server without mallocx")):
            self.write(path, inside)
            os.chmod(path, 0o755)
            with mock.patch.object(servers.KNOWN["redis"], "programs",
                                   ("a-server",)), \
                    mock.patch("shutil.which", lambda name, path: os.path.join(
                        self.folder, name)):
                self.assertEqual(servers.missing("redis"), found)

    def test_versions_that_are_given(self):
        other = os.path.join(self.folder, "liby.so")
        self.write(other, "y")
        self.assertEqual(self.run_script(
            "--peer", f"y=1.2-3={other}", "--rounds", "1")[0], 0)
        self.assertIn("programs\tlist\t0\ty\t1.2-3\t1\tcpu\t2\ts\n",
                      self.results())
        for spec in ("y", "y=1", "y=1=", "=1=" + other, "x=1=" + other):
            with self.subTest(spec):
                self.assertEqual(self.run_script("--peer", spec)[0], 2)
                self.assertIn("give NAME=VERSION=PATH", self.err.getvalue())

    def test_names(self):
        for option, names in (("--latency", "flat/1"),
                              ("--latency", "plain/0"),
                              ("--startup", "false"), ("--servers", "x")):
            with self.subTest(names):
                self.assertEqual(self.run_script(option, names)[0], 2)
                self.assertRegex(self.err.getvalue(), "^compare: .*\n$")

    def test_a_part_of_the_steps(self):
        whole, part = lanes.select("main_r50/16,main_r50/16x1/4")
        self.assertEqual((part.id, part.iters),
                         ("main_r50/16x1/4", whole.iters // 4))
        with self.assertRaises(ValueError):
            lanes.select("main_r50/16x1/0")


ANSWERING = """
import os, signal, socket, sys
listening = socket.socket(socket.AF_UNIX)
listening.bind("socket")
listening.listen()
link = listening.accept()[0]
for word in link.makefile():
    if word == "die\\n":
        os.kill(os.getpid(), signal.SIGKILL)
    link.sendall((os.environ.get(word.strip(), "none") + "\\n").encode())
"""


class Answering(server.Server):
    """Tells what its environment has."""

    programs = (sys.executable,)

    def __init__(self, fault=None):
        self.fault = fault
        self.calls = []
        self.answers = []

    def prepare(self, amount):
        self.calls.append("prepare")

    def command(self, folder):
        self.folder = folder
        return [sys.executable, "-S", "-c",
                "" if self.fault == "ends" else ANSWERING]

    def connect(self, folder, timeout):
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(timeout)
        link.connect(os.path.join(folder, "socket"))
        self.calls.append("connect")
        return link

    def say(self, link, word):
        link.sendall(word.encode() + b"\n")
        said = link.recv(1000).decode()
        if not said:
            raise OSError("no answer")
        self.answers.append(said.strip())

    def warm_up(self, link):
        self.calls.append("warm_up")

    def load(self, link, amount):
        self.calls.append("load")
        if self.fault == "hangs":
            raise TimeoutError("too late")
        if self.fault == "client":
            server.client(["sh", "-c", "echo one; echo two >&2; exit 3"], 9)
        for word in ("LD_PRELOAD", "ONE"):
            self.say(link, "die" if self.fault == "dies" else word)
        return 2 * amount

    def shrink(self, link, amount):
        self.calls.append("shrink")

    def ask(self, link):
        self.say(link, "PATH")
        self.calls.append("ask")

    def check(self, link, amount):
        self.calls.append("check")
        if self.fault == "check":
            raise OSError("not all is there")


class OneServer(unittest.TestCase):
    """The run of a server, with one that only talks."""

    def setUp(self):
        patch = mock.patch.object(server, "REST", 0.03)
        patch.start()
        self.addCleanup(patch.stop)

    def row(self, fault=None):
        self.server = Answering(fault)
        return server.run(self.server, 10, "libc.so.6", 20, {"ONE": "a b"})

    def test_what_is_called_and_measured(self):
        row = self.row()
        self.assertEqual((row["status"], row["note"]), ("ok", ""))
        found = table.pairs(row["figures"])
        self.assertEqual(list(found), ["requests_per_sec", "cpu",
                                       "filled_rss", "after_rss", "peak_rss"])
        self.assertGreater(found["after_rss"], 1000)
        self.assertGreaterEqual(found["peak_rss"], found["after_rss"])
        self.assertEqual(list(dict.fromkeys(self.server.calls)), [
            "prepare", "connect", "warm_up", "load", "shrink", "ask",
            "check"])
        self.assertEqual(self.server.answers[:2], ["libc.so.6", "a b"])
        self.assertFalse(os.path.exists(self.server.folder))

    def test_what_goes_wrong(self):
        for fault, status, note in (
                ("ends", "error", "No such file"),
                ("dies", "crash", "SIGKILL"), ("hangs", "hang", "too late"),
                ("client", "error", "sh: one"),
                ("check", "error", "not all is there")):
            with self.subTest(fault):
                row = self.row(fault)
                self.assertEqual(row["status"], status)
                self.assertIn(note, row["note"])
                self.assertNotIn("figures", row)

    def test_clients_run_without_the_allocator(self):
        with mock.patch.dict(os.environ, {"LD_PRELOAD": "libc.so.6"}):
            self.assertEqual(server.client(
                ["sh", "-c", "echo ${LD_PRELOAD-none}"], 9), "none\n")
        with self.assertRaises(TimeoutError):
            server.client(["sleep", "9"], 0.05)


if __name__ == "__main__":
    unittest.main()
