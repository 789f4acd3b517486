"""The standard lanes and their variants by number of threads."""

import os
from typing import NamedTuple


class Lane(NamedTuple):
    """The arguments of the lane program, under a name.

    `times` is what the steps were multiplied with, as text ("8", "1/4");
    `take` how many objects a receiver frees in a step, 0 for all that wait.
    """

    name: str
    threads: int
    iters: int
    slots: int
    low: int
    high: int
    remote: int
    ring: int
    times: str = "1"
    take: int = 4

    @property
    def id(self):
        """The name in tables: `main_r0`, or `main_r0/2` with 2 threads.

        With a multiple of the steps `main_r0/2x8`.
        """
        if self.times != "1":
            return f"{self.name}/{self.threads}x{self.times}"
        if self.threads == STANDARD[self.name].threads:
            return self.name
        return f"{self.name}/{self.threads}"

    def args(self):
        return [str(value) for value in (*self[1:8], self.take)]

    def memory_guess(self):
        """Bytes the lane might touch, for the first warm-up of a lane.

        The working sets are half full of objects of mean size.  What lies
        in the rings depends on the scheduler; a sixteenth of their size is
        about what 16 threads on 2 cores come to.
        """
        mean = (self.low + self.high) // 2
        held = self.threads * self.slots * mean // 2
        if self.remote and self.threads > 1:
            sent = self.iters // 2 * self.remote // 100
            held += self.threads * min(self.ring // 16, sent) * mean
        return held


STANDARD = {
    lane.name: lane for lane in (
        Lane("guard_r0", 16, 2000000, 400, 16, 2048, 0, 65536),
        Lane("main_r0", 16, 2000000, 400, 16, 32768, 0, 65536),
        Lane("main_r50", 16, 2000000, 400, 16, 32768, 50, 65536),
        Lane("cross128_r90", 16, 600000, 400, 16, 131072, 90, 65536),
        Lane("main_r50_bursts", 16, 2000000, 400, 16, 32768, 50, 65536,
             take=0),
        Lane("cross128_r90_bursts", 16, 600000, 400, 16, 131072, 90, 65536,
             take=0),
    )
}

# What is run where nobody asks for lanes by name, and what is judged.
USUAL = [name for name, lane in STANDARD.items() if lane.take]

QUICK_DIVISOR = 20
MOST_TIMES = 1000


def with_threads(lane, count):
    """A lane with another number of threads.

    Fewer threads make as many steps together as the lane's own: what one
    per core needs for two million steps each is over in some 20 ms, most
    of it start-up.
    """
    scale = max(1, -(-lane.threads // count))
    return lane._replace(threads=count, iters=lane.iters * scale)


def cores():
    """The CPUs this process may use."""
    return len(os.sched_getaffinity(0))


def number(what, text, most, otherwise=""):
    """A number of an argument from 1 on."""
    value = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= value <= most:
        raise ValueError(f"{what} \"{text}\": give a number in 1..{most}"
                         f"{otherwise}")
    return value


def _threads(text):
    if text == "cores":
        return cores()
    return number("number of threads", text, 4096, " or the word cores")


def select(names=None, threads=None, quick=False):
    """Lanes for `--lanes NAMES --threads LIST`, each once, in order.

    A name may carry its own number of threads (`main_r0/cores`), and with
    it a multiple of the steps, or a part (`main_r0/2x8`, `main_r50/16x1/4`);
    the others are taken once for every entry of the list.
    """
    chosen = []
    counts = [_threads(part.strip()) for part in threads.split(",")] \
        if threads else [None]
    for entry in (names.split(",") if names else USUAL):
        name, _, own = entry.strip().partition("/")
        if name not in STANDARD:
            raise ValueError(f"unknown lane \"{name}\": the lanes are "
                             + ", ".join(STANDARD))
        own, multiplied, times = own.partition("x")
        part = times.startswith("1/")
        share = number("multiple of the steps", times[2:] if part else times,
                       MOST_TIMES) if multiplied else 1
        for count in ([_threads(own)] if own or multiplied else counts):
            lane = STANDARD[name]
            if count is not None:
                lane = with_threads(lane, count)
            lane = lane._replace(
                iters=max(1, lane.iters // share) if part
                else lane.iters * share,
                times=f"1/{share}" if part and share > 1 else str(share))
            if quick:
                lane = lane._replace(iters=lane.iters // QUICK_DIVISOR)
            if lane not in chosen:
                chosen.append(lane)
    return chosen
