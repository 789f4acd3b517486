"""The shapes of bench_shapes and their amounts."""

from typing import NamedTuple

from ab import lanes


class Shape(NamedTuple):
    """The two arguments of the program."""

    name: str
    amount: int

    @property
    def id(self):
        """The name in tables: `own:1024`."""
        return f"{self.name}:{self.amount}"

    def args(self):
        return [self.name, str(self.amount)]


STANDARD = {
    shape.name: shape for shape in (
        Shape("own", 1024), Shape("other", 1024), Shape("onlyfree", 4096),
        Shape("idle", 1000), Shape("churn", 10000), Shape("phases", 256),
    )
}

MOST = 1000000
QUICK_DIVISOR = 20


def select(names=None, quick=False):
    """Shapes for `--shapes NAMES`, each once, in order.

    A name may carry its own amount (`own:64`).  A quick run takes a
    twentieth of those that do not.
    """
    chosen = []
    for entry in (names.split(",") if names else STANDARD):
        name, own, amount = entry.strip().partition(":")
        if name not in STANDARD:
            raise ValueError(f"unknown shape \"{name}\": the shapes are "
                             + ", ".join(STANDARD))
        shape = STANDARD[name]
        if own:
            shape = shape._replace(
                amount=lanes.number("amount of a shape", amount, MOST))
        elif quick:
            shape = shape._replace(amount=shape.amount // QUICK_DIVISOR)
        if shape not in chosen:
            chosen.append(shape)
    return chosen
