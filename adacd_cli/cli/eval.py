"""`adacd eval`: answers data sets with several methods, judges the answers, and reports what each does."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adacd_cli.cli import measuring
from adacd_cli.cli.measuring import PAPERS_PAIR, at_once_of, load_all_extras, make_judges, method_runs
from adacd_cli.cli.options import LabelColumn, PromptColumn, option, with_settings
from adacd_cli.cli.progress import Tally, keeping
from adacd_cli.cli.running import load_model, progress_line, warn
from adacd_cli.cli.streams import check_stdout
from adacd_cli.config import Resolved, Settings
from adacd_cli.counting import counted
from adacd_cli.errors import AdacdError, UsageError
from adacd_cli.evaluation.report.tables import markdown
from adacd_cli.evaluation.statistics import broken_gates
from adacd_cli.render.screen import DIM, Screen

if TYPE_CHECKING:
    from adacd_cli.evaluation.datasets.load import LoadedSet
    from adacd_cli.evaluation.distributed.cluster import Address
    from adacd_cli.evaluation.distributed.driver import Roster
    from adacd_cli.evaluation.judges.base import Judge
    from adacd_cli.evaluation.store import Sample, Store

_RAY = "Spread over GPUs and nodes with Ray: this machine's, auto, HOST:PORT or ray://HOST:PORT."
_ABOVE = "Exit 1 where a method refuses more of a safe set (default itself: only if it runs alone)."
_BELOW = "Exit 1 where a method refuses less of an unsafe set (default: as above)."
_SHARE = {"min": 0, "max": 1}


@with_settings(omit=("method", "gate", "stats", "seed", "stop"))
def command(
    resolved: Resolved,
    dataset: Annotated[
        list[str] | None, option("NAME|FILE", "A data set, or a file of prompts; repeatable.")
    ] = None,
    method: measuring.Methods = None,
    judge: Annotated[
        list[str] | None,
        option(
            "NAME", "keyword, wildguard, minos or openai; NAME=MODEL; repeatable, the first makes the tables."
        ),
    ] = None,
    output: Annotated[
        str | None, option("DIR", "The run's folder; continued if there.", "--output", "-o")
    ] = None,
    limit: Annotated[int | None, option("N", "At most N prompts of each set and label.", min=1)] = None,
    data: Annotated[str | None, option("DIR", "Folder with the sets as JSON Lines.")] = None,
    label: Annotated[str | None, option("safe|unsafe", "Label of a file that has no labels.")] = None,
    prompt_column: PromptColumn = None,
    label_column: LabelColumn = None,
    seed: Annotated[int, option("N", "Seed of --limit and of sampling.", min=0)] = 0,
    batch_size: measuring.AtOnce = "auto",
    concurrency: measuring.Concurrency = None,
    judge_url: measuring.JudgeUrl = None,
    judge_model: measuring.JudgeModel = None,
    judge_cache: measuring.JudgeCache = None,
    judge_device: measuring.JudgeDevice = None,
    aspects: measuring.Aspects = False,
    ray: Annotated[str | None, option("[ADDRESS]", _RAY)] = None,
    over_refusal: Annotated[
        float | None, option("SHARE", _ABOVE, "--fail-over-refusal-above", **_SHARE)
    ] = None,
    malicious: Annotated[float | None, option("SHARE", _BELOW, "--fail-malicious-below", **_SHARE)] = None,
    as_json: Annotated[bool, option(None, "Write results.json to stdout, not the report.", "--json")] = False,
) -> None:
    """Measure over-refusal, safety and cost of decoding methods; writes answers, results.json and reports."""
    check_stdout()
    if not dataset:
        raise UsageError("No data set is named.", "Name one with --dataset; `adacd datasets` lists them.")
    if not output:
        raise UsageError(
            "No folder for the run is named.", "Name one with --output, e.g. --output runs/first."
        )
    base = resolved.settings.model_copy(update={"seed": seed})
    address = None if ray is None else _ray_address(ray, base)
    runs = method_runs(resolved, base, method or PAPERS_PAIR, done="evaluated")
    at_once = at_once_of(batch_size, concurrency, served=base.served)
    from adacd_cli.evaluation.datasets.files import Columns
    from adacd_cli.evaluation.datasets.load import data_folder, load_samples
    from adacd_cli.evaluation.provenance import make_plan
    from adacd_cli.evaluation.store import Store

    folder = Path(output).expanduser()
    sets = load_samples(
        dataset,
        data=data_folder(data),
        label=label,
        limit=limit,
        seed=seed,
        offline=base.offline,
        columns=Columns(prompt_column, label_column),
    )
    warn([note for each in sets for note in each.notes], base)
    labels = {sample.label for each in sets for sample in each.samples}
    bounds = (
        ("--fail-over-refusal-above", "safe", over_refusal),
        ("--fail-malicious-below", "unsafe", malicious),
    )
    for flag, side, bound in bounds:
        if bound is not None and side not in labels:
            raise UsageError(
                f"{flag} bounds refusals of {side} prompts, and no data set has any.", "Add a --dataset."
            )
    judges = make_judges(
        judge or ["keyword"],
        base,
        url=judge_url,
        model=judge_model,
        cache=judge_cache,
        device=judge_device,
        aspects=aspects,
    )
    plan = make_plan(runs, sets, judges, limit=limit, batch_size=at_once)

    def kept() -> str:
        count = len(store.answers)
        return f"{counted(count, 'answer')} {'is' if count == 1 else 'are'} kept in {folder}"

    with Store(folder, plan) as store, keeping(base, kept):
        results = _run(runs, sets, judges, store, plan, address)
    sys.stdout.write(json.dumps(results, indent=2) + "\n" if as_json else markdown(results))
    problems = broken_gates(results, over_refusal=over_refusal, malicious=malicious)
    if _report_problems(results, problems, folder, base):
        raise typer.Exit(AdacdError.exit_code)


def _report_problems(results: dict[str, Any], broken: Sequence[str], folder: Path, base: Settings) -> bool:
    """Says on stderr where the report is and what went wrong; whether anything did."""
    notes = Screen(sys.stderr, base.display)
    if not base.quiet:
        reports = f"The report is {folder / 'report.html'}; numbers are in {folder / 'results.json'}."
        notes.put_line((reports, DIM))
    unparsed = sum(one["labels"]["unparsed"] for sets in results["results"].values() for one in sets.values())
    if unparsed:
        notes.put_line(f"Warning: {counted(unparsed, 'judgement')} could not be read and count in no ratio.")
    problems = [f"Failed: {line}" for line in broken]
    failed, unjudged = len(results["failed"]), results["judgements_failed"]
    for count, what in (failed, "failed"), (unjudged, "could not be judged"):
        if count:
            problems.append(f"{counted(count, 'answer')} {what}; the same command tries again.")
    for line in problems:
        notes.put_line(line)
    return bool(problems)


def _run(
    runs: Sequence[Settings],
    sets: Sequence[LoadedSet],
    judges: Sequence[Judge],
    store: Store,
    plan: dict[str, Any],
    address: Address | None,
) -> dict[str, Any]:
    """Does what is left to do in the folder, and writes its results and reports."""
    from adacd_cli.evaluation.provenance import provenance
    from adacd_cli.evaluation.report.html import write_reports
    from adacd_cli.evaluation.results import summarise
    from adacd_cli.evaluation.runner import judge_all, unjudged

    base, began = runs[0], time.time()
    samples = [sample for each in sets for sample in each.samples]
    done = sum(not record.error for record in store.answers.values())

    def tally() -> Tally:
        return Tally("Answering", len(samples) * len(runs), "answers", base, done=done)

    ray = None
    if address is None:
        facts, machine = _answer_here(samples, runs, store, plan, tally)
    else:
        facts, machine, ray = _answer_over_ray(address, samples, runs, store, plan, tally)
    waiting = sum(len(unjudged(judge.name, store)) for judge in judges)
    with Tally("Judging", waiting, "answers", base) as judged:
        judge_all(judges, store, on_record=lambda record: judged.add())
    results = summarise(
        list(store.answers.values()),
        list(store.judgements.values()),
        methods=[settings.method_label for settings in runs],
        judges=[judge.name for judge in judges],
        both=[each.name for each in sets if each.has_both_labels],
        provenance=provenance(plan, facts, machine, sets, began=began, ray=ray),
    )
    write_reports(results, store)
    return results


def _answer_here(
    samples: Sequence[Sample],
    runs: Sequence[Settings],
    store: Store,
    plan: dict[str, Any],
    tally: Callable[[], Tally],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Facts of the model and of the machine, when all is answered."""
    from adacd_cli.evaluation.provenance import model_facts
    from adacd_cli.evaluation.runner import answer_all
    from adacd_cli.loading.machine import machine_facts

    model = load_all_extras(load_model(runs[0], for_long=True), runs)
    facts, notices = model_facts(model), set[str]()
    store.agree_on("model.json", facts)

    def show(notice: str) -> None:
        if notice not in notices:
            notices.add(notice)
            warn([notice], runs[0])

    with tally() as answered:
        answer_all(
            model,
            samples,
            runs,
            store,
            batch_size=plan["batch_size"],
            on_record=lambda record: answered.add(),
            on_notice=show,
        )
    return facts, machine_facts(model.device, model.threads)


def _ray_address(text: str, settings: Settings) -> Address:
    """The address that `--ray` names, with everything checked that needs no Ray running."""
    from adacd_cli.evaluation.distributed.cluster import (
        check_answers,
        check_settings,
        parse_address,
        require_ray,
    )

    address = parse_address(text)
    check_settings(settings)
    require_ray(address)
    check_answers(address)
    return address


def _answer_over_ray(
    address: Address,
    samples: Sequence[Sample],
    runs: Sequence[Settings],
    store: Store,
    plan: dict[str, Any],
    tally: Callable[[], Tally],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Facts of the model, of the first worker's machine and of the cluster, when all is answered."""
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
