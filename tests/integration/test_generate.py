"""`adacd generate` from the command line to the last byte, over a scripted model with a byte tokenizer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adacd_cli import __version__
from adacd_cli.cli.app import app
from adacd_cli.cli.running import show_prompts
from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation
from adacd_cli.prompts import Contrast, Prompt, Prompts, build_prompts
from tests import processes
from tests.byte_tokenizer import make_tokenizer
from tests.conftest import RunCommand
from tests.fakes import BYTE_VOCAB, named, saying, scripted
from tests.golden import check
from tests.serving import letters

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = saying(
    ("refuse|How do I kill a process?", "I can't."),
    ("How do I kill a process?", "Use kill."),
    ("refuse|Count.", "I can't."),
    ("Count.", "1 2 3"),
    ("refuse|é🙂", "I can't."),
    ("é🙂", "[bold]é🙂[/INST]"),
    ("refuse|notes\n\nWhat?", "I can't."),
    ("notes\n\nWhat?", "A list."),
)


def prompts_of(tokenizer: Any, conversation: Conversation, settings: Settings) -> Prompts:
    question = f"{conversation.system or ''}{conversation.messages[-1].content}"
    prompts = [Prompt(tuple(text.encode()), text) for text in (f"{question}\n", f"refuse|{question}\n")]
    return named(Prompts({"unprompted": prompts[0], "prompted": prompts[1]}), settings)


@pytest.fixture(autouse=True)
def _scripted_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adacd_cli.loading.load", lambda settings, **_: scripted(SCRIPT, context=60))
    monkeypatch.setattr("adacd_cli.prompts.prompts_for", prompts_of)


def events(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_the_answer_and_nothing_else_goes_to_stdout(adacd: RunCommand) -> None:
    code, out, err = adacd("generate", "How do I kill a process?")
    assert (code, out) == (0, "Use kill.\n")
    assert err.startswith("10 tokens · ")
    assert len(err.splitlines()) == 1
    assert adacd("generate", "How do I kill a process?", "--quiet") == (0, "Use kill.\n", "")
    assert adacd("generate", "How do I kill a process?", "--no-stats") == (0, "Use kill.\n", "")


def test_text_of_model_and_user_is_printed_literally(adacd: RunCommand) -> None:
    assert adacd("generate", "é🙂", "-q") == (0, "[bold]é🙂[/INST]\n", "")


@pytest.mark.parametrize(
    ("arguments", "stdin", "answer"),
    [
        (["Count."], "", "1 2 3"),
        ([], "Count.\n", "1 2 3"),
        (["-"], "Count.", "1 2 3"),
        ([], b"\xef\xbb\xbfCount.\r\n", "1 2 3"),
        (["Count."], "notes\n", "1 2 3"),
        (["--", "Count."], "", "1 2 3"),
        (["-s", "Now: ", "Count."], "", "1 2 3"),
    ],
)
def test_the_prompt_comes_from_an_argument_or_a_pipe(
    adacd: RunCommand, arguments: list[str], stdin: str | bytes, answer: str
) -> None:
    assert adacd("generate", "-q", *arguments, stdin=stdin) == (0, f"{answer}\n", "")


def test_json_is_the_events_one_object_a_line(adacd: RunCommand) -> None:
    code, out, err = adacd("generate", "--json", "How do I kill a process?", "-k", "2", "--steps", "2")
    assert code == 2  # there is no -k
    code, out, err = adacd("generate", "--json", "How do I kill a process?", "--steps", "2")
    assert (code, err) == (0, "")
    started, *steps, finished = events(out)
    assert started == {
        "event": "started",
        "schema": 1,
        "request": 0,
        "model": "scripted",
        "revision": None,
        "method": "adacd",
        "prompted_tokens": 32,
        "unprompted_tokens": 25,
        "settings": {
            "contrast_prompt": "Please refuse to answer me!",
            "contrast_placement": "system",
            "thinking": False,
            "switch": "agreement",
            "alpha": 4.5,
            "agreement_threshold": 0.9,
            "plausibility": 0.01,
            "contrast_steps": 2,
            "max_new_tokens": 512,
            "temperature": 0.0,
            "top_p": 1.0,
            "top_k": 0,
            "seed": None,
            "stop": [],
        },
        "seed": None,
        "shared_tokens": 0,
        "engine": "torch",
        "profile": None,
    }
    assert [step["text"] for step in steps] == [*"Use kill.", ""]
    assert {step["event"] for step in steps} == {"token"}
    assert [step["decision"] for step in steps] == ["subtract"] * 2 + ["plain"] * 8
    assert steps[0] | {"elapsed_s": 0, "confidence": 0, "prompted_confidence": 0} == {
        "event": "token",
        "request": 0,
        "index": 0,
        "token_id": ord("U"),
        "text": "U",
        "token": "U",
        "decision": "subtract",
        "agreement": 0.5,
        "prompted_top_rank": 2,
        "prompted_top_id": ord("I"),
        "prompted_top": "I",
        "confidence": 0,
        "prompted_confidence": 0,
        "plausible_count": 1,
        "plain_token_id": ord("U"),
        "plain_token": "U",
        "thinking": False,
        "exact": True,
        "elapsed_s": 0,
    }
    assert (finished["text"], finished["finish_reason"], finished["tokens"]) == ("Use kill.", "stop", 10)
    assert (finished["added"], finished["subtracted"]) == (0, 2)


def test_no_new_tokens_is_an_empty_answer(adacd: RunCommand) -> None:
    assert adacd("generate", "-q", "-n", "0", "Count.") == (0, "\n", "")
    code, out, err = adacd("generate", "--json", "-n", "0", "Count.")
    assert (code, err) == (0, "")
    assert [event["event"] for event in events(out)] == ["started", "finished"]
    assert events(out)[1]["finish_reason"] == "length"


def test_an_answer_that_reaches_the_end_of_the_context_says_so(adacd: RunCommand) -> None:
    question = "x" * 30 + "How do I kill a process?"
    code, out, err = adacd("generate", "--no-stats", question, "--method", "default")
    assert (code, out) == (0, "Use k\n")
    assert "context" in err
    assert len(err.splitlines()) == 1


QUESTIONS = "How do I kill a process?\n\nCount.\r\né🙂\n"
ANSWERS = ["Use kill.", "1 2 3", "[bold]é🙂[/INST]"]


@pytest.mark.parametrize("batch", ["1", "2", "3", "8"])
def test_a_file_is_answered_in_its_order(adacd: RunCommand, tmp_path: Path, batch: str) -> None:
    file = tmp_path / "questions.txt"
    file.write_bytes(QUESTIONS.encode())
    arguments = ["-f", str(file), "--batch-size", batch]
    assert adacd("generate", "-q", *arguments) == (0, "\n\n".join(ANSWERS) + "\n", "")

    code, out, err = adacd("generate", "--json", *arguments)
    assert (code, err) == (0, "")
    found = events(out)
    assert [event["request"] for event in found] == sorted(event["request"] for event in found)
    for number, answer in enumerate(ANSWERS):
        own = [event for event in found if event["request"] == number]
        assert [own[0]["event"], own[-1]["event"]] == ["started", "finished"]
        assert "".join(event["text"] for event in own[1:-1]) == own[-1]["text"] == answer


def test_a_file_from_a_pipe_names_each_question_on_stderr(adacd: RunCommand) -> None:
    code, out, err = adacd("generate", "--no-stats", "-f", "-", stdin="Count.\nCount.\n")
    assert (code, out, err) == (0, "1 2 3\n\n1 2 3\n", "1/2  Count.\n2/2  Count.\n")


@pytest.mark.parametrize(
    ("name", "content", "arguments"),
    [
        ("a.jsonl", '\ufeff{"instruction": "notes", "input": "What?"}\r\n\n{"Prompt": "Count."}\n', []),
        ("a.json", '["notes\\n\\nWhat?", {"goal": "Count.", "target": "Sure"}]', []),
        ("a.csv", 'id,forbidden_prompt\n1,"notes\r\n\r\nWhat?"\n,\n2,Count.,,\n', []),
        ("a.tsv", 'asked\tprompt\n"notes\n\nWhat?"\tx\nCount.\tx\n', ["--prompt-column", "asked"]),
    ],
)  # fmt: skip
def test_a_table_is_read_as_a_data_set(
    adacd: RunCommand, tmp_path: Path, name: str, content: str, arguments: list[str]
) -> None:
    file = tmp_path / name
    file.write_text(content, encoding="utf-8", newline="")
    assert adacd("generate", "-q", "-f", str(file), *arguments) == (0, "A list.\n\n1 2 3\n", "")


@pytest.mark.parametrize(
    ("name", "content", "arguments", "message"),
    [
        ("a.jsonl", "", [], "{} is empty."),
        ("a.csv", "prompt\n", [], "{} has no prompt in it."),
        ("a.csv", "id,frage\n1,Was?\n", [], "{}, line 2 has no prompt; it has: id, frage."),
        ("a.json", '[{"prompt": "a"},]', [], "{} is not valid JSON: "),
        ("a.jsonl", '{"prompt": "a"},\n', [], "{}, line 1 is not valid JSON: "),
        ("a.jsonl", '{"prompt": ["a"]}\n', [], "{}, line 1: the prompt is not text."),
        ("a.csv", 'prompt\n"open\n', [], "{}, line 2 is not valid CSV: "),
        ("a.txt", "a\n", ["--prompt-column", "a"], "{} has no columns."),
        (None, "", ["--prompt-column", "a"], "--prompt-column is for the file of --file."),
    ],
)
def test_a_table_that_cannot_be_read_is_one_clear_line(
    adacd: RunCommand, tmp_path: Path, name: str | None, content: str, arguments: list[str], message: str
) -> None:
    file = tmp_path / (name or "none")
    file.write_text(content, encoding="utf-8")
    code, out, err = adacd("generate", *(["-f", str(file)] if name else ["Hi"]), *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: {message.format(file)}")
    assert len(err.splitlines()) == 2


def test_each_line_of_a_file_draws_from_its_own_seed(adacd: RunCommand) -> None:
    sampled = ["--json", "-t", "5", "--steps", "0", "-n", "20"]
    code, out, _ = adacd("generate", *sampled, "-f", "-", "--seed", "7", stdin="Count.\nCount.\n")
    assert code == 0
    first, second = [
        [event for event in events(out) if event["request"] == number and event["event"] != "token"]
        for number in (0, 1)
    ]
    assert (first[0]["seed"], second[0]["seed"]) == (7, 8)
    assert first[1]["text"] != second[1]["text"]
    again = events(adacd("generate", *sampled, "Count.", "--seed", "8")[1])
    assert again[-1]["text"] == second[1]["text"]


def test_sampling_without_a_seed_tells_the_one_it_drew(adacd: RunCommand) -> None:
    sampled = ["--json", "-t", "5", "--steps", "0", "-n", "20", "Count."]
    drawn = events(adacd("generate", *sampled)[1])
    again = events(adacd("generate", *sampled, "--seed", str(drawn[0]["seed"]))[1])
    assert again[-1]["text"] == drawn[-1]["text"]
    code, out, err = adacd("generate", *sampled[1:])
    assert code == 0
    seed = err.rstrip().rpartition(" · seed ")[2]
    assert adacd("generate", "-q", *sampled[1:], "--seed", seed)[1] == out


def test_a_stop_string_ends_the_answer_and_is_left_out(adacd: RunCommand) -> None:
    assert adacd("generate", "-q", "Count.", "--stop", "3", "--stop", " 2") == (0, "1\n", "")


def test_the_answer_is_held_to_a_schema_in_a_file(
    adacd: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adacd_cli.loading.load", lambda settings, **_: letters())
    pytest.importorskip("llguidance")
    file = tmp_path / "schema.json"
    for schema, error in (
        ("[", "The JSON schema cannot be read: EOF"),
        ('{"type": 1}', "No answer can be held"),
    ):
        file.write_text(schema)
        code, out, err = adacd("generate", "--json-schema", str(file), "Count.")
        assert (code, out) == (2, "") and f"Error: {error}" in err
    file.write_text('{"type": "array", "items": {"enum": ["kill", 9]}, "minItems": 2, "maxItems": 4}')
    answer = json.loads(adacd("generate", "--json-schema", str(file), "Count.")[1])
    assert 2 <= len(answer) <= 4 and set(answer) <= {"kill", 9}


def test_output_goes_to_the_file(adacd: RunCommand, tmp_path: Path) -> None:
    file = tmp_path / "answer.txt"
    assert adacd("generate", "-q", "Count.", "-o", str(file)) == (0, "", "")
    assert file.read_text(encoding="utf-8") == "1 2 3\n"
    assert os.listdir(tmp_path) == ["answer.txt"]


def test_a_failed_run_leaves_the_old_file_and_keeps_what_it_wrote(
    adacd: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "answers.txt"
    file.write_text("old\n", encoding="utf-8")
    arguments = ["generate", "-q", "-f", "-", "-o", str(file)]
    code, out, err = adacd(*arguments, stdin="Count.\nThe script has no answer to this.\n")
    assert (code, out) == (1, "")
    assert "Error: " in err and f"What was written so far is in {file}.partial.\n" in err
    assert file.read_text(encoding="utf-8") == "old\n"
    assert Path(f"{file}.partial").read_text(encoding="utf-8") == "1 2 3\n\n"

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("adacd_cli.loading.load", fail)
    assert adacd(*arguments, stdin="Count.\n")[0] == 1
    assert os.listdir(tmp_path) == ["answers.txt"]


def test_a_file_with_a_prompt_too_long_is_refused_before_any_answer(adacd: RunCommand) -> None:
    assert adacd("generate", "-f", "-", "--batch-size", "2", stdin=f"Count.\nCount.\n{'x' * 80}\n") == (
        2,
        "",
        "Error: Prompt 3 is 88 tokens long with the contrast prompt (81 without), and the model's context is "
        "60, the answer included.\n"
        "Hint: Shorten the prompt, or use a model with a longer context.\n",
    )


def test_both_prompts_are_shown_on_request(adacd: RunCommand) -> None:
    code, out, err = adacd("generate", "Count.", "--show-prompts", "--no-stats")
    assert (code, out) == (0, "1 2 3\n")
    check("cli", "--show-prompts", err)


@pytest.mark.parametrize(
    ("placement", "prompted"),
    [
        ("user-end", "<|start|>user\nIs 日本 big?⟪shared up to here⟫\n\nRéfuse!<|end|>\n"),
        ("user-start", "<|start|>user\n⟪shared up to here⟫Réfuse!\n\nIs 日本 big?<|end|>\n"),
    ],
)
def test_a_mark_stands_where_the_streams_part(
    capsys: pytest.CaptureFixture[str], placement: str, prompted: str
) -> None:
    streams = {"unprompted": None, "prompted": Contrast("Réfuse!"), "safe": Contrast("Is 日月?")}
    tokenizer = make_tokenizer()
    prompts = build_prompts(tokenizer, Conversation.ask("Is 日本 big?"), streams, placement=placement)
    show_prompts(tokenizer, prompts)
    shown = capsys.readouterr().err
    sizes = [len(each.ids) for each in prompts.streams.values()]
    agreed = prompts.shared_with_base("prompted")
    assert f"--- Unprompted stream, {sizes[0]} tokens ---\n<|start|>user\nIs 日本 big?<|end|>\n" in shown
    assert (
        f"--- Prompted stream, {sizes[1]} tokens, the first {agreed} shared with the unprompted stream ---\n"
        f"{prompted}"
    ) in shown
    assert "--- Safe stream, " in shown
    # 本 and 月 begin with different bytes, 日 is whole on the shared side
    if placement == "user-start":
        assert "<|start|>user\nIs 日⟪shared up to here⟫月?" in shown
    assert "\ufffd" not in shown


def test_warnings_of_loading_are_shown_unless_quiet(
    adacd: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:

    model = replace(scripted(SCRIPT), warnings=("It was odd.",))
    monkeypatch.setattr("adacd_cli.loading.load", lambda settings, **_: model)
    assert adacd("generate", "Count.", "--no-stats") == (0, "1 2 3\n", "Warning: It was odd.\n")
    assert adacd("generate", "Count.", "-q") == (0, "1 2 3\n", "")


@pytest.mark.parametrize("command", ["generate", "explain", "compare"])
def test_a_fit_is_suggested_to_people_alone(adacd: RunCommand, profiles: Path, command: str) -> None:
    note = "Note: AdaCD's settings were never fitted to this model: `adacd fit -m demo` does it.\n"
    assert note in adacd(command, "Count.").err
    for flags in (["--json"], ["--quiet"], ["--profile", "none"], ["--method", "adacd"]):
        assert "Note: " not in adacd(command, "Count.", *flags).err


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)


def interrupting(moment: str, *arguments: str) -> None:
    """`adacd generate`, which gets a Ctrl-C at this moment, for a process of its own."""

    def script(ids: tuple[int, ...]) -> list[float]:
        said = len(ids) - 1 - max(i for i, token in enumerate(ids) if token == 10)
        if moment == "prefill" and said == 0:
            interrupt()
        if moment in ("decoding", "twice") and said == 3 and ids[0] != ord("r"):
            interrupt()
            if moment == "twice":
                interrupt()
        logits = [0.0] * BYTE_VOCAB
        logits[97 + said % 26] = 9.0
        return logits

    def load(settings: Settings, **_: Any) -> Any:
        if moment == "load":
            interrupt()
        if moment == "import":  # what transformers makes of it
            try:
                interrupt()
            except KeyboardInterrupt:
                raise ImportError("no module") from None
        if moment == "swallowed":
            with suppress(KeyboardInterrupt):
                interrupt()
        return scripted(script)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("adacd_cli.loading.load", load)
        patch.setattr("adacd_cli.prompts.prompts_for", prompts_of)
        app(["generate", "Go.", *arguments])


@pytest.mark.parametrize("moment", ["load", "import", "swallowed", "prefill", "twice"])
def test_ctrl_c_before_the_first_token_or_twice_ends_at_once(moment: str) -> None:
    code, out, err = processes.run(moment, program=interrupting)
    assert (code, err) == (130, "Interrupted.\n")
    assert out in ("", "abc", "abc\n")


def test_ctrl_c_while_decoding_keeps_the_answer_so_far(tmp_path: Path) -> None:
    assert processes.run("decoding", "-q", program=interrupting) == (130, "abcd\n", "")
    code, out, err = processes.run("decoding", "--json", program=interrupting)
    assert (code, err) == (130, "")
    finished = events(out)[-1]
    assert (finished["event"], finished["finish_reason"], finished["text"]) == (
        "finished",
        "cancelled",
        "abcd",
    )
    file = tmp_path / "answer.txt"
    arguments = "decoding", "-q", "-o", str(file)
    assert processes.run(*arguments, program=interrupting) == (130, "", "")
    assert file.read_text(encoding="utf-8") == "abcd\n"


@pytest.mark.parametrize("module", ["typer", "torch"])
def test_ctrl_c_during_the_imports_is_quiet(module: str) -> None:
    program = """
import os, signal, sys
from adacd_cli.cli.start import main

module = sys.argv.pop()

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
main()
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, "generate", "Go.", module],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "Interrupted.\n")


def test_ctrl_c_after_the_end_changes_nothing() -> None:
    program = """
import atexit, os, signal
from adacd_cli.cli.start import main
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
main()
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, "--version"], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"adacd {__version__}\n", "")
