"""`adacd eval`: answers data sets with several methods, judges the answers, and reports what each does."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adacd_cli.cli.batching import BatchSize, BatchSizeOption, ConcurrencyOption, at_once_of
from adacd_cli.cli.judging import (
    AspectsOption,
    JudgeCacheOption,
    JudgeDeviceOption,
    JudgeModelOption,
    JudgeUrlOption,
    make_judges,
)
from adacd_cli.cli.methods import PAPERS_PAIR, load_all_extras, method_runs
from adacd_cli.cli.options import with_settings
from adacd_cli.cli.progress import Tally, keeping
from adacd_cli.cli.running import load_model
from adacd_cli.cli.spreading import RayOption, answer_over_ray, ray_address
from adacd_cli.cli.streams import check_stdout
from adacd_cli.config import Resolved, Settings
from adacd_cli.counting import counted
from adacd_cli.errors import AdacdError, UsageError
from adacd_cli.evaluation.gates import broken_gates
from adacd_cli.evaluation.report.markdown import markdown
from adacd_cli.render.screen import DIM, Screen

if TYPE_CHECKING:
    from adacd_cli.evaluation.datasets.load import LoadedSet
    from adacd_cli.evaluation.judges.base import Judge
    from adacd_cli.evaluation.sample import Sample
    from adacd_cli.evaluation.spread.address import Address
    from adacd_cli.evaluation.store import Store


@with_settings(omit=("method", "gate", "stats", "seed", "stop"))
def command(
    resolved: Resolved,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", metavar="NAME|FILE", help="A data set, or a file of prompts; repeatable."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method", metavar="NAME", help="A decoding method; repeatable (default: default and adacd)."
        ),
    ] = None,
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
    results, folder = _evaluate(
        runs,
        dataset,
        judge or ["keyword"],
        Path(output).expanduser(),
        limit=limit,
        data=data,
        label=label,
        batch_size=at_once_of(batch_size, concurrency, served=base.served),
        judging={
            "url": judge_url,
            "model": judge_model,
            "cache": judge_cache,
            "device": judge_device,
            "aspects": aspects,
        },
        gates={"safe": over_refusal, "unsafe": malicious},
        address=address,
    )
    sys.stdout.write(json.dumps(results, indent=2) + "\n" if as_json else markdown(results))
    notes = Screen(sys.stderr, base.display)
    if not base.quiet:
        notes.put_line(
            (f"The report is {folder / 'report.html'}; numbers are in {folder / 'results.json'}.", DIM)
        )
    unparsed = sum(one["labels"]["unparsed"] for sets in results["results"].values() for one in sets.values())
    if unparsed:
        notes.put_line(f"Warning: In no ratio, because it cannot be read: {counted(unparsed, 'judgement')}.")
    broken = broken_gates(results, over_refusal=over_refusal, malicious=malicious)
    for line in broken:
        notes.put_line(f"Failed: {line}")
    if results["failed"]:
        count = len(results["failed"])
        notes.put_line(
            f"{count} {'answer' if count == 1 else 'answers'} failed; the same command tries again."
        )
    if results["judgements_failed"]:
        count = results["judgements_failed"]
        what = "answer" if count == 1 else "answers"
        notes.put_line(f"{count} {what} could not be judged; the same command tries again.")
    if broken or results["failed"] or results["judgements_failed"]:
        raise typer.Exit(AdacdError.exit_code)


def _evaluate(
    runs: Sequence[Settings],
    names: Sequence[str],
    judge_names: Sequence[str],
    folder: Path,
    *,
    limit: int | None,
    data: str | None,
    label: str | None,
    batch_size: BatchSize,
    judging: dict[str, Any],
    gates: dict[str, float | None],
    address: Address | None,
) -> tuple[dict[str, Any], Path]:
    """Does what is left to do in the folder, and writes its results and reports."""
    from adacd_cli.evaluation.datasets.folder import data_folder
    from adacd_cli.evaluation.datasets.load import load_samples
    from adacd_cli.evaluation.provenance import make_plan
    from adacd_cli.evaluation.store import Store

    base = runs[0]
    sets = load_samples(
        names,
        data=data_folder(data),
        label=label,
        limit=limit,
        seed=base.seed or 0,
        offline=base.offline,
    )
    labels = {sample.label for each in sets for sample in each.samples}
    for gated, bound in gates.items():
        if bound is not None and gated not in labels:
            flag = "--fail-over-refusal-above" if gated == "safe" else "--fail-malicious-below"
            raise UsageError(
                f"{flag} bounds refusals of {gated} prompts, and no data set has any.", "Add a --dataset."
            )
    judges = make_judges(judge_names, base, **judging)
    plan = make_plan(runs, sets, judges, limit=limit, batch_size=batch_size)
    with (
        Store(folder, plan) as store,
        keeping(base, lambda: _kept(len(store.answers), folder)),
    ):
        return _run(runs, sets, judges, store, plan, address), folder


def _kept(count: int, folder: Path) -> str:
    return f"{counted(count, 'answer')} {'is' if count == 1 else 'are'} kept in {folder}"


def _run(
    runs: Sequence[Settings],
    sets: Sequence[LoadedSet],
    judges: Sequence[Judge],
    store: Store,
    plan: dict[str, Any],
    address: Address | None,
) -> dict[str, Any]:
    from adacd_cli.evaluation.provenance import provenance
    from adacd_cli.evaluation.report.write import write_reports
    from adacd_cli.evaluation.results import summarise
    from adacd_cli.evaluation.runner import judge_all, unjudged

    base, began = runs[0], time.time()
    samples = [sample for each in sets for sample in each.samples]
    done = sum(not record.error for record in store.answers.values())

    def tally() -> Tally:
        return Tally("Answering", len(samples) * len(runs), "answers", base, done=done)

    if address is None:
        facts, where, ray = *_answer_here(samples, runs, store, plan, tally), None
    else:
        facts, where, ray = answer_over_ray(address, samples, runs, store, plan, tally)
    waiting = sum(len(unjudged(judge.name, store)) for judge in judges)
    with Tally("Judging", waiting, "answers", base) as judged:
        judge_all(judges, store, told=lambda record: judged.add())
    results = summarise(
        list(store.answers.values()),
        list(store.judgements.values()),
        methods=[settings.method_label for settings in runs],
        judges=[judge.name for judge in judges],
        both=[each.name for each in sets if each.has_both_labels],
        provenance=provenance(plan, facts, where, sets, began=began, ray=ray),
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
    facts = model_facts(model)
    store.agree_on("model.json", facts)
    with tally() as answered:
        answer_all(
            model, samples, runs, store, batch_size=plan["batch_size"], told=lambda record: answered.add()
        )
    return facts, machine(model.device)
