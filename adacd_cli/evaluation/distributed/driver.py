"""Cuts what is left of an evaluation into pieces, sends them to the workers and keeps each answer once. A piece is
a batch of samples with every method that has still to answer them, so that the methods are timed on one machine.
Ray restarts a lost worker and repeats its piece: an answer that comes back twice is dropped, one that never comes
back is sent out again, and recorded as failed if that does not help either."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from adacd_cli.errors import EnvironmentFault, error_named
from adacd_cli.evaluation.runner import batches, next_batch
from adacd_cli.evaluation.store import AnswerRecord, Sample

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.evaluation.distributed.cluster import Cluster
    from adacd_cli.evaluation.store import Store

Key = tuple[str, str, str]  # method, data set and id

AUTO = 64
"""Samples in a piece where each worker decides how many it decodes at once."""

RETRIES = 10
"""How often a piece is sent again after its worker was lost: the piece itself may be what kills it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Work for one worker: for each method, by its index among the runs, the indices of the samples it has to
    answer, and the number of the batch that its records get."""

    samples: tuple[Sample, ...]
    methods: tuple[tuple[int, tuple[int, ...]], ...]
    batch_size: int | Literal["auto"] = "auto"
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
    batch_size: int | Literal["auto"],
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
        self._machines = dict[str, dict[str, Any]]()
        self._workers, self._warned = set[str](), set[str]()

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
                raise EnvironmentFault(
                    f"The workers differ: {name} is {self._first[name]} on node {self._first['node']} "
                    f"and {value} on node {worker['node']}.",
                    "Install the same versions and model on every node, or fix --dtype and --revision.",
                )
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
    batch_size: int | Literal["auto"],
    on_worker: Callable[[Roster, list[str]], None] = lambda roster, warnings: None,
    on_record: Callable[[AnswerRecord], None] = lambda record: None,
) -> Roster:
    """Has whatever the store does not hold yet, or holds as failed, answered by the workers; see
    `runner.answer_all`. SEND, which `workers.sender` makes, sends pieces and yields results as they come;
    `on_worker` is called before the answers of a result are written, with the worker's new warnings. AdacdError
    where a worker cannot answer, or is not like the others."""
    roster, tried = Roster(), set[Key]()
    wanted = missing(samples, runs, store)

    def keep(record: AnswerRecord) -> None:
        if record.key in wanted and record.key not in tried:
            store.add(record)
            tried.add(record.key)
            on_record(record)

    # a worker reports on the model even where nothing is left to answer
    work = pieces(samples, runs, wanted, batch_size=batch_size, first=next_batch(store)) or [Piece((), ())]
    while work:
        before = len(tried)
        for result in send(work):
            on_worker(roster, roster.meet(result))
            for record in result.records:
                keep(record)
        left = wanted - tried
        if left and len(tried) == before:
            error = f"its worker was lost {RETRIES + 1} times"
            by_key = {(sample.dataset, sample.id): sample for sample in samples}
            for method, dataset, id in sorted(left):
                keep(AnswerRecord.of(method, by_key[dataset, id], error=error))
            break
        work = pieces(samples, runs, left, batch_size=batch_size, first=next_batch(store))
    return roster
