"""The page at `/` and its files, which lie in the package's folder `page`; nothing comes from elsewhere."""

from __future__ import annotations

import mimetypes
from importlib.resources import files

from starlette.responses import Response

from adacd_cli.server.errors import ApiError

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_KINDS = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


def page_file(name: str) -> Response:
    """A file of the page.

    Args:
        name: its name in the folder, without a path.

    Raises:
        ApiError: 404.
    """
    folder = files("adacd_cli.server") / "page"
    known = {each.name: each for each in folder.iterdir() if each.is_file()} if folder.is_dir() else {}
    if name not in known or name.startswith((".", "__")):
        raise ApiError(404, "There is no such file.", code="unknown_route")
    kind = _KINDS.get(name[name.rfind(".") :]) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(known[name].read_bytes(), media_type=kind, headers=HEADERS)
