"""The perf bundle: counts and profiles of base and variant, lane by lane."""

import os
import shutil

from ab import runner

EVENTS = ("task-clock,context-switches,cpu-migrations,page-faults,cycles,"
          "instructions,branches,branch-misses,cache-references,"
          "cache-misses")


def bundle(folder, bench, lanes, libraries, timeout):
    """Fill FOLDER/perf; returns a sentence for the report.

    env sets LD_PRELOAD, so that perf itself runs without the allocator.
    What the machine does not support is said, and ends nothing.
    """
    program = shutil.which("perf")
    if not program:
        return "perf is not installed: no bundle."
    target = os.path.join(folder, "perf")
    os.makedirs(target, exist_ok=True)
    problems = []
    made = 0
    for lane in lanes:
        for name, lib in libraries.items():
            stem = os.path.join(target,
                                f"{lane.id.replace('/', '-')}-{name}")
            run = ["env"] + ([f"LD_PRELOAD={lib}"] if lib else []) \
                + [bench] + lane.args()
            jobs = (
                [program, "stat", "-e", EVENTS, "-o", f"{stem}.stat.txt",
                 "--"] + run,
                [program, "record", "-q", "-g", "-F", "499", "-o",
                 f"{stem}.data", "--"] + run,
                ["/bin/sh", "-c", 'exec "$0" report --stdio --no-children '
                 '-g none -i "$1" >"$2" 2>/dev/null', program,
                 f"{stem}.data", f"{stem}.report.txt"])
            for job in jobs:
                outcome = runner.run_process(
                    job, runner.environment(None), timeout)
                status, note = outcome.ending()
                if status:
                    problems.append(f"{lane.id} {name}, perf "
                                    f"{job[1]}: {note}")
                    break
                made += 1
    text = f"{made} files in `perf/`: counts (`.stat.txt`), profiles " \
           "(`.data`) and their text (`.report.txt`)."
    if problems:
        text += f" {len(problems)} did not work, first: {problems[0]}."
    return text
