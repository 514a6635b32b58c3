"""`eval --ray`: the option, and answering over a Ray cluster with progress on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adacd_cli.cli.running import progress_line, warn

if TYPE_CHECKING:
    from adacd_cli.cli.progress import Tally
    from adacd_cli.config import Settings
    from adacd_cli.evaluation.distributed.address import Address
    from adacd_cli.evaluation.distributed.driver import Roster
    from adacd_cli.evaluation.records import Sample
    from adacd_cli.evaluation.store import Store

RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Spread over GPUs and nodes with Ray: this machine's, auto, HOST:PORT or ray://HOST:PORT.",
    ),
]


def ray_address(text: str, settings: Settings) -> Address:
    """The address that `--ray` names, with everything checked that needs no Ray running.

    Raises:
        UsageError: it is no address, or a setting is at odds with Ray.
        MissingExtraError: Ray is not installed.
        EnvironmentFault: nothing answers there.
    """
    from adacd_cli.evaluation.distributed.address import check_answers, parse_address
    from adacd_cli.evaluation.distributed.cluster import check_settings, require_ray

    address = parse_address(text)
    check_settings(settings)
    require_ray(address)
    check_answers(address)
    return address


def answer_over_ray(
    address: Address,
    samples: Sequence[Sample],
    runs: Sequence[Settings],
    store: Store,
    plan: Mapping[str, Any],
    tally: Callable[[], Tally],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Facts of the model, of the first worker's machine and of the cluster, when all is answered.

    Args:
        tally: makes the counter, once the first worker has its model.

    Raises:
        EnvironmentFault: the cluster cannot be joined or used, or a worker cannot answer.
        OutputError: an answer cannot be written.
    """
    from adacd_cli.evaluation.distributed.cluster import joined, ray_muted
    from adacd_cli.evaluation.distributed.driver import answer_distributed
    from adacd_cli.evaluation.distributed.workers import sender

    base = runs[0]
    with ray_muted(), ExitStack() as shown:
        progress = shown.enter_context(progress_line(base))
        progress("Joining Ray" if address.host else "Starting Ray")
        counters: list[Tally] = []

        def on_worker(roster: Roster, warnings: list[str]) -> None:
            if not counters:
                store.agree_on("model.json", roster.facts)
                shown.close()  # a terminal shows one moving thing at a time
                counters.append(shown.enter_context(tally()))
            warn(warnings, base)

        with joined(address, base) as cluster:
            many = f"{cluster.slots} workers" if cluster.slots > 1 else "1 worker"
            progress(f"Waiting for {many} to load the model")
            roster = answer_distributed(
                sender(cluster, runs),
                samples,
                runs,
                store,
                batch_size=plan["batch_size"],
                on_worker=on_worker,
                on_record=lambda record: counters[0].add(),
            )
            return roster.facts, roster.machine, roster.report(cluster)
