"""Pictures by matplotlib that are the same for the same numbers, whatever the user's matplotlibrc says."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#444444", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b08000", "#3a8fc4", "#8c564b", "#000000")
MARKERS = "osD^vPX<>"

_OPTIONS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "adacd",
    "text.parse_math": False,  # a name with two dollars is a name
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@contextmanager
def drawn(width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches, to be drawn and saved inside the block."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that its own font lacks
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_OPTIONS)
        yield Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, target: Path | IO[str], kind: str = "svg") -> None:
    """Writes the figure as svg or png, without the date."""
    figure.savefig(target, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)


def label(name: str, longest: int = 60) -> str:
    """The name with its middle cut out where it is long, and without what XML cannot hold."""
    clean = "".join(letter if letter.isprintable() else "�" for letter in name)
    return clean if len(clean) <= longest else f"{clean[: longest * 2 // 3]}…{clean[-(longest // 3 - 1) :]}"
