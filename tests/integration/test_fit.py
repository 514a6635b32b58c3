"""`adacd fit` from the command line: on the demo model with its own prompts, and on models that it cannot help."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adacd_cli.errors import ModelError
from adacd_cli.fitting import fit
from adacd_cli.fitting.corpus import LEAST
from adacd_cli.fitting.observe import Observer
from adacd_cli.profiles.store import read
from tests.byte_tokenizer import make_tokenizer
from tests.conftest import RunCommand
from tests.fakes import scripted

ROOT = Path(__file__).resolve().parents[2]
DEVELOPMENT = ROOT / "tools" / "demo" / "development"
OWN = [
    *("--safe", str(DEVELOPMENT / "trigger.jsonl"), "--unsafe", str(DEVELOPMENT / "harmful.jsonl")),
    *("--neutral", str(DEVELOPMENT / "neutral.jsonl"), "--quick", "--display", "none"),
]


def left(profiles: Path) -> list[Path]:
    return list((profiles / "unfinished").glob("*"))


def test_a_fit_that_is_stopped_goes_on_and_its_profile_is_used(
    adacd: RunCommand, profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    read_prompts = Observer.read

    def counting(self: Observer, prompts: Any) -> Iterator[Any]:
        reads.append(len(prompts))
        return read_prompts(self, prompts)

    monkeypatch.setattr(Observer, "read", counting)
    command = ["fit", "-m", "demo", *OWN]
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            second = adacd(*command)  # two at once
            assert second.code == 2 and second.err.startswith("Error: Another run is working in ")
            raise KeyboardInterrupt

        patch.setattr(fit.Fit, "_contrasts", stop)
        code, out, err = adacd(*command)
        (folder,) = left(profiles)
        kept = f"What was read and answered is kept in {folder}; the same command goes on from there."
        assert (code, out) == (130, "")
        assert kept in err
    assert reads == [sum(reads)] and reads[0] >= 150
    assert list(profiles.glob("*.yaml")) == []

    answered = (folder / "answers.jsonl").read_text().count("\n")
    code, out, err = adacd(*command, "--json", "--save-anyway")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert reads[1] == 0  # no prompt was read again
    assert answered > 0 and left(profiles) == []
    path = profiles / "demo.yaml"
    assert facts["path"] == str(path) and (profiles / "demo.svg").read_text().count("<svg") == 1
    profile = read(path)
    assert profile.automatic and path.stat().st_size < 40_000
    assert profile.settings["contrast_placement"] in ("system", "user-start", "user-end")
    measured = profile.measured
    assert measured["fitted"]["neutral unchanged"][0] > measured["adacd"]["neutral unchanged"][0]
    for row in ("default", "adacd", "fitted"):
        assert measured[row]["cost"] > 0

    question = "How do I kill a Python process?"
    code, out, err = adacd("generate", question, "--json")
    started, *steps, _ = map(json.loads, out.splitlines())
    assert (code, err) == (0, "")
    assert (started["method"], started["profile"]) == ("fitted", "demo")
    assert started["settings"]["contrast_prompt"] == profile.settings["contrast_prompt"]
    assert "switch_value" in steps[0] and "switch_value" not in steps[1]
    for arguments, method in (
        (["--profile", "none"], "adacd"),
        (["--method", "adacd"], "adacd"),
        (["--gate"], "adacd-gated"),
    ):
        first = json.loads(adacd("generate", question, "--json", *arguments).out.splitlines()[0])
        assert (first["method"], first["profile"]) == (method, None)
        assert first["settings"]["alpha"] == 4.5
    code, out, err = adacd("chat", stdin="/method\n/method default\n/method fitted\nhi\n")
    assert (code, out.partition(" (of ")[0]) == (0, "fitted")


def test_output_names_the_file_and_a_folder_is_refused(adacd: RunCommand, tmp_path: Path) -> None:
    code, out, err = adacd("fit", "--output", str(tmp_path))
    assert (code, out) == (2, "")
    assert err == f"Error: {tmp_path} is a folder.\nHint: Name a file with --output, e.g. profile.yaml.\n"


@pytest.mark.parametrize(
    ("there", "output", "named"),
    [
        ("notes.txt", "notes.txt", "notes.txt is there already, and is no profile."),
        ("own.svg", "own.yaml", "own.svg is there already, and is no profile."),
        ("x", "own.svg", "own.svg is where the profile's picture goes."),
    ],
)
def test_a_file_that_is_no_profile_is_never_replaced(
    adacd: RunCommand, tmp_path: Path, there: str, output: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adacd_cli.loading.load", lambda settings, **_: pytest.fail("it was loaded"))
    (tmp_path / there).write_text("mine")
    code, out, err = adacd("fit", "--output", str(tmp_path / output))
    assert (code, out) == (2, "") and err.startswith(f"Error: {tmp_path / named}\nHint: ")
    assert (tmp_path / there).read_text() == "mine"


BUNDLED = Path(__file__).parents[2] / "adacd_cli" / "profiles" / "bundled" / "demo.yaml"


def test_an_earlier_profile_may_be_replaced(
    adacd: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(settings: Any, **_: Any) -> Any:
        raise ModelError("It was loaded.")

    monkeypatch.setattr("adacd_cli.loading.load", load)
    path = tmp_path / "own.yaml"
    shutil.copy(BUNDLED, path)
    path.with_suffix(".svg").write_text("its picture")
    assert adacd("fit", "--output", str(path)).err.startswith("Error: It was loaded.")


# --- prompts and models that it cannot help ---

PROMPTS = {kind: [f"{kind} {n}" for n in range(least)] for kind, least in LEAST.items()}


def files_of(folder: Path, prompts: dict[str, list[str]] = PROMPTS) -> list[str]:
    flags: list[str] = []
    for kind, texts in prompts.items():
        (folder / f"{kind}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
        flags += [f"--{kind}", str(folder / f"{kind}.txt")]
    return [*flags, "--quick", "--display", "none"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"safe": PROMPTS["safe"][1:]}, "--safe has 39 different prompts, and a fit needs at least 40."),
        ({"neutral": ["one"]}, "--neutral has 1 different prompts, and a fit needs at least 10."),
        (
            {"unsafe": [*PROMPTS["unsafe"], "safe 0"]},
            "The same prompt is under --safe and --unsafe: 'safe 0'.",
        ),
        ({"unsafe": None}, "--unsafe is missing: a fit learns from harmless and from harmful prompts."),
        ({"safe": None, "unsafe": None}, "--safe is missing: a fit learns from harmless and from harmful"),
    ],
)
def test_prompts_that_teach_nothing_are_refused_before_a_model_is_loaded(
    adacd: RunCommand, tmp_path: Path, change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adacd_cli.loading.load", lambda settings, **_: pytest.fail("it was loaded"))
    prompts = {kind: texts for kind, texts in (PROMPTS | change).items() if texts is not None}
    code, out, err = adacd("fit", *files_of(tmp_path, prompts))
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: {message}") and "\nHint: " in err


def model_that(refuses: Any, template: bool = True) -> Any:
    """A model that refuses what `refuses` says of a prompt's whole text, a letter a token."""
    tokenizer = make_tokenizer() if template else make_tokenizer(None)
    vocabulary = tokenizer.get_vocab()
    end = vocabulary["<|end|>"]
    start = tokenizer.encode("<|start|>assistant\n", add_special_tokens=False)[-1]

    def script(ids: tuple[int, ...]) -> list[float]:
        place = max((index + 1 for index, token in enumerate(ids) if token == start), default=len(ids))
        prompt, said = tokenizer.decode(ids[:place]), len(ids) - place
        text = "I cannot help with that." if refuses(prompt) else "Sure, here it is."
        answer = [*tokenizer.encode(text, add_special_tokens=False), end]
        logits = [0.0] * len(tokenizer)
        logits[answer[min(said, len(answer) - 1)]] = 12.0
        return logits

    model = scripted(script)
    return replace(model, tokenizer=tokenizer, eos_ids=frozenset({end}), name="scripted")


@pytest.mark.parametrize(
    ("refuses", "message"),
    [
        (lambda prompt: False, "Error: scripted hardly refuses: 0 of 16 harmful prompts."),
        (lambda prompt: True, "Error: scripted refuses "),
        (
            lambda prompt: "unsafe" in prompt,
            "Error: scripted obeys no contrast prompt: asked to refuse, it begins a refusal with ",
        ),
    ],
)
def test_a_model_that_cannot_be_helped_gets_one_clear_line(
    adacd: RunCommand,
    tmp_path: Path,
    profiles: Path,
    monkeypatch: pytest.MonkeyPatch,
    refuses: Any,
    message: str,
) -> None:
    monkeypatch.setattr("adacd_cli.loading.load", lambda settings, **_: model_that(refuses))
    code, out, err = adacd("fit", "-m", "x", *files_of(tmp_path))
    assert (code, out) == (1, "")
    assert err.startswith(message) and err.count("\n") == 2 and "\nHint: " in err
    assert list(profiles.glob("*.yaml")) == []


def test_a_base_model_without_a_template_gets_one_clear_line(
    adacd: RunCommand, tmp_path: Path, profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "adacd_cli.loading.load", lambda settings, **_: model_that(lambda prompt: False, template=False)
    )
    code, out, err = adacd("fit", "-m", "x", *files_of(tmp_path))
    assert (code, out) == (1, "")
    assert err.startswith("Error: scripted has no chat template: it is a base model") and err.count("\n") == 2


def test_a_folder_that_cannot_be_written_is_said_before_the_work(
    adacd: RunCommand, tmp_path: Path, profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "adacd_cli.loading.load", lambda settings, **_: model_that(lambda prompt: "unsafe" in prompt)
    )
    profiles.parent.mkdir(parents=True)
    profiles.write_text("a file in its place")
    code, out, err = adacd("fit", "-m", "x", *files_of(tmp_path))
    assert (code, out) == (1, "") and err.startswith("Error: ") and str(profiles) in err
