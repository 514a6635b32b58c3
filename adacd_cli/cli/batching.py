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
ConcurrencyOption = Annotated[
    int | None,
    typer.Option(
        "--concurrency",
        metavar="N",
        min=1,
        help="With a model at a server: answers asked for at once, in place of --batch-size.",
    ),
]


def at_once_of(batch_size: str, concurrency: int | None, *, served: bool) -> BatchSize:
    """How many prompts are answered at once, by whichever of the two options is given.

    Raises:
        UsageError: both are, or the model is no server's, or --batch-size cannot be read.
    """
    if concurrency is None:
        return batch_size_of(batch_size)
    if not served:
        raise UsageError(
            "--concurrency is for a model at a server.", "Use --batch-size for one that is here."
        )
    if batch_size != "auto":
        raise UsageError("--batch-size and --concurrency say the same.", "Leave one of them out.")
    return concurrency


def batch_size_of(text: str) -> BatchSize:
    """The option's value; UsageError where it is neither `auto` nor a whole number of at least 1."""
    if text == "auto":
        return "auto"
    if text.isascii() and text.isdecimal() and int(text) >= 1:
        return int(text)
    raise UsageError(
        f"--batch-size takes a whole number, at least 1, or auto; got {text!r}.",
        "Try --batch-size auto, or a smaller number where memory runs out.",
    )
