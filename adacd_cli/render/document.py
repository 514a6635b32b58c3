"""One HTML document from a template, a style, a script and data: a file that needs nothing else. Its content
security policy allows its own style and script only, by hash. Data is a JSON element whose `<` is escaped, and
every text of a model or a user is escaped, so none of it becomes markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

from adacd_cli.render.safe import printable


def document(package: str, name: str, parts: Mapping[str, str]) -> str:
    """The whole document, from NAME.html, NAME.css and NAME.js of the package's folder `page`; PARTS is the HTML
    that replaces `@@key@@` in the template, besides style, script and their hashes."""
    style, script = (_part(package, f"{name}.{suffix}") for suffix in ("css", "js"))
    own = {"style": style, "script": script, "style_hash": _hash(style), "script_hash": _hash(script)}
    values = {**parts, **own}
    # one pass, so that a text of the model that looks like a placeholder stays a text
    return re.sub("@@([a-z_]+)@@", lambda match: values[match[1]], _part(package, f"{name}.html"))


def as_html(text: str) -> str:
    """Text as HTML, also inside an attribute; a lone surrogate, which UTF-8 cannot carry, is escaped."""
    return escape(printable(text.encode("utf-8", "backslashreplace").decode("utf-8")))


def as_json(value: Any) -> str:
    """JSON that ends no script element: ASCII only, and no `<`, `>` or `&`."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _part(package: str, name: str) -> str:
    return (files(package) / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
