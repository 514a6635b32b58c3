"""`adacd eval`: answers data sets with several methods, judges the answers, and reports what each does."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adacd_cli.cli.batching import BatchSizeOption, ConcurrencyOption, at_once_of
from adacd_cli.cli.judging import (
    AspectsOption,
    JudgeCacheOption,
    JudgeDeviceOption,
    JudgeModelOption,
    JudgeUrlOption,
    make_judges,
)
from adacd_cli.cli.methods import PAPERS_PAIR, MethodsOption, load_all_extras, method_runs
from adacd_cli.cli.options import with_settings
from adacd_cli.cli.outputs import check_stdout
from adacd_cli.cli.progress import Tally, keeping
from adacd_cli.cli.ray_options import RayOption, answer_over_ray, ray_address
from adacd_cli.cli.running import load_model, warn
from adacd_cli.config import Resolved, Settings
from adacd_cli.counting import counted
from adacd_cli.errors import AdacdError, UsageError
from adacd_cli.evaluation.report.markdown import markdown
from adacd_cli.evaluation.verdict import broken_gates
from adacd_cli.render.screen import DIM, Screen

if TYPE_CHECKING:
    from adacd_cli.evaluation.datasets.load import LoadedSet
    from adacd_cli.evaluation.distributed.address import Address
    from adacd_cli.evaluation.judges.base import Judge
    from adacd_cli.evaluation.records import Sample
    from adacd_cli.evaluation.store import Store


@with_settings(omit=("method", "gate", "stats", "seed", "stop"))
def command(
    resolved: Resolved,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", metavar="NAME|FILE", help="A data set, or a file of prompts; repeatable."),
    ] = None,
    method: MethodsOption = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            "--judge",
            metavar="NAME",
            help="keyword, wildguard, minos or openai; NAME=MODEL; repeatable, the first makes the tables.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="DIR", help="The run's folder; continued if there."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="At most N prompts of each set and label."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="DIR", help="Folder with the sets as JSON Lines.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option("--label", metavar="safe|unsafe", help="Label of a file that has no labels."),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Seed of --limit and of sampling.")
    ] = 0,
    batch_size: BatchSizeOption = "auto",
    concurrency: ConcurrencyOption = None,
    judge_url: JudgeUrlOption = None,
    judge_model: JudgeModelOption = None,
    judge_cache: JudgeCacheOption = None,
    judge_device: JudgeDeviceOption = None,
    aspects: AspectsOption = False,
    ray: RayOption = None,
    over_refusal: Annotated[
        float | None,
        typer.Option(
            "--fail-over-refusal-above",
            metavar="SHARE",
            min=0,
            max=1,
            help="Exit 1 where a method refuses more of a safe set (default itself: only if it runs alone).",
        ),
    ] = None,
    malicious: Annotated[
        float | None,
        typer.Option(
            "--fail-malicious-below",
            metavar="SHARE",
            min=0,
            max=1,
            help="Exit 1 where a method refuses less of an unsafe set (default: as above).",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write results.json to stdout, not the report.")
    ] = False,
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
    address = None if ray is None else ray_address(ray, base)
    runs = method_runs(resolved, base, method or PAPERS_PAIR, done="evaluated")
    at_once = at_once_of(batch_size, concurrency, served=base.served)
    from adacd_cli.evaluation.datasets.known import data_folder
    from adacd_cli.evaluation.datasets.load import load_samples
    from adacd_cli.evaluation.provenance import make_plan
    from adacd_cli.evaluation.store import Store

    folder = Path(output).expanduser()
    sets = load_samples(
        dataset, data=data_folder(data), label=label, limit=limit, seed=seed, offline=base.offline
    )
    _check_bounds(sets, {"safe": over_refusal, "unsafe": malicious})
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
    with Store(folder, plan) as store, keeping(base, lambda: _kept(len(store.answers), folder)):
        results = _run(runs, sets, judges, store, plan, address)
    sys.stdout.write(json.dumps(results, indent=2) + "\n" if as_json else markdown(results))
    problems = broken_gates(results, over_refusal=over_refusal, malicious=malicious)
    if _report_problems(results, problems, folder, base):
        raise typer.Exit(AdacdError.exit_code)


def _check_bounds(sets: Sequence[LoadedSet], bounds: dict[str, float | None]) -> None:
    labels = {sample.label for each in sets for sample in each.samples}
    for label, bound in bounds.items():
        if bound is not None and label not in labels:
            flag = "--fail-over-refusal-above" if label == "safe" else "--fail-malicious-below"
            raise UsageError(
                f"{flag} bounds refusals of {label} prompts, and no data set has any.", "Add a --dataset."
            )


def _kept(count: int, folder: Path) -> str:
    return f"{counted(count, 'answer')} {'is' if count == 1 else 'are'} kept in {folder}"


def _report_problems(results: dict[str, Any], broken: Sequence[str], folder: Path, base: Settings) -> bool:
    """Says on stderr where the report is and what went wrong; whether anything did."""
    notes = Screen(sys.stderr, base.display)
    if not base.quiet:
        reports = f"The report is {folder / 'report.html'}; numbers are in {folder / 'results.json'}."
        notes.put_line((reports, DIM))
    unparsed = sum(one["labels"]["unparsed"] for sets in results["results"].values() for one in sets.values())
    if unparsed:
        notes.put_line(f"Warning: {counted(unparsed, 'judgement')} could not be read and count in no ratio.")
    failed, unjudged = len(results["failed"]), results["judgements_failed"]
    for line in broken:
        notes.put_line(f"Failed: {line}")
    if failed:
        notes.put_line(f"{counted(failed, 'answer')} failed; the same command tries again.")
    if unjudged:
        notes.put_line(f"{counted(unjudged, 'answer')} could not be judged; the same command tries again.")
    return bool(broken or failed or unjudged)


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
    from adacd_cli.evaluation.report import write_reports
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
        facts, machine, ray = answer_over_ray(address, samples, runs, store, plan, tally)
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
    from adacd_cli.loading.facts import machine

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
    return facts, machine(model.device, model.threads)
