"""What is written to be opened elsewhere: an HTML document that needs nothing else, and matplotlib's pictures, the
same for the same numbers. A document's content security policy allows its own style and script only, by hash; data
is JSON whose `<` is escaped, and so is every text of a model or a user."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from adacd_cli.render.screen import printable

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


def document(package: str, name: str, parts: Mapping[str, str]) -> str:
    """The document of NAME.html, .css and .js in the package's `page`; PARTS is HTML in place of `@@key@@`."""
    style, script = (_part(package, f"{name}.{suffix}") for suffix in ("css", "js"))
    own = {"style": style, "script": script, "style_hash": _hash(style), "script_hash": _hash(script)}
    values = {**parts, **own}
    # one pass, so that a text of the model that looks like a placeholder stays a text
    return re.sub("@@([a-z_]+)@@", lambda match: values[match[1]], _part(package, f"{name}.html"))


def as_html(text: str) -> str:
    """Text as HTML, also inside an attribute; lone surrogates are escaped."""
    return escape(printable(text.encode("utf-8", "backslashreplace").decode("utf-8")))


def as_json(value: Any) -> str:
    """JSON that ends no script element: ASCII only, and no `<`, `>` or `&`."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _part(package: str, name: str) -> str:
    return (files(package) / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


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
