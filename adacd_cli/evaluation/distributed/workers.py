"""The workers: each loads the model once and answers the pieces it is sent. All use of Ray Data is here. Ray Data
does not run in a process that is outside the cluster, so behind `ray://` an actor inside runs it. A worker never
raises, because Ray would turn that into eighty lines: its errors travel as a `Result`."""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adacd_cli import __version__
from adacd_cli.errors import AdacdError, EnvironmentFault, OutOfMemoryError, first_line
from adacd_cli.evaluation.distributed.cluster import Cluster
from adacd_cli.evaluation.distributed.driver import RETRIES, Piece, Result, Send
from adacd_cli.evaluation.runner import Job, Runner
from adacd_cli.evaluation.store import model_facts

if TYPE_CHECKING:
    from adacd_cli.config import Settings


def sender(cluster: Cluster, runs: Sequence[Settings]) -> Send:
    """What sends pieces to the workers of the cluster, one model each."""
    device = "cpu" if not cluster.gpus and runs[0].device == "auto" else runs[0].device
    # as many threads as Ray counts for it, or the workers of one machine would slow each other down
    update = {"threads": cluster.cpus, "device": device}
    own, folder = [settings.model_copy(update=update) for settings in runs], os.getcwd()

    def send(work: Sequence[Piece]) -> Iterator[Result]:
        pickled = [pickle.dumps(piece) for piece in work]
        results = (_relayed if cluster.from_outside else answer)(cluster, own, folder, pickled)
        while True:
            try:
                result = next(results, None)
            except Exception as error:  # workers send their own errors as results: this is Ray's
                raise _ray_error(error) from error
            if result is None:
                return
            yield pickle.loads(result)

    return send


def _ray_error(error: Exception) -> EnvironmentFault:
    lines = [line.strip().rstrip(".:") for line in str(error).splitlines() if line.strip()]
    if absent := next((line for line in lines if "No module named" in line), ""):
        return EnvironmentFault(
            f"A node of the Ray cluster lacks a package: {absent}.",
            "Install adacd in this version on every node, with the extra ray.",
        )
    return EnvironmentFault(
        f"Ray failed: {lines[0] if lines else type(error).__name__}.",
        "Finished answers are kept; Ray's logs are under /tmp/ray on the nodes.",
    )


def answer(cluster: Cluster, runs: Sequence[Settings], folder: str, work: Sequence[bytes]) -> Iterator[bytes]:
    """Pickled results, because a prompt may hold what Arrow's strings refuse, in the order in which they come; for
    a process inside the cluster."""
    import ray.data

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 1  # each result on its own as soon as it is there
    context.max_errored_blocks = -1  # a lost piece does not end the run
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    most = min(cluster.slots, len(work))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray 2.60 calls max_task_retries deprecated and has nothing else
        results = ray.data.from_items(
            [{"piece": piece} for piece in work], override_num_blocks=len(work)
        ).map_batches(
            Worker,
            batch_size=1,
            fn_constructor_args=(list(runs), folder),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most),
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus or None,
            max_task_retries=RETRIES,  # workers themselves are restarted without limit
        )
    for batch in results.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy"):
        yield from map(bytes, batch["result"])


class _Relay:
    """Runs `answer` inside the cluster and hands its results out, one a call."""

    def __init__(self, *given: Any) -> None:
        self._results = answer(*given)

    def following(self) -> bytes | None:
        return next(self._results, None)


def _relayed(*given: Any) -> Iterator[bytes]:
    import ray

    relay = ray.remote(num_cpus=0)(_Relay).remote(*given)
    try:
        while (result := ray.get(relay.following.remote())) is not None:
            yield result
    finally:
        ray.kill(relay)


class Worker:
    """For `map_batches`: takes pieces and gives results, one for each method of a piece. Relative paths of models
    begin in the driver's working folder, if it exists here, too."""

    def __init__(self, runs: Sequence[Settings], folder: str) -> None:
        import ray

        from adacd_cli.loading import load, load_extras
        from adacd_cli.loading.machine import machine_facts, package_versions

        context = ray.get_runtime_context()
        self._runs = runs
        self._error: dict[str, str] | None = None
        self._facts: dict[str, Any] = {
            "id": context.get_actor_id(),
            "node": ray.util.get_node_ip_address(),
            "node_id": context.get_node_id(),
            "adacd": __version__,
        }
        try:
            if os.path.isdir(folder):
                os.chdir(folder)
            model = load(runs[0], for_long=True)
            for settings in runs:
                model = load_extras(model, settings)
            self._runner = Runner(model)
            self._facts |= {
                "model": model_facts(model),
                "versions": package_versions(),
                "machine": machine_facts(model.device, model.threads),
                "warnings": list(model.warnings),
            }
        except Exception as error:
            self._error = _as_values(error)

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[dict[str, list[bytes]]]:
        """A batch is `{"piece": [bytes, …]}`; each value given back is `{"result": [bytes]}`."""
        for piece in batch["piece"]:
            for result in self._results(pickle.loads(piece)):
                yield {"result": [pickle.dumps(result)]}

    def _results(self, piece: Piece) -> Iterator[Result]:
        if self._error is not None or not piece.methods:
            yield Result(self._facts, error=self._error)
            return
        for run, indices in piece.methods:
            settings, samples = self._runs[run], [piece.samples[index] for index in indices]
            self._runner.limit(samples, [settings], piece.batch_size)
            jobs = [Job(sample, settings) for sample in samples]
            # all of them at once: after a loss Ray repeats the piece and skips the results it has had
            yield Result(self._facts, tuple(self._runner.records(jobs, batch=piece.batch)))


def _as_values(error: Exception) -> dict[str, str]:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        error = OutOfMemoryError("Out of memory.", "")
    if not isinstance(error, AdacdError):
        reason = first_line(error).rstrip(".")
        error = AdacdError(f"The model could not be loaded: {type(error).__name__}: {reason}.", "")
    return {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
