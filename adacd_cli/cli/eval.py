"""`adacd eval`: answers data sets with several methods, judges the answers, and reports what each does."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer

from adacd_cli.answers import BatchSize
from adacd_cli.cli import measuring
from adacd_cli.cli.measuring import Tally, keeping
from adacd_cli.cli.options import PROMPT_COLUMN, batch_size_of, option, switch, with_settings
from adacd_cli.cli.running import note, progress_line, warn
from adacd_cli.cli.streams import check_stdout
from adacd_cli.config import Resolved, Settings
from adacd_cli.counting import counted
from adacd_cli.errors import AdacdError, UsageError
from adacd_cli.evaluation.datasets.files import Columns, Sample
from adacd_cli.evaluation.datasets.load import LoadedSet, data_folder, load_samples
from adacd_cli.evaluation.distributed import cluster
from adacd_cli.evaluation.distributed.cluster import Address
from adacd_cli.evaluation.distributed.driver import Roster, answer_distributed, sender
from adacd_cli.evaluation.judges import Judge
from adacd_cli.evaluation.report.html import write_reports
from adacd_cli.evaluation.report.tables import markdown
from adacd_cli.evaluation.results import summarise
from adacd_cli.evaluation.runner import answer_all, judge_all, unjudged
from adacd_cli.evaluation.statistics import broken_gates
from adacd_cli.evaluation.store import Store, make_plan, model_facts, provenance
from adacd_cli.loading.machine import machine_facts
from adacd_cli.render.screen import Screen

Facts = dict[str, Any]
_Work = tuple[list[Sample], list[Settings], Store, BatchSize, Tally]

_JUDGE = "keyword, wildguard, minos or openai; NAME=MODEL; repeatable, the first makes the tables."
_JUDGE_DEVICE = "Judges wildguard and minos: where they run (default: as --device)."
_LABELS = "Column of the labels in a CSV or JSON file of yours."
_AT_ONCE = "Prompts decoded at once; auto is as many as memory has room for."
_CONCURRENCY = "With a model at a server: answers asked for at once, in place of --batch-size."
_RAY = "Spread over GPUs and nodes with Ray: this machine's, auto, HOST:PORT or ray://HOST:PORT."
_ABOVE = "Exit 1 where a method refuses more of a safe set (default itself: only if it runs alone)."
_BELOW = "Exit 1 where a method refuses less of an unsafe set (default: as above)."
_SHARE = {"min": 0, "max": 1}


@with_settings(omit=("method", "gate", "stats", "seed", "stop"))
def eval(
    resolved: Resolved,
    dataset: list[str] | None = option("NAME|FILE", "A data set, or a file of prompts; repeatable."),
    method: list[str] | None = measuring.METHOD,
    judge: list[str] | None = option("NAME", _JUDGE),
    output: str | None = option("DIR", "The run's folder; continued if there.", "--output", "-o"),
    limit: int | None = option("N", "At most N prompts of each set and label.", min=1),
    data: str | None = option("DIR", "Folder with the sets as JSON Lines."),
    label: str | None = option("safe|unsafe", "Label of a file that has no labels."),
    prompt_column: str | None = PROMPT_COLUMN,
    label_column: str | None = option("NAME", _LABELS),
    seed: int = option("N", "Seed of --limit and of sampling.", default=0, min=0),
    batch_size: str = option("N|auto", _AT_ONCE, default="auto"),
    concurrency: int | None = option("N", _CONCURRENCY, min=1),
    judge_url: str | None = measuring.JUDGE_URL,
    judge_model: str | None = measuring.JUDGE_MODEL,
    judge_cache: str | None = measuring.JUDGE_CACHE,
    judge_device: str | None = option("NAME", _JUDGE_DEVICE),
    aspects: bool = measuring.ASPECTS,
    ray: str | None = option("[ADDRESS]", _RAY),
    over_refusal: float | None = option("SHARE", _ABOVE, "--fail-over-refusal-above", **_SHARE),
    malicious: float | None = option("SHARE", _BELOW, "--fail-malicious-below", **_SHARE),
    as_json: bool = switch("Write results.json to stdout, not the report.", "--json"),
) -> None:
    """Measure over-refusal, safety and cost of decoding methods; writes answers, results.json and reports."""
    check_stdout()
    if not dataset:
        raise UsageError("No data set is named.", "Name one with --dataset; `adacd datasets` lists them.")
    if not output:
        hint = "Name one with --output, e.g. --output runs/first."
        raise UsageError("No folder for the run is named.", hint)
    base = resolved.settings.model_copy(update={"seed": seed})
    address = None if ray is None else cluster.parse_address(ray)
    if address is not None:  # checks everything that needs no Ray running
        cluster.check_settings(base)
        cluster.require_ray(address)
        cluster.check_answers(address)
    runs = measuring.method_runs(resolved, base, method or measuring.PAPERS_PAIR, done="evaluated")
    at_once = _at_once(batch_size, concurrency, served=base.served)
    folder = Path(output).expanduser()
    own: dict[str, Any] = {"data": data_folder(data), "columns": Columns(prompt_column, label_column)}
    sets = load_samples(dataset, label=label, limit=limit, seed=seed, offline=base.offline, **own)
    warn([note for each in sets for note in each.notes], base)
    samples = [sample for each in sets for sample in each.samples]
    labels = {sample.label for sample in samples}
    for flag, side, bound in (
        ("--fail-over-refusal-above", "safe", over_refusal),
        ("--fail-malicious-below", "unsafe", malicious),
    ):
        if bound is not None and side not in labels:
            hint = "Add a --dataset."
            raise UsageError(f"{flag} bounds refusals of {side} prompts, and no data set has any.", hint)
    own = {"url": judge_url, "model": judge_model, "aspects": aspects, "device": judge_device}
    judges = measuring.make_judges(judge or ["keyword"], base, cache=judge_cache, **own)
    plan = make_plan(runs, sets, judges, limit=limit, batch_size=at_once)

    def kept() -> str:
        count = len(store.answers)
        return f"{counted(count, 'answer')} {'is' if count == 1 else 'are'} kept in {folder}"

    with Store(folder, plan) as store, keeping(base, kept):
        done = sum(not record.error for record in store.answers.values())
        tally = Tally("Answering", len(samples) * len(runs), "answers", base, done=done)
        results = _run((samples, runs, store, at_once, tally), sets, judges, plan, address)
    sys.stdout.write(json.dumps(results, indent=2) + "\n" if as_json else markdown(results))
    problems = broken_gates(results, over_refusal=over_refusal, malicious=malicious)
    if _report_problems(results, problems, folder, base):
        raise typer.Exit(AdacdError.exit_code)


def _at_once(batch_size: str, concurrency: int | None, *, served: bool) -> BatchSize:
    """How many prompts are answered at once, by whichever of the two options is given."""
    if concurrency is None:
        return batch_size_of(batch_size)
    if not served:
        hint = "Use --batch-size for one that is here."
        raise UsageError("--concurrency is for a model at a server.", hint)
    if batch_size != "auto":
        raise UsageError("--batch-size and --concurrency say the same.", "Leave one of them out.")
    return concurrency


def _report_problems(results: Facts, broken: Sequence[str], folder: Path, base: Settings) -> bool:
    """Says on stderr where the report is and what went wrong; whether anything did."""
    notes = Screen(sys.stderr, base.display)
    note(f"The report is {folder / 'report.html'}; numbers are in {folder / 'results.json'}.", base)
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


def _run(work: _Work, sets: list[LoadedSet], judges: list[Judge], plan: Facts, ray: Address | None) -> Facts:
    """Does what is left to do in the folder, and writes its results and reports."""
    (_, runs, store, *_), began, workers = work, time.time(), None
    if ray is None:
        facts, machine = _answer_here(work)
    else:
        facts, machine, workers = _answer_over_ray(ray, work)
    waiting = sum(len(unjudged(judge.name, store)) for judge in judges)
    with Tally("Judging", waiting, "answers", runs[0]) as judged:
        judge_all(judges, store, on_record=judged.add)
    results = summarise(
        list(store.answers.values()),
        list(store.judgements.values()),
        methods=[settings.method_label for settings in runs],
        judges=[judge.name for judge in judges],
        both=[each.name for each in sets if each.has_both_labels],
        provenance=provenance(plan, facts, machine, sets, began=began, ray=workers),
    )
    write_reports(results, store)
    return results


def _answer_here(work: _Work) -> tuple[Facts, Facts]:
    """Facts of the model and of the machine, when all is answered."""
    samples, runs, store, at_once, tally = work
    model = measuring.load_for_all(runs)
    facts, notices = model_facts(model), set[str]()
    store.agree_on("model.json", facts)

    def show(notice: str) -> None:
        if notice not in notices:
            notices.add(notice)
            warn([notice], runs[0])

    with tally:
        answer_all(model, samples, runs, store, batch_size=at_once, on_record=tally.add, on_notice=show)
    return facts, machine_facts(model.device, model.threads)


def _answer_over_ray(address: Address, work: _Work) -> tuple[Facts, Facts, Facts]:
    """Facts of the model, of the first worker's machine and of the cluster, when all is answered."""
    samples, runs, store, at_once, tally = work
    base = runs[0]
    with cluster.ray_muted(), ExitStack() as shown:
        progress = shown.enter_context(progress_line(base))
        progress("Joining Ray" if address.host else "Starting Ray")
        begun = False

        def on_worker(roster: Roster, warnings: list[str]) -> None:
            nonlocal begun
            if not begun:
                begun = True
                store.agree_on("model.json", roster.facts)
                shown.close()  # a terminal shows one moving thing at a time
                shown.enter_context(tally)
            warn(warnings, base)

        with cluster.joined(address, base) as joined:
            many = counted(joined.slots, "worker")
            progress(f"Waiting for {many} to load the model")
            options: dict[str, Any] = {"batch_size": at_once, "on_worker": on_worker, "on_record": tally.add}
            roster = answer_distributed(sender(joined, runs), samples, runs, store, **options)
            return roster.facts, roster.machine, roster.report(joined)
