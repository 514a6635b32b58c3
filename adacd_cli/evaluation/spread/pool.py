"""The pool of workers: pieces go in, results come out as they are ready. All that knows Ray Data is here.

Ray Data does not run in a process that is outside the cluster, so behind `ray://` an actor inside runs it.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from adacd_cli.errors import EnvironmentFault
from adacd_cli.evaluation.spread.cluster import Cluster
from adacd_cli.evaluation.spread.drive import Send
from adacd_cli.evaluation.spread.work import RETRIES, Piece, Result

if TYPE_CHECKING:
    from adacd_cli.config import Settings


def sender(cluster: Cluster, runs: Sequence[Settings]) -> Send:
    """What gives pieces to the workers of the cluster, one model each.

    Args:
        cluster: joined for as long as results are taken.
        runs: the settings of each method.
    """
    device = "cpu" if not cluster.gpus and runs[0].device == "auto" else runs[0].device
    # as many threads as Ray counts for it, or workers of one machine would be in each other's way
    update = {"threads": cluster.cpus, "device": device}
    own, folder = [settings.model_copy(update=update) for settings in runs], os.getcwd()

    def send(work: Sequence[Piece]) -> Iterator[Result]:
        lines = [piece.to_json() for piece in work]
        results = (_relayed if cluster.from_outside else answer)(cluster, own, folder, lines)
        while True:
            try:
                line = next(results, None)
            except Exception as error:  # workers send their own errors as results: this is Ray's
                raise _given_up(error) from error
            if line is None:
                return
            yield Result.from_json(line)

    return send


def _given_up(error: Exception) -> EnvironmentFault:
    said = [line for line in str(error).splitlines() if line.strip()]
    absent = next((line for line in said if "No module named" in line), "")
    if absent:
        return EnvironmentFault(
            f"A node of the Ray cluster lacks a package: {absent.strip().rstrip('.')}.",
            "Install adacd in this version on every node, with the extra ray.",
        )
    reason = said[0].strip().rstrip(".:") if said else type(error).__name__
    return EnvironmentFault(
        f"Ray gave up: {reason}.", "What was answered is kept; its logs are under /tmp/ray on the nodes."
    )


def answer(cluster: Cluster, runs: Sequence[Settings], folder: str, work: Sequence[str]) -> Iterator[str]:
    """Results as JSON, in the order in which they come; for a process inside the cluster."""
    import ray.data

    from adacd_cli.evaluation.spread.worker import Worker

    _tame()
    most = min(cluster.slots, len(work))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray 2.60 calls max_task_retries deprecated and has nothing else
        results = ray.data.from_items(
            [{"piece": line} for line in work], override_num_blocks=len(work)
        ).map_batches(
            Worker,
            batch_size=1,
            fn_constructor_args=(list(runs), folder),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most),
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus or None,
            max_task_retries=RETRIES,  # workers themselves are started again without end
        )
    for batch in results.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy"):
        for line in batch["result"]:
            yield str(line)


def _tame() -> None:
    """Each result on its own as soon as it is there; a lost piece is no end; nothing is drawn or said."""
    import ray.data

    logging.getLogger("ray").setLevel(logging.CRITICAL)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 1
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False


class _Relay:
    """Runs `answer` inside the cluster and hands its results out, one a call."""

    def __init__(self, cluster: Cluster, runs: Sequence[Settings], folder: str, work: Sequence[str]) -> None:
        self._results = answer(cluster, runs, folder, work)

    def following(self) -> str | None:
        """The next result; None after the last."""
        return next(self._results, None)


def _relayed(cluster: Cluster, runs: Sequence[Settings], folder: str, work: Sequence[str]) -> Iterator[str]:
    import ray

    relay = ray.remote(num_cpus=0)(_Relay).remote(cluster, list(runs), folder, list(work))
    try:
        while (line := ray.get(relay.following.remote())) is not None:
            yield line
    finally:
        ray.kill(relay)
