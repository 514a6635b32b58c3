"""`adacd fit`: finds what works on a model, measures it, and keeps it as a profile that every command uses."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adacd_cli.cli.measuring import Tally, keeping, prompts_of
from adacd_cli.cli.options import PROMPT_COLUMN, option, switch, with_settings
from adacd_cli.cli.running import load_model, note
from adacd_cli.cli.streams import check_stdout
from adacd_cli.config import CONTROLS, Resolved, Settings
from adacd_cli.errors import ConfigurationError, OutputError, UsageError
from adacd_cli.evaluation.report.figures import draw_trade_off
from adacd_cli.evaluation.report.tables import table
from adacd_cli.evaluation.statistics import NO_DIFFERENCE
from adacd_cli.evaluation.store import Store
from adacd_cli.fitting.corpus import FitPrompt, Kind, bundled, digest, own

if TYPE_CHECKING:
    from adacd_cli.fitting.fit import Outcome

_MEASURED = {"default": "Default", "adacd": "the paper's settings", "fitted": "fitted"}
_MOST_LOST = "Most harmful prompts that may be answered (default 0.02)."
_OUTPUT = "Where the profile goes (default: the user's data folder)."
_WITHOUT_MEANING = (
    *("method", "gate", "switch", "alpha", "agreement_threshold", "plausibility", "contrast_steps"),
    *("contrast_prompt", "contrast_placement", "expert", "draft", "direction", "profile"),
    *("max_new_tokens", "temperature", "top_p", "top_k", "seed", "stop", "stats", *CONTROLS),
)
"""What a fit chooses, or decodes without."""


@with_settings(omit=_WITHOUT_MEANING)
def fit(
    resolved: Resolved,
    safe: str | None = option("FILE", "Your own harmless prompts with alarming words."),
    unsafe: str | None = option("FILE", "Your own harmful prompts."),
    neutral: str | None = option("FILE", "Your own ordinary prompts."),
    prompt_column: str | None = PROMPT_COLUMN,
    quick: bool = switch("A quarter of the prompts: a first look.", "--quick"),
    thorough: bool = switch("All prompts, and twice as many to measure on: twice the time.", "--thorough"),
    max_lost: float = option("SHARE", _MOST_LOST, default=0.02, min=0, max=1),
    save_anyway: bool = switch("Use the profile by itself even where it trades one side.", "--save-anyway"),
    output: str | None = option("FILE", _OUTPUT, "--output", "-o"),
    as_json: bool = switch("The profile as one JSON object.", "--json"),
) -> None:
    """Find contrast prompt, placement, switch and strengths for a model, and keep them as its profile."""
    check_stdout()
    settings = resolved.settings
    from adacd_cli.fitting.corpus import FULL, QUICK, THOROUGH
    from adacd_cli.fitting.fit import Fit
    from adacd_cli.profiles import store as profiles
    from adacd_cli.profiles.fingerprint import fingerprint
    from adacd_cli.profiles.store import write

    if quick and thorough:
        raise UsageError("--quick and --thorough exclude each other.", "Give one of them, or none.")
    prompts = _prompts({"safe": safe, "unsafe": unsafe, "neutral": neutral}, prompt_column, settings)
    target = Path(output).expanduser() if output else None
    if target is not None:
        _check(target)
    model = load_model(settings.model_copy(update={"profile": "none"}))
    plan = {
        "fit": fingerprint(model).model_dump(),
        **{name: getattr(settings, name) for name in ("model", "system", "thinking")},
        **{"quick": quick, "thorough": thorough, "max_lost": max_lost},
        "prompts": digest(*(each.text for each in prompts)),
    }
    model_name = Path(settings.model).name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model_name.removesuffix(".gguf")).strip("-.") or "model"
    folder = profiles.folder() / "unfinished" / f"{name}-{digest(json.dumps(plan))}"

    stage = partial(Tally, unit="prompts", settings=settings)
    kept = f"What was read and answered is kept in {folder}"
    with _opened(folder, plan) as store, keeping(settings, lambda: kept):
        sizes = QUICK if quick else THOROUGH if thorough else FULL
        outcome = Fit(model, settings, prompts, store, sizes=sizes, stage=stage, most_lost=max_lost).run()
    profile = outcome.profile
    if save_anyway:
        profile = profile.model_copy(update={"automatic": True})
    path = target or profiles.folder() / f"{name}.yaml"
    write(profile, path)
    picture = draw_trade_off(outcome.curve, outcome.chosen, model_name)
    path.with_suffix(".svg").write_text(picture, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        facts = profile.model_dump(mode="json", by_alias=True) | {"path": str(path)}
        sys.stdout.write(json.dumps(facts, ensure_ascii=False) + "\n")
        return
    sys.stdout.write(_report(outcome))
    where = f"Kept in {path} and not used by itself: --profile {path} does, or fit again with --save-anyway."
    if target is not None:
        where = f"Written to {path}; use it with --profile {path}."
    elif profile.automatic:
        where = f"Kept in {path}; every command uses it for this model. --profile none does without."
    note(where, settings)


def _check(target: Path) -> None:
    """UsageError where the profile cannot be written, or it or its picture would replace what is no profile."""
    from adacd_cli.profiles.store import read

    if target.is_dir():
        raise UsageError(f"{target} is a folder.", "Name a file with --output, e.g. profile.yaml.")
    if target.suffix.lower() == ".svg":
        raise UsageError(f"{target} is where the profile's picture goes.", "Name a file that ends in .yaml.")
    there = next(each for each in target.absolute().parents if each.exists())  # the rest is made
    if not os.access(there, os.W_OK):
        raise UsageError(f"{there} cannot be written to.", "Name another file with --output.")
    taken = [each for each in (target, target.with_suffix(".svg")) if each.exists()]
    with suppress(ConfigurationError):
        if taken and target.is_file():
            read(target)
            return  # an earlier profile, with its picture
    if taken:
        hint = "Name another file with --output."
        raise UsageError(f"{taken[0]} is there already, and is no profile.", hint)


def _opened(folder: Path, plan: dict[str, Any]) -> Store:
    try:
        return Store(folder, plan)
    except (UsageError, OutputError) as error:
        hint = "Wait for it to end, or stop it; then the same command continues."
        if isinstance(error, OutputError):
            hint = "Make room, or set XDG_DATA_HOME to a folder you can write to."
        raise type(error)(error.message, hint) from error


def _prompts(named: Mapping[Kind, str | None], column: str | None, settings: Settings) -> list[FitPrompt]:
    if not any(named.values()):
        return bundled()
    for kind in ("safe", "unsafe"):
        if named[kind] is None:
            what = f"--{kind} is missing: a fit learns from harmless and from harmful prompts."
            raise UsageError(what, f"Name a file of prompts: --{kind} FILE, or leave the others out, too.")
    texts: dict[Kind, list[str]] = {}
    for kind, file in named.items():
        if file is None:
            texts[kind] = [each.text for each in bundled() if each.kind == kind]
            continue
        texts[kind] = prompts_of(file, "unsafe" if kind == "unsafe" else "safe", settings, column)
    return own(texts)


def _report(outcome: Outcome) -> str:
    profile, measured = outcome.profile, outcome.profile.measured
    header = ["", "harmless refused", "harmful refused", "neutral unchanged", "cost"]
    rows = [
        [
            title,
            *(_share(measured[name], kind) for kind in ("safe", "unsafe")),
            "{} of {}".format(*measured[name]["neutral unchanged"]),
            f"{measured[name]['cost']:.2f} ×",
        ]
        for name, title in _MEASURED.items()
    ]
    chosen, tried = profile.settings, outcome.trials
    best = (f"  {obedience:.2f}  {placement:<10}  {prompt}" for prompt, placement, obedience in tried[:5])
    few = " (too few prompts to be sure of it)" if NO_DIFFERENCE in profile.verdict else ""
    helps = f"It helps{few}, and harms no side beyond the bounds."
    if not outcome.helps:
        helps = "Nothing that was tried helps on one side without harm on the other beyond the bounds. The picture "
        helps += "beside the profile shows what other thresholds would trade."
    lines = (
        f"{table(header, rows)}\n",
        f"Measured on {measured['prompts']['held out']} prompts held out (95 % Wilson intervals; p: exact McNemar "
        "test against Default; judge: keyword).",
        f"Most obeyed contrast prompts, of {len(tried)} tried (mass of refusals on neutral prompts):",
        *best,
        f"Chosen: α {chosen['alpha']:g}, β {chosen['plausibility']:g}, k {chosen['contrast_steps']}, "
        f"{chosen['contrast_placement']}, “{chosen['contrast_prompt']}”",
        f"The learned switch tells harmful from harmless with AUC {measured['auc']} "
        f"({measured['auc among the refused']} among what the model refuses).\n",
        f"Verdict: {profile.verdict}\n{helps}\n",
    )
    return "\n".join(lines)


def _share(row: Mapping[str, Any], kind: str) -> str:
    count, n, low, high = row[f"{kind} refused"]
    test = f", p = {row[f'{kind} p']:.2g}" if row[f"{kind} p"] < 1 else ""
    return f"{count} of {n} [{low:.2f}, {high:.2f}]{test}"
