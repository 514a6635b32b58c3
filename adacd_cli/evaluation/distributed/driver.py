"""The driver and the workers of a run over Ray. A piece is a batch of samples with every method that has still to
answer them, so that the methods are timed on one machine; each worker loads the model once. Ray restarts a lost
worker and repeats its piece: an answer that comes back twice is dropped, one that never does is asked for again,
and recorded as failed if that does not help. Ray Data does not run in a process outside the cluster, so behind
`ray://` an actor inside runs it. A worker never raises, because Ray would turn that into eighty lines."""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adacd_cli import __version__
from adacd_cli.answers import BatchSize
from adacd_cli.config import Settings
from adacd_cli.errors import AdacdError, EnvironmentFault, OutOfMemoryError, error_named, first_line
from adacd_cli.evaluation.datasets.files import Sample
from adacd_cli.evaluation.distributed.cluster import Cluster
from adacd_cli.evaluation.runner import Job, Runner, batches, next_batch
from adacd_cli.evaluation.store import AnswerRecord, Store, model_facts

Key = tuple[str, str, str]  # method, data set and id

AUTO = 64  # samples in a piece where each worker decides how many it decodes at once
# how often a piece is sent again after its worker was lost: the piece itself may be what kills it
RETRIES = 10


@dataclass(frozen=True, slots=True)
class Piece:
    """Work for one worker: for each method, by its index among the runs, the indices of the samples it has to
    answer, and the number of the batch that its records get."""

    samples: tuple[Sample, ...]
    methods: tuple[tuple[int, tuple[int, ...]], ...]
    batch_size: BatchSize = "auto"
    batch: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What a worker sends back: facts about it, see `workers`, answers of one method to samples of a piece, and
    class, message and hint of the error that keeps it from answering, if one does."""

    worker: dict[str, Any]
    records: tuple[AnswerRecord, ...] = ()
    error: dict[str, str] | None = None


Send = Callable[[Sequence[Piece]], Iterator[Result]]


def missing(samples: Sequence[Sample], runs: Sequence[Settings], store: Store) -> set[Key]:
    """Keys of the answers that the store lacks or holds as failed."""
    pairs = ((settings.method_label, sample) for sample in samples for settings in runs)
    return {(label, each.dataset, each.id) for label, each in pairs if store.lacks(label, each)}


def pieces(
    samples: Sequence[Sample],
    runs: Sequence[Settings],
    wanted: Collection[Key],
    *,
    batch_size: BatchSize,
    first: int = 1,
) -> list[Piece]:
    """The wanted answers in batches, numbered from FIRST, the longest first: short ones even out the end."""
    cut: list[Piece] = []
    for batch in reversed(batches(samples, AUTO if batch_size == "auto" else batch_size)):
        methods = [
            (run, tuple(i for i, one in enumerate(batch) if (label, one.dataset, one.id) in wanted))
            for run, label in enumerate(settings.method_label for settings in runs)
        ]
        if methods := [each for each in methods if each[1]]:
            number = first + len(cut)
            in_turn = tuple(methods if number % 2 else methods[::-1])
            cut.append(Piece(tuple(batch), in_turn, batch_size, number))
    return cut


class Roster:
    """The workers that have reported, and the check that they are alike. `facts` are the model's, as
    `provenance.model_facts`, and `machine` where the first one runs; {} before the first report."""

    def __init__(self) -> None:
        self.facts, self.machine, self._first = dict[str, Any](), dict[str, Any](), dict[str, Any]()
        self._machines, self._workers, self._warned = dict[str, Any](), set[str](), set[str]()

    def meet(self, result: Result) -> list[str]:
        """Takes note of the worker; gives its warnings that are new. Its own error where it cannot answer;
        EnvironmentFault where it is not like the others."""
        worker = result.worker
        if result.error is not None:
            message = f"On node {worker['node']}: {result.error['message']}"
            raise error_named(result.error["kind"], message, result.error["hint"])
        own = {"adacd": worker["adacd"], **worker["versions"], **worker["model"]}
        if not self._first:
            self._first, self.facts, self.machine = worker | own, worker["model"], worker["machine"]
        for name, value in own.items():
            if value != self._first[name]:
                one = f"{self._first[name]} on node {self._first['node']}"
                what = f"The workers differ: {name} is {one} and {value} on node {worker['node']}."
                hint = "Install the same versions and model on every node, or fix --dtype and --revision."
                raise EnvironmentFault(what, hint)
        self._machines[worker["node_id"]] = worker["machine"]
        self._workers.add(worker["id"])
        new = [warning for warning in worker["warnings"] if warning not in self._warned]
        self._warned.update(new)
        return new

    def report(self, cluster: Cluster) -> dict[str, Any]:
        """The entry `ray` of a run's provenance: the nodes and workers that answered, and what each had."""
        from importlib.metadata import version

        return {
            "ray": version("ray"),
            "nodes": len(self._machines),
            "workers": len(self._workers),
            "cpus_a_worker": cluster.cpus,
            "gpus_a_worker": cluster.gpus,
            "machines": list(self._machines.values()),
        }


def answer_distributed(
    send: Send,
    samples: Sequence[Sample],
    runs: Sequence[Settings],
    store: Store,
    *,
    batch_size: BatchSize,
    on_worker: Callable[[Roster, list[str]], None] = lambda roster, warnings: None,
    on_record: Callable[[AnswerRecord], None] = lambda record: None,
) -> Roster:
    """Has whatever the store does not hold yet, or holds as failed, answered by the workers; see
    `runner.answer_all`. SEND, which `sender` makes, sends pieces and yields results as they come; `on_worker` is
    called before the answers of a result are written, with the worker's new warnings. AdacdError where a worker
    cannot answer, or is not like the others."""
    roster, tried = Roster(), set[Key]()
    left = wanted = missing(samples, runs, store)

    def keep(record: AnswerRecord) -> None:
        if record.key in wanted and record.key not in tried:
            store.add(record)
            tried.add(record.key)
            on_record(record)

    while True:
        # a worker reports on the model even where nothing is left to answer
        work = pieces(samples, runs, left, batch_size=batch_size, first=next_batch(store))
        for result in send(work or [Piece((), ())]):
            on_worker(roster, roster.meet(result))
            for record in result.records:
                keep(record)
        before, left = left, wanted - tried
        if left == before:
            error = f"its worker was lost {RETRIES + 1} times"
            by_key = {(sample.dataset, sample.id): sample for sample in samples}
            for method, dataset, id in sorted(left):
                keep(AnswerRecord.of(method, by_key[dataset, id], error=error))
        if wanted == tried:
            return roster


def sender(cluster: Cluster, runs: Sequence[Settings]) -> Send:
    """What sends pieces to the workers of the cluster, one model each."""
    device = "cpu" if not cluster.gpus and runs[0].device == "auto" else runs[0].device
    # as many threads as Ray counts for it, or the workers of one machine would slow each other down
    update = {"threads": cluster.cpus, "device": device}
    own, folder = [settings.model_copy(update=update) for settings in runs], os.getcwd()

    def send(work: Sequence[Piece]) -> Iterator[Result]:
        pickled = [pickle.dumps(piece) for piece in work]
        results = (_relayed if cluster.address.from_outside else answer)(cluster, own, folder, pickled)
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
        hint = "Install adacd in this version on every node, with the extra ray."
        return EnvironmentFault(f"A node of the Ray cluster lacks a package: {absent}.", hint)
    hint = "Finished answers are kept; Ray's logs are under /tmp/ray on the nodes."
    return EnvironmentFault(f"Ray failed: {lines[0] if lines else type(error).__name__}.", hint)


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
    def __init__(self, *given: Any) -> None:
        self._results = answer(*given)

    def following(self) -> bytes | None:
        return next(self._results, None)


def _relayed(*given: Any) -> Iterator[bytes]:
    """Runs `answer` inside the cluster, which hands its results out, one a call."""
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

        context, self._runs = ray.get_runtime_context(), runs
        self._error: dict[str, str] | None = None
        self._facts: dict[str, Any] = {"id": context.get_actor_id(), "node_id": context.get_node_id()}
        self._facts |= {"node": ray.util.get_node_ip_address(), "adacd": __version__}
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
            if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
                error = OutOfMemoryError("Out of memory.", "")
            if not isinstance(error, AdacdError):
                what = f"{type(error).__name__}: {first_line(error).rstrip('.')}"
                error = AdacdError(f"The model could not be loaded: {what}.", "")
            self._error = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[dict[str, list[bytes]]]:
        for piece in map(pickle.loads, batch["piece"]):
            yield from ({"result": [pickle.dumps(result)]} for result in self._results(piece))

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
