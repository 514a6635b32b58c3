"""Bad input, as a user of `adacd generate` meets it: one clear line, a hint and an exit code."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adacd_cli.config import SETTINGS
from tests import processes
from tests.conftest import RunCommand

ROOT = Path(__file__).resolve().parents[2]
QUESTION = "How do I kill a Python process?"
EXAMPLE = 'Give one, e.g. `adacd generate "How do I kill a Python process?"`, or pipe it in.'


def refused(outcome: tuple[int, str, str], code: int, message: str, hint: str) -> None:
    assert outcome == (code, "", f"Error: {message}\nHint: {hint}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "The prompt is empty."),
        (["  \n "], "The prompt is empty."),
        (["-"], "The prompt is empty."),
        ([], "There is no prompt."),
    ],
)
def test_an_empty_prompt(adacd: RunCommand, arguments: list[str], message: str) -> None:
    refused(adacd("generate", *arguments), 2, message, EXAMPLE)


def test_no_prompt_on_a_terminal_does_not_wait_for_one() -> None:
    ours, theirs = pty.openpty()
    ran = subprocess.run(
        [sys.executable, "-m", "adacd_cli", "generate"],
        stdin=theirs,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    os.close(ours)
    os.close(theirs)
    refused((ran.returncode, ran.stdout, ran.stderr), 2, "There is no prompt.", EXAMPLE)


def test_a_silent_pipe_in_place_of_an_argument_is_waited_for_and_said() -> None:
    ran = subprocess.Popen(
        [sys.executable, "-m", "adacd_cli", "generate", "--model", "./nowhere", "-"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert ran.stderr is not None
    note = ran.stderr.readline()  # comes while the pipe is still open
    _, rest = ran.communicate("Hello", timeout=60)
    assert note == "Reading the prompt from standard input; `< /dev/null` says there is none.\n"
    assert (ran.returncode, rest.splitlines()[0]) == (3, "Error: The model folder ./nowhere does not exist.")


def _says_it_is_not_read(stdin: int, *quiet: str) -> bool:
    """Whether a command with a prompt says that it leaves stdin alone."""
    code, out, err = processes.run("generate", "-n", "0", "--no-stats", *quiet, "Hello", stdin=stdin)
    assert (code, out) == (0, "\n")
    return "Standard input is not read beside a prompt; `-` in its place reads it.\n" in err


@pytest.mark.slow
def test_an_argument_leaves_standard_input_to_the_loop_around_it(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("one\ntwo\n")
    with file.open() as opened:
        assert opened.readline() == "one\n"
        os.lseek(opened.fileno(), 4, os.SEEK_SET)
        assert not _says_it_is_not_read(opened.fileno())
        assert os.read(opened.fileno(), 10) == b"two\n"
    ours, theirs = os.pipe()
    assert not _says_it_is_not_read(ours)  # a pipe that nobody writes to nor closes
    os.write(theirs, b"notes")
    assert _says_it_is_not_read(ours)
    assert not _says_it_is_not_read(ours, "-q")
    os.close(theirs)
    assert os.read(ours, 10) == b"notes"
    assert not _says_it_is_not_read(ours)
    os.close(ours)


@pytest.mark.parametrize(
    ("environment", "arguments", "found"),
    [
        ({"LC_ALL": "C"}, ["--help"], "utf-8"),  # which needs no torch
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, ["--help"], "utf-8"),
        ({"PYTHONIOENCODING": "ascii"}, ["-n", "1", "Hello"], "ascii"),
    ],
)
def test_output_is_utf_8_whatever_the_locale(
    environment: dict[str, str], arguments: list[str], found: str
) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    ran = subprocess.run(
        [sys.executable, "-m", "adacd_cli", "explain", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        cwd=ROOT,
        env={**kept, **environment},
    )
    assert ran.returncode == 0
    assert ("α" if found == "utf-8" else r"\u03b1 4.5") in ran.stdout.decode(found)
    warned = b"characters could not be written in this encoding: escaped." in ran.stderr
    assert warned is (found != "utf-8")


def test_an_argument_does_not_wait_for_a_service_manager_to_close_stdin() -> None:
    """A socket that nobody writes to nor closes, as some supervisors hand it on."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert processes.run("generate", "-n", "0", "-q", "Hello", stdin=theirs.fileno()) == (0, "\n", "")


@pytest.mark.parametrize(
    ("arguments", "message", "name"),
    [
        (["-n", "-1"], "`max_new_tokens` is at least 0; got -1 (from --max-new-tokens).", "max_new_tokens"),
        (["--alpha", "nan"], "`alpha` is in [0, 1000000]; got nan (from --alpha).", "alpha"),
        (["--alpha", "-0.5"], "`alpha` is in [0, 1000000]; got -0.5 (from --alpha).", "alpha"),
        (["--alpha", "inf"], "`alpha` is in [0, 1000000]; got inf (from --alpha).", "alpha"),
        (["--lambda", "1.4"], "`agreement_threshold` is in [0, 1]; got 1.4 (from --agreement-threshold).", "agreement_threshold"),
        (["--beta", "-0.1"], "`plausibility` is in [0, 1]; got -0.1 (from --plausibility).", "plausibility"),
        (["--steps", "-1"], "`contrast_steps` is at least 0; got -1 (from --contrast-steps).", "contrast_steps"),
        (["-t", "-1"], "`temperature` is in [0, 100]; got -1 (from --temperature).", "temperature"),
    ],
)  # fmt: skip
def test_a_value_out_of_range(adacd: RunCommand, arguments: list[str], message: str, name: str) -> None:
    refused(adacd("generate", QUESTION, *arguments), 2, message, SETTINGS[name].sentence)


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--method", "adac"], "Unknown method 'adac' (from --method).", "Available: default, prompt, selfcd, safedecoding, ssd, surgical, adacd, adacd-gated, fitted. Did you mean 'adacd'?"),
        (["--device", "gpu0"], "Unknown device 'gpu0' (from --device).", "Available: auto, cpu, cuda, cuda:N, mps."),
        (["--dtype", "float8"], "Unknown dtype 'float8' (from --dtype).", "Available: auto, bfloat16, float16, float32. Did you mean 'float32'?"),
        (["-C", "lama3-8b"], "There is no preset and no file named 'lama3-8b' (from --config).", "Name a YAML file or a preset. Available: default, gemma2-9b, llama3-8b, qwen3-8b. Did you mean 'llama3-8b'?"),
    ],
)  # fmt: skip
def test_an_unknown_name(adacd: RunCommand, arguments: list[str], message: str, hint: str) -> None:
    refused(adacd("generate", QUESTION, *arguments), 2, message, hint)


def test_malformed_yaml(adacd: RunCommand, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("alpha: 4.5\nstop: [a\n", encoding="utf-8")
    refused(
        adacd("generate", QUESTION, "-C", str(file)),
        2,
        f"{file}, line 3 is not valid YAML: expected ',' or ']', but got '<stream end>'.",
        "Write one `name: value` a line; configs/default.yaml shows every setting.",
    )


def test_text_that_is_not_utf_8(adacd: RunCommand, tmp_path: Path) -> None:
    hint = "Convert it first, e.g. with `iconv -t utf-8`."
    refused(
        adacd("generate", stdin=b"caf\xe9"),
        2,
        "Standard input is not UTF-8: byte 4, on line 1, is 0xe9.",
        hint,
    )
    refused(adacd("generate", "caf\udce9"), 2, "The prompt is not UTF-8: byte 4, on line 1, is 0xe9.", hint)
    file = tmp_path / "questions.txt"
    file.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    hint = "Name a text file in UTF-8, or in UTF-16 with a byte order mark."
    refused(adacd("generate", "-f", str(file)), 2, f"{file} is not text.", hint)


def test_a_prompt_file_that_is_missing_or_empty_or_one_too_many(adacd: RunCommand, tmp_path: Path) -> None:
    hint = "Name a CSV, JSON or text file."
    message = "The file no-such.txt could not be read: No such file or directory."
    refused(adacd("generate", "-f", "no-such.txt"), 2, message, hint)
    message = f"The file {tmp_path} could not be read: Is a directory."
    refused(adacd("generate", "-f", str(tmp_path)), 2, message, hint)
    refused(
        adacd("generate", "-f", "-", stdin="\n \n"),
        2,
        "Standard input has no prompt in it.",
        "Write one prompt a line.",
    )
    refused(
        adacd("generate", QUESTION, "-f", "-"),
        2,
        "There is both a prompt and a --file.",
        "Leave one of them out.",
    )
    refused(
        adacd("generate", QUESTION, "--batch-size", "2"),
        2,
        "--batch-size is for the lines of --file.",
        "Leave it out, or name a file.",
    )


def test_answers_do_not_replace_their_own_prompts(adacd: RunCommand, tmp_path: Path) -> None:
    file = tmp_path / "questions.txt"
    file.write_text("How do I bake bread?\n")
    refused(
        adacd("generate", "-f", str(file), "-o", str(file)),
        2,
        f"The answers would replace the prompts in '{file}'.",
        "Name another file with --output.",
    )
    assert file.read_text() == "How do I bake bread?\n"


def test_an_output_file_that_cannot_be_written_is_found_before_the_model_is_loaded(
    adacd: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("adacd_cli.loading.load")
    hint = "Name a file in a folder that exists and that you may write to."
    for path, reason in (
        (tmp_path / "no" / "answer.txt", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        message = f"The output file '{path}' could not be written: {reason}."
        refused(adacd("generate", QUESTION, "-o", str(path)), 1, message, hint)
    message, hint = "The output file has no name.", "Name a file, or leave --output out."
    refused(adacd("generate", QUESTION, "-o", ""), 1, message, hint)


def test_a_prompt_longer_than_the_context(adacd: RunCommand) -> None:
    code, out, err = adacd("generate", stdin="word " * 600)
    assert (code, out) == (2, "")
    message, hint = err.splitlines()
    assert message.startswith("Error: The prompt is ")
    assert message.endswith(", and the model's context is 512, the answer included.")
    assert hint == "Hint: Shorten the prompt, or use a model with a longer context."


@pytest.mark.parametrize("model", ["no-such-owner/no-such-model", "meta-llama/Meta-Llama-3-8B-Instruct"])
def test_a_hub_id_while_offline_is_refused_within_three_seconds(adacd: RunCommand, model: str) -> None:
    begin = time.perf_counter()
    code, out, err = adacd("generate", QUESTION, "--offline", "--model", model)
    elapsed = time.perf_counter() - begin
    assert (code, out) == (3, "")
    message, hint = err.splitlines()
    assert message == f"Error: Model '{model}' is not on this machine, and adacd is offline."
    assert hint.startswith("Hint: Run once without --offline")
    assert elapsed < 3


def test_a_folder_that_is_missing_or_empty(adacd: RunCommand, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        code, out, err = adacd("generate", QUESTION, "--model", str(folder))
        assert (code, out) == (3, "")
        message, hint = err.splitlines()
        assert message.startswith("Error: ") and str(folder) in message
        assert hint.startswith("Hint: ")


def test_a_device_that_is_not_here(adacd: RunCommand) -> None:
    code, out, err = adacd("generate", QUESTION, "--device", "cuda:99")
    assert (code, out) == (3, "")
    message, hint = err.splitlines()
    assert message.startswith("Error: There is no device 'cuda:99' here")
    assert hint.startswith("Hint: Available: auto, cpu")


def test_running_out_of_memory(adacd: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def fail(*_: object, **__: object) -> None:
        torch.empty(2**50)

    monkeypatch.setattr("adacd_cli.loading.load", fail)
    refused(
        adacd("generate", QUESTION),
        1,
        "Out of memory.",
        "Try a smaller --max-new-tokens or --batch-size, --dtype bfloat16 or --quantize.",
    )


CLOSED = "Error: Standard output is closed.\nHint: Redirect it to a file or a pipe.\n"


@pytest.mark.parametrize("command", ["generate hi", "compare hi", "explain hi", "chat", "generate hi -o -"])
def test_a_closed_stdout_is_named_before_the_model_is_loaded(command: str) -> None:
    assert processes.run(*command.split(), "-m", "no/such-model", stdout=None) == (1, "", CLOSED)


def test_a_shell_may_close_stdout() -> None:
    program = f"{sys.executable} -m adacd_cli generate hi -m no/such-model >&-"
    ran = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", CLOSED)


@pytest.mark.parametrize("command", ["generate hi", "chat", "explain hi", "compare hi"])
def test_what_a_method_lacks_is_named_before_the_model_is_looked_for(adacd: RunCommand, command: str) -> None:
    outcome = adacd(*command.split(), "--method", "ssd", "-m", "no/such-model")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Error: Method ssd needs `draft`.\nHint: Give --draft DRAFT. ")


def test_what_does_not_decode_by_the_method_needs_nothing_for_it(adacd: RunCommand, tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text("method: surgical\n")
    assert adacd("config", "show", "-C", str(config)).code == 0
    assert adacd("generate", "hi", "-n", "0", "-q", "-C", str(config), "--method", "default").code == 0
    outcome = adacd("direction", "build", "-C", str(config))
    assert outcome.err.startswith("Error: --harmful is missing.\n")


def test_a_closed_stdout_is_not_needed_beside_a_file(tmp_path: Path) -> None:
    answer = tmp_path / "answer.txt"
    assert processes.run("generate", "hi", "-q", "-n", "0", "-o", str(answer), stdout=None) == (0, "", "")
    assert answer.read_text() == "\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_notes_that_cannot_be_written_change_nothing(adacd: RunCommand) -> None:
    command = "generate", QUESTION, "-n", "5"
    quiet = adacd(*command, "-q")
    assert quiet.code == 0 and quiet.out
    with open("/dev/full", "w") as full:
        assert processes.run(*command, "--show-prompts", stderr=full.fileno()) == quiet
        assert processes.run(*command, "--alpha", "-1", stderr=full.fileno()) == (2, "", "")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    reading, writing = os.pipe()
    process = processes.Process("generate", "--json", "-n", "400", "-t", "2", QUESTION, stdout=writing)
    os.close(writing)
    with open(reading) as lines:
        assert json.loads(lines.readline())["event"] == "started"
    assert process.end() == (0, "", "")
