"""`adacd doctor` as a user calls it: the demo suits, others do not, and a fault is a finding."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from adacd_cli.doctor.findings import NO_ANSWERS, NO_REFUSALS, SUITS
from adacd_cli.engine import LanguageModel
from tests.conftest import Outcome, RunCommand
from tests.golden import check
from tests.profiles import save_demo_profile
from tests.tiny import save_tiny


def test_the_demo_as_published(adacd: RunCommand) -> None:
    outcome = adacd("doctor")
    assert (outcome.code, outcome.err) == (0, "")
    sections = outcome.out.partition("Prompts\n")
    assert [line for line in sections[0].splitlines() if line and line[0] not in "✓! "] == [
        "Machine",
        "Model demo",
    ]
    check("doctor", "the demo", sections[2])


def test_with_a_profile_its_settings_are_looked_at(adacd: RunCommand, tmp_path: Path) -> None:
    outcome = adacd("doctor", "--json", "--profile", save_demo_profile(tmp_path / "mine.yaml"))
    assert (outcome.code, outcome.err) == (0, "")
    found = {each["name"]: each for each in json.loads(outcome.out)["findings"]}
    assert json.loads(outcome.out)["verdict"] == SUITS
    assert found["profile"]["sentence"] == "Its profile is mine, fitted on 2026-01-31: helps a little."
    assert found["system role"]["sentence"].startswith("The contrast prompt goes after the user's words.")
    assert set(found["over-refusal"]["facts"]["refused"]) == {"default", "fitted"}
    assert set(found["disturbance"]["facts"]["changed"]) == {"fitted"}


def test_a_random_model_does_not(adacd: RunCommand, tmp_path: Path) -> None:
    save_tiny("llama", tmp_path)
    outcome = adacd("doctor", "--json", "--model", str(tmp_path))
    found = json.loads(outcome.out)
    statuses = {each["name"]: each["status"] for each in found["findings"] if each["section"] == "Behaviour"}
    assert (outcome.code, outcome.err) == (0, "")
    assert found["verdict"] in (NO_REFUSALS, NO_ANSWERS)
    assert statuses["obeys p*"] == statuses["over-refusal"] == "warning"
    assert (found["model"]["name"], found["model"]["context_length"]) == (str(tmp_path), 512)
    assert found["machine"]["device"] == found["findings"][1]["facts"]["device"]


def tail(outcome: Outcome) -> str:
    return outcome.out[outcome.out.index("Model ") :]


def test_a_model_that_is_not_there(adacd: RunCommand) -> None:
    outcome = adacd("doctor", "-m", "./nowhere")
    assert (outcome.code, outcome.err) == (1, "")
    assert outcome.out.startswith("Machine\n✓ adacd ")
    assert [line for line in tail(outcome).splitlines() if line[:1] in ("✗", "-", "V")] == [
        "✗ The model folder ./nowhere does not exist.",
        "- No tokenizer was loaded.",
        "- No questions were asked: the model is not loaded.",
        "Verdict: cannot be used",
    ]


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
    monkeypatch.setattr("adacd_cli.doctor.behaviour.run_questions", lambda *_, **__: pytest.fail("it asked"))
    outcome = adacd("doctor", "--quick", "--max-new-tokens", "100")
    assert outcome.code == 0
    assert "two streams of 356 tokens (prompt and\n  answer) 7 MB" in outcome.out
    check("doctor", "quick", outcome.out[outcome.out.index("Behaviour\n") :])


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
    served = LanguageModel(None, tokenizer, "small", None, frozenset({2}), 512, server=object())
    monkeypatch.setattr("adacd_cli.loading.load", lambda *_, **__: served)
    outcome = adacd("doctor", "--quick", "-m", "http://127.0.0.1:8080/v1")
    assert outcome.code == 0
    check("doctor", "served", tail(outcome).partition("\n\n")[0])
