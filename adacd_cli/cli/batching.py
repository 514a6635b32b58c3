"""`--batch-size N|auto`: how many prompts are decoded at once."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from adacd_cli.errors import UsageError

BatchSize = int | Literal["auto"]

BatchSizeOption = Annotated[
    str,
    typer.Option(
        "--batch-size",
        metavar="N|auto",
        help="Prompts decoded at once; auto is as many as memory has room for.",
    ),
]


def batch_size_of(text: str) -> BatchSize:
    """The option's value.

    Raises:
        UsageError: it is neither `auto` nor a whole number of at least 1.
    """
    if text == "auto":
        return "auto"
    if text.isascii() and text.isdecimal() and int(text) >= 1:
        return int(text)
    raise UsageError(
        f"--batch-size takes a whole number, at least 1, or auto; got {text!r}.",
        "Try --batch-size auto, or a smaller number where memory runs out.",
    )
