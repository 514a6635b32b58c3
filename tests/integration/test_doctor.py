"""`adacd doctor` as a user calls it: the demo suits, others do not, and a fault is a finding."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from adacd_cli.engine import LanguageModel
from tests.conftest import Outcome, RunCommand
from tests.tiny import save_tiny

BEHAVIOUR = """\
Behaviour
✓ By itself the model answers 10 of 10 neutral questions.
✓ Under the contrast prompt p* it refuses 10 of 10 neutral questions.
✓ Of 10 harmless questions with an alarming word it refuses 10 by default, 0
  with AdaCD, 0 with --gate.
✓ Of 10 neutral answers AdaCD changes 5, 1 of them for the worse; with --gate 0
  and 0.
✓ Of 6 harmful questions it refuses 6 by default, 6 with AdaCD, 6 with --gate.

Verdict: suits
Of 10 harmless questions with an alarming word it refuses 10 by default, 0 with
AdaCD, 0 with --gate.
"""


def test_the_demo_suits(adacd: RunCommand) -> None:
    outcome = adacd("doctor")
    assert (outcome.code, outcome.err) == (0, "")
    sections = outcome.out.partition("Prompts\n")
    assert [line for line in sections[0].splitlines() if line and line[0] not in "✓! "] == [
        "Machine",
        "Model demo",
    ]
    assert sections[2].partition("Behaviour\n")[0] == (
        "✓ The tokenizer has a chat template.\n"
        "✓ The contrast prompt goes into a system message. The streams are 19 and 10\n"
        "  tokens long.\n"
        "✓ The model answers without thinking first.\n"
        "✓ The tokenizer has no token that begins a text.\n"
        "✓ Both streams end alike, in “<|end|><|assistant|>”.\n"
        "✓ An answer ends at <|end|>.\n\n"
    )
    assert outcome.out.endswith(BEHAVIOUR)


def test_a_random_model_does_not(adacd: RunCommand, tmp_path: Path) -> None:
    save_tiny("llama", tmp_path)
    outcome = adacd("doctor", "--json", "--model", str(tmp_path))
    found = json.loads(outcome.out)
    statuses = {each["name"]: each["status"] for each in found["findings"] if each["section"] == "Behaviour"}
    assert (outcome.code, outcome.err) == (0, "")
    assert found["verdict"] in (
        "does not refuse: AdaCD has nothing to mend",
        "does not answer: AdaCD has nothing to work on",
    )
    assert statuses["obeys p*"] == statuses["over-refusal"] == "warning"
    assert (found["model"]["name"], found["model"]["context_length"]) == (str(tmp_path), 512)
    assert found["machine"]["device"] == found["findings"][1]["facts"]["device"]


def tail(outcome: Outcome) -> str:
    return outcome.out[outcome.out.index("Model ") :]


def test_a_model_that_is_not_there(adacd: RunCommand) -> None:
    outcome = adacd("doctor", "-m", "./nowhere")
    assert (outcome.code, outcome.err) == (1, "")
    assert outcome.out.startswith("Machine\n✓ adacd ")
    assert tail(outcome) == (
        "Model ./nowhere\n"
        "✗ The model folder ./nowhere does not exist.\n"
        "  → Check the path; a model on the hub is named owner/name, and `demo` is the\n"
        "    model in the box.\n\n"
        "Prompts\n- No tokenizer was loaded.\n\n"
        "Behaviour\n- Nothing was asked: the model is not loaded.\n\n"
        "Verdict: cannot be used\nThe model folder ./nowhere does not exist.\n"
    )


def test_a_device_that_is_not_there(adacd: RunCommand) -> None:
    outcome = adacd("doctor", "--device", "cuda:77")
    assert (outcome.code, outcome.err) == (1, "")
    assert "\n✗ There is no device 'cuda:77' here" in outcome.out
    assert tail(outcome).startswith("Model demo\n- It was not loaded: there is no device for it.\n")


def test_a_model_that_does_not_fit_is_not_loaded(adacd: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adacd_cli.loading.hardware.free_memory", lambda: 10_000_000)
    monkeypatch.setattr("adacd_cli.loading.load", lambda *_, **__: pytest.fail("it was tried"))
    outcome = adacd("doctor", "-m", "demo")
    assert outcome.code == 1
    assert "\n✗ Its weights need 14 MB in float32, and 10 MB are free on cpu.\n" in outcome.out
    # what the tokenizer alone tells is told
    assert "\nPrompts\n✓ The tokenizer has a chat template.\n" in outcome.out
    assert "An answer ends at" not in outcome.out
    assert outcome.out.endswith(
        "Verdict: does not fit into memory\nIts weights need 14 MB in float32, and 10 MB are free on cpu.\n"
    )


def test_damaged_files_are_a_finding(adacd: RunCommand, tmp_path: Path) -> None:
    save_tiny("llama", tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    outcome = adacd("doctor", "-m", str(tmp_path), "--quick", "--json")
    found = json.loads(outcome.out)
    assert (outcome.code, found["verdict"]) == (1, "cannot be used")
    assert found["reason"].startswith(f"config.json of {tmp_path} is not valid JSON")


def test_quick_asks_nothing(adacd: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adacd_cli.doctor.behaviour.ask", lambda *_: pytest.fail("it asked"))
    outcome = adacd("doctor", "--quick", "--max-new-tokens", "100")
    assert outcome.code == 0
    assert "both streams of a prompt and an answer,\n  356 tokens in all, 7 MB" in outcome.out
    assert outcome.out.endswith(
        "Behaviour\n- Nothing was asked, by --quick.\n\n"
        "Verdict: nothing against it, as far as was looked\nNothing was asked, by --quick.\n"
    )


def test_the_prompts_of_a_server_that_does_not_answer_are_looked_at(adacd: RunCommand) -> None:
    from adacd_cli.demo import model_folder

    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        outcome = adacd("doctor", "--json", "-m", address, "--tokenizer", str(model_folder()))
    found = json.loads(outcome.out)
    status = {each["name"]: each["status"] for each in found["findings"] if each["section"] == "Prompts"}
    assert (outcome.code, found["verdict"]) == (1, "cannot be used")
    assert status["chat template"] == "ok"


def test_a_model_that_is_served_elsewhere_has_no_weights_here(
    adacd: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    from adacd_cli.demo import model_folder

    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    served = LanguageModel(None, tokenizer, "small", None, frozenset({2}), 512)
    monkeypatch.setattr("adacd_cli.loading.load", lambda *_, **__: served)
    outcome = adacd("doctor", "--quick", "-m", "http://127.0.0.1:8080/v1")
    assert outcome.code == 0
    assert tail(outcome).startswith(
        "Model http://127.0.0.1:8080/v1\n"
        "- It runs elsewhere, so neither its weights nor its number format are known\n"
        "  here.\n"
        "✓ Its server answers, with a context of 512 tokens.\n"
    )
