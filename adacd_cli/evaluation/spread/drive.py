"""Sends pieces to the workers and writes each answer down as it comes, once.

Ray starts a lost worker again, elsewhere if need be, and repeats its piece. What still comes back twice is
known by its key and dropped; what never comes back is sent out again, and recorded as failed where that
brings nothing either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from adacd_cli import errors
from adacd_cli.errors import AdacdError, EnvironmentFault
from adacd_cli.evaluation.records import AnswerRecord
from adacd_cli.evaluation.sample import Sample
from adacd_cli.evaluation.spread.work import RETRIES, Key, Piece, Result, missing, pieces

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.evaluation.spread.cluster import Cluster
    from adacd_cli.evaluation.store import Store

Send = Callable[[Sequence[Piece]], Iterator[Result]]


class Roster:
    """The workers that have reported, and that they are alike.

    Attributes:
        facts: of the model, as `provenance.model_facts`; {} before the first report.
        machine: where the first one runs, as `provenance.machine`.
    """

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.machine: dict[str, Any] = {}
        self._first: dict[str, Any] = {}
        self._machines: dict[str, dict[str, Any]] = {}
        self._workers: set[str] = set()
        self._warned: set[str] = set()

    def meet(self, result: Result) -> list[str]:
        """Takes note of the worker; its warnings that are new.

        Raises:
            AdacdError: it cannot answer, in the words and with the exit code of its own error.
            EnvironmentFault: it is not like the others.
        """
        worker = result.worker
        if result.fault is not None:
            named = getattr(errors, result.fault["kind"], None)
            kind = named if isinstance(named, type) and issubclass(named, AdacdError) else AdacdError
            raise kind(f"On node {worker['node']}: {result.fault['message']}", result.fault["hint"])
        own = {"adacd": worker["adacd"], **worker["versions"], **worker["model"]}
        if not self._first:
            self._first, self.facts, self.machine = worker | own, worker["model"], worker["machine"]
        for name, value in own.items():
            if value != self._first[name]:
                raise EnvironmentFault(
                    f"The workers differ: {name} is {self._first[name]} on node {self._first['node']} "
                    f"and {value} on node {worker['node']}.",
                    "Give every node the same versions and model; --dtype and --revision settle theirs.",
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


def answer_spread(
    send: Send,
    samples: Sequence[Sample],
    runs: Sequence[Settings],
    store: Store,
    *,
    batch_size: int | Literal["auto"],
    met: Callable[[Roster, list[str]], None] = lambda roster, new: None,
    told: Callable[[AnswerRecord], None] = lambda record: None,
) -> Roster:
    """Has whatever the store does not hold yet, or holds as failed, answered by the workers.

    Args:
        send: gives pieces out and the results as they come; `pool.sender` makes it.
        samples, runs, store: as `runner.answer_all` takes them.
        batch_size: samples of a piece; "auto" leaves how many are decoded at once to each worker.
        met: called before the answers of a result are written, with the worker's new warnings.
        told: called with each new record.

    Raises:
        AdacdError: a worker cannot answer, or is not like the others.
        OutputError: an answer cannot be written.
        KeyboardInterrupt: what was finished is in the store.
    """
    roster, tried = Roster(), set[Key]()
    wanted = missing(samples, runs, store)
    # a worker reports on the model even where nothing is left to answer
    work = pieces(samples, runs, wanted, batch_size=batch_size) or [Piece((), ())]
    while work:
        before = len(tried)
        for result in send(work):
            met(roster, roster.meet(result))
            for record in result.records:
                if record.key in wanted and record.key not in tried:
                    store.add_answer(record)
                    tried.add(record.key)
                    told(record)
        left = missing(samples, runs, store, tried) & wanted
        if left and len(tried) == before:
            _give_up(left, samples, store, told)
            break
        work = pieces(samples, runs, left, batch_size=batch_size)
    return roster


def _give_up(
    left: set[Key],
    samples: Sequence[Sample],
    store: Store,
    told: Callable[[AnswerRecord], None],
) -> None:
    known = {(sample.dataset, sample.id): sample for sample in samples}
    for method, dataset, name in sorted(left):
        reason = f"its worker was lost {RETRIES + 1} times"
        record = AnswerRecord.of(method, known[dataset, name], error=reason)
        store.add_answer(record)
        told(record)
