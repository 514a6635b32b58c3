"""`adacd bench`: how fast a model decodes on this machine, method by method and beside transformers."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adacd_cli import __version__
from adacd_cli.bench import subject
from adacd_cli.bench.device import PeakMemory
from adacd_cli.bench.table import check_picture, draw, report
from adacd_cli.cli.measuring import METHOD, PAPERS_PAIR, load_for_all, method_runs, pace
from adacd_cli.cli.options import option, switch, with_settings
from adacd_cli.cli.running import interrupts_said, load_model, note, refuse_served, warn
from adacd_cli.cli.streams import check_stdout
from adacd_cli.config import CONTROLS, SETTINGS, Resolved, Settings
from adacd_cli.config.methods import METHODS
from adacd_cli.errors import UsageError
from adacd_cli.loading.machine import Load, machine_facts, versions
from adacd_cli.render.screen import Screen
from adacd_cli.suggest import known_names_hint

if TYPE_CHECKING:
    from adacd_cli.bench.measure import Measurements
    from adacd_cli.engine import LanguageModel

_AGAINST = ("transformers", "llamacpp")
_RIVAL = "Measure the engine's own plain decoding as well: transformers' generate, or llama.cpp's."
_AT_ONCE = "Requests decoded at once; several with commas (default 1)."
_LENGTH = "Length of each answer (default 128)."
_SHAPE = (
    "In place of a model, its architecture with random weights: llama3-8b, gemma2-9b, qwen3-8b, a config.json or "
    "its folder."
)

_BUSY = 0.25  # cores that others use, from which on times are not to be trusted


@with_settings(
    omit=(
        *("method", "gate", "thinking", "max_new_tokens", "temperature", "top_p", "top_k", "seed", "stop"),
        *("stats", "served_model", "tokenizer"),
        *CONTROLS,
    )
)
def bench(
    resolved: Resolved,
    method: list[str] | None = METHOD,
    against: str | None = option("transformers|llamacpp", _RIVAL),
    shape: str | None = option("NAME|CONFIG.json|FOLDER", _SHAPE),
    batch_size: list[str] | None = option("N,N…", _AT_ONCE),
    prompt_tokens: int = option("N", "Length of each prompt (default 64).", default=64, min=1),
    generation_tokens: int = option("N", _LENGTH, "--generation-tokens", "-n", default=128, min=1),
    trials: int = option("N", "Timed runs of each, after one to warm up (default 3).", default=3, min=1),
    seed: int = option("N", "Seed of --shape's weights and prompts.", default=0, min=0),
    picture: str | None = option("FILE", "Draw the times and the throughput: .svg or .png."),
    as_json: bool = switch("Write the numbers as JSON.", "--json"),
) -> None:
    """Measure how fast a model decodes here: greedy, every answer of the same length."""
    check_stdout()
    sizes = _batch_sizes(batch_size or ["1"])
    if against is not None and against not in _AGAINST:
        raise UsageError(f"Unknown rival {against!r} (from --against).", known_names_hint(against, _AGAINST))
    # greedy, and nothing that could end an answer early or begin its contrast late
    fixed = {"temperature": 0.0, "stop": (), "seed": None, "thinking": False}
    fixed |= {name: SETTINGS[name].default for name in CONTROLS}
    base = resolved.settings.model_copy(update={**fixed, "max_new_tokens": generation_tokens})
    runs = method_runs(resolved, base, method or PAPERS_PAIR, done="measured")
    if shape is None:
        refuse_served(runs[0], "bench", "it measures the weights that are loaded here")
    else:
        _check_shape(shape, resolved, runs)
    if picture is not None:
        check_picture(picture)
    others = Load()
    model, prompts = _subject(runs, shape, prompt_tokens, seed)
    with interrupts_said():
        with interrupts_said(hold=True):
            from adacd_cli.bench import device, measure

        lengths = prompt_tokens, generation_tokens
        contestants = [measure.of_method(model, settings, prompts, prompt_tokens) for settings in runs]
        if against is not None:
            if against != (own := measure.RIVALS[model.engine]):
                what = f"{model.name} does not run on {against} here, so that cannot be measured."
                raise UsageError(what, f"Use --against {own}, or choose another --engine.")
            contestants.insert(0, measure.of_rival(model, runs[0], prompts, prompt_tokens))
        for settings in runs:
            subject.check_context(model, settings, lengths)
        weights = device.weight_bytes(model.model)
        measurements = measure.Measurements(contestants, model.device, *lengths, weights)
        measurements.check_memory(sizes[0])
        for settings in runs:
            subject.check_context(model, settings, lengths, prompts.make(settings, 1)[0])
        busy = others.busy_cores()
        _warn_of_others(busy, "before it measured", runs[0])
        measurements.bandwidth = device.copy_bandwidth(model.device)
        meanwhile = Load()
        try:
            with pace("Measuring", len(sizes) * len(contestants) * (trials + 1), runs[0]) as say:
                measurements.measure(sizes, trials, say)
        finally:
            if rows := measurements.rows():
                later = meanwhile.busy_cores()
                if busy < _BUSY:
                    _warn_of_others(later, "while it measured", runs[0])
                facts = _machine(model, runs[0], measurements, max(busy, later))
                if as_json:
                    sys.stdout.write(json.dumps({"machine": facts, "rows": rows}, indent=2) + "\n")
                else:
                    screen = Screen(sys.stdout, runs[0].display)
                    screen.put(report(facts, rows, width=screen.width))
                if picture is not None:
                    sys.stdout.flush()
                    path = check_picture(picture)
                    draw(facts, rows, path)
                    note(f"The picture is {path}.", runs[0])


def _batch_sizes(texts: Sequence[str]) -> list[int]:
    parts = [part.strip() for text in texts for part in text.split(",")]
    for part in parts:
        if not part.isdecimal() or len(part) > 12 or int(part) < 1:
            what = f"--batch-size takes whole numbers, at least 1, with commas between them; got {part!r}."
            raise UsageError(what, "Write e.g. --batch-size 1,2,4,8.")
    return list(dict.fromkeys(map(int, parts)))


def _check_shape(shape: str, resolved: Resolved, runs: Sequence[Settings]) -> None:
    """Refuses what a model without a name, a tokenizer and trained weights cannot do."""
    resources = [METHODS[settings.effective_method].resource for settings in runs]
    needed = [name for name in resources if name and getattr(runs[0], name) is not None]
    given = [name for name in ("model", "quantize", "system") if resolved.sources[name].kind == "flag"]
    for name in (*given, *needed):
        what = f"`{name}` cannot be used with --shape, whose model has random weights and no tokenizer."
        raise UsageError(what, "Leave one of them out.")
    subject.read_shape(shape)


def _subject(
    runs: Sequence[Settings], shape: str | None, prompt_tokens: int, seed: int
) -> tuple[LanguageModel, subject.PromptMaker]:
    """The model, which no token ends, with what the methods need, and what makes its prompts."""
    if shape is None:
        model = load_for_all(runs)
        return replace(model, eos_ids=frozenset()), subject.TextPrompts(model, prompt_tokens)
    model = load_model(runs[0], lambda progress: subject.build_shape(shape, runs[0], seed, progress))
    vocabulary = model.model.config.get_text_config(decoder=True).vocab_size
    return model, subject.RandomPrompts(vocabulary, prompt_tokens, seed)


def _warn_of_others(cores: float, when: str, settings: Settings) -> None:
    if cores >= _BUSY:
        kept = f"Other programs kept {cores:.1f} of {os.cpu_count()} cores busy {when}"
        warn([f"{kept}: times may be too long."], settings)


def _machine(model: LanguageModel, settings: Settings, measured: Measurements, busy: float) -> dict[str, Any]:
    """What was measured, where, and with what."""
    return {
        **machine_facts(model.device, model.threads),
        "adacd": __version__,
        "python": platform.python_version(),
        **versions("torch", "transformers"),
        "model": model.name,
        "revision": model.revision,
        "engine": model.engine,
        "dtype": model.dtype_name,
        "quantize": settings.quantize,
        "bandwidth_gb_per_s": measured.bandwidth,
        "weight_bytes_per_token": measured.weight_bytes,
        "busy_cores": round(busy, 2),
        "peak_memory": PeakMemory(model.device).kind,
    }
