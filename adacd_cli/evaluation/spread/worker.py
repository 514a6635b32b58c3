"""A worker: loads the model once, then answers the pieces it is sent. Runs in a process that Ray started.

It never lets an error out: Ray would turn it into eighty lines. What goes wrong travels as a `Result`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adacd_cli import __version__
from adacd_cli.errors import AdacdError, OutOfMemoryError
from adacd_cli.evaluation.provenance import model_facts
from adacd_cli.evaluation.runner import answer_batch, places_for
from adacd_cli.evaluation.spread.work import Piece, Result

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine import LanguageModel


class Worker:
    """For `map_batches`: takes pieces and gives results, one for each method of a piece.

    Args:
        runs: the settings of each method.
        folder: the driver's working folder, where relative paths of models begin if it is here, too.
    """

    def __init__(self, runs: Sequence[Settings], folder: str) -> None:
        self._runs = runs
        self._facts: dict[str, Any] = {**_identity(), "adacd": __version__}
        self._fault: dict[str, str] | None = None
        try:
            if os.path.isdir(folder):
                os.chdir(folder)
            self._model = _load(runs)
            self._facts |= _facts(self._model)
        except Exception as error:
            self._fault = _fault(error)

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[dict[str, list[str]]]:
        """A batch is `{"piece": [JSON, …]}`; each value given back is `{"result": [JSON]}`."""
        for line in batch["piece"]:
            if self._fault is not None:
                yield _row(Result(self._facts, fault=self._fault))
                continue
            piece = Piece.from_json(str(line))
            if not piece.asked:
                yield _row(Result(self._facts))
            for run, places in piece.asked:
                samples = [piece.samples[place] for place in places]
                # whole at a time: after a loss Ray repeats the piece and counts the results it has had
                settings = self._runs[run]
                at_once = places_for(self._model, samples, [settings], piece.at_once)
                records = tuple(answer_batch(self._model, samples, settings, places=at_once))
                yield _row(Result(self._facts, records))


def _row(result: Result) -> dict[str, list[str]]:
    return {"result": [result.to_json()]}


def _load(runs: Sequence[Settings]) -> LanguageModel:
    from adacd_cli.loading import load, load_extras

    model = load(runs[0], for_long=True)
    for settings in runs:
        model = load_extras(model, settings)
    return model


def _facts(model: LanguageModel) -> dict[str, Any]:
    from adacd_cli.loading.facts import machine, package_versions

    return {
        "model": model_facts(model),
        "versions": package_versions(),
        "machine": machine(model.device),
        "warnings": list(model.warnings),
    }


def _fault(error: Exception) -> dict[str, str]:
    if isinstance(error, AdacdError):
        return {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
    first_line = next(iter(str(error).splitlines()), "").rstrip(".")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return {"kind": OutOfMemoryError.__name__, "message": "Out of memory.", "hint": ""}
    return {
        "kind": AdacdError.__name__,
        "message": f"The model could not be loaded: {type(error).__name__}: {first_line}.",
        "hint": "",
    }


def _identity() -> dict[str, str]:
    import ray

    context = ray.get_runtime_context()
    return {
        "id": context.get_actor_id(),
        "node": ray.util.get_node_ip_address(),
        "node_id": context.get_node_id(),
    }
