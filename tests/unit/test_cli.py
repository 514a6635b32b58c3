"""The command line around the commands: help, completion, usage errors, the boundary."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from adacd_cli import __version__
from adacd_cli.cli import config as config_command
from adacd_cli.cli.app import COMMANDS
from adacd_cli.cli.errors import guarded
from adacd_cli.config import SETTINGS
from adacd_cli.errors import AdacdError, ModelError
from tests.conftest import RunCommand

HELP = """\
Usage: adacd [OPTIONS] COMMAND [ARGS]...

  Chat with models that stop refusing harmless questions, and see why, token by
  token.

Options:
  -V, --version         Print the version.
  --debug               Show the traceback of an error.
  --install-completion  Install completion for the current shell.
  --show-completion     Show completion for the current shell, to copy it or
                        customize the installation.
  -h, --help            Show this message and exit.

Commands:
  generate   Answer a prompt.
  compare    Show Default and AdaCD side by side.
  explain    Show why each token was chosen.
  chat       Talk with the model.
  serve      Serve the model to OpenAI's clients, and a page to try it.
  eval       Measure methods on data sets: refusals, safety, cost.
  judge      Judge answers made elsewhere.
  bench      Measure how fast a model decodes here.
  doctor     Say whether machine and model are fit for AdaCD.
  datasets   List the data sets of eval.
  tune       Seek AdaCD's settings for a model.
  direction  Make the directions of method surgical.
  config     Show the settings and where they come from.
"""


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",)])
def test_help_names_every_command(adacd: RunCommand, arguments: tuple[str, ...]) -> None:
    assert adacd(*arguments) == (0, HELP, "")


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(adacd: RunCommand, flag: str) -> None:
    assert adacd(flag) == (0, f"adacd {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["genrate"], "There is no command 'genrate'.", "Did you mean `adacd generate`?"),
        (["zzz"], "There is no command 'zzz'.", "Commands: generate, compare, explain, chat, serve, eval, judge, bench, doctor, datasets, tune, direction, config."),
        (["--zzz"], "There is no option --zzz.", "`adacd --help` lists the options."),
        (["--versio"], "There is no option --versio.", "Did you mean --version?"),
        (["config", "shw"], "No such command 'shw'. Did you mean 'show'?", "`adacd config --help` lists the options."),
        (["config", "show", "--alfa", "1"], "There is no option --alfa.", "Did you mean --alpha?"),
        (["config", "show", "--alpha"], "--alpha takes a value.", "Write it after --alpha."),
        (["config", "show", "a", "b"], "Got unexpected extra argument(s) (a b).", "Put quotes around a prompt of several words."),
        (["config", "show", "--alpha", "-1"], "`alpha` is in [0, 1000000]; got -1 (from --alpha).", SETTINGS["alpha"].sentence),
        (["config", "show", "--alpha", "x"], "`alpha` takes a number; got 'x' (from --alpha).", SETTINGS["alpha"].sentence),
        (["config", "show", "--lambda", "2"], "`agreement_threshold` is in [0, 1]; got 2 (from --agreement-threshold).", SETTINGS["agreement_threshold"].sentence),
        (["config", "show", "--set", "alfa=1"], "There is no setting `alfa` (from --set).", "Did you mean `alpha`?"),
        (["config", "show", "-C", "qwen3"], "There is no preset and no file named 'qwen3' (from --config).", "Name a YAML file or a preset. Available: default, gemma2-9b, llama3-8b, qwen3-8b. Did you mean 'qwen3-8b'?"),
        (["generate", "--batch-size", "0", "-f", "x"], "--batch-size takes a whole number, at least 1, or auto; got '0'.", "Try --batch-size auto, or a smaller number where memory runs out."),
    ],
)  # fmt: skip
def test_a_usage_error_is_two_lines_and_exit_code_2(
    adacd: RunCommand, arguments: list[str], message: str, hint: str
) -> None:
    assert adacd(*arguments) == (2, "", f"Error: {message}\nHint: {hint}\n")


def test_every_setting_has_its_flags_in_the_help_text(adacd: RunCommand) -> None:
    code, out, err = adacd("config", "show", "--help")
    assert (code, err) == (0, "")
    for setting in SETTINGS.values():
        for name in setting.option.names:
            for flag in name.split("/"):
                assert f" {flag}" in out
    flat = " ".join(out.split())
    assert "--alpha NUMBER Strength α of the contrast (in [0, 1000000]; default 4.5)." in flat
    assert (
        "--dtype NAME Number format of the weights; auto is the checkpoint's own on a GPU, on a CPU bfloat16 "
        "where it is native and pays, else float32 (one of auto,"
    ) in flat
    assert "-q, --quiet Show nothing but the answer and errors (default off)." in flat


def test_config_alone_shows_its_help(adacd: RunCommand) -> None:
    code, out, err = adacd("config")
    assert (code, err) == (0, "")
    assert out.startswith("Usage: adacd config [OPTIONS] COMMAND [ARGS]...\n")


def test_config_show_names_every_value_and_its_source(adacd: RunCommand, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("model: somewhere\nstop: ['\\n', é]\n", encoding="utf-8")
    arguments = ["-C", str(file), "--lambda", "0", "--no-stats", "--set", "top_k=7", "--system", ""]
    code, out, err = adacd("config", "show", *arguments, env={"ADACD_SEED": "3"})
    assert (code, err) == (0, "")
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert [name for name, _ in lines] == list(SETTINGS)
    shown = {name: " ".join(rest.split()) for name, rest in lines if not rest.endswith("default")}
    assert shown == {
        "model": f'"somewhere" {file}, line 1',
        "system": '"" --system',
        "agreement_threshold": "0.0 --agreement-threshold",
        "top_k": "7 --set",
        "seed": "3 ADACD_SEED",
        "stop": f'["\\\\n", "é"] {file}, line 2',
        "stats": "false --stats",
    }


def test_config_show_json(adacd: RunCommand) -> None:
    code, out, err = adacd("config", "show", "--json", "-n", "0")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert list(rows) == list(SETTINGS)
    assert rows["max_new_tokens"] == {"value": 0, "source": "flag", "where": "--max-new-tokens"}
    assert rows["stop"] == {"value": [], "source": "default", "where": ""}


def completions(words: str, position: int) -> list[str]:
    environment = os.environ | {
        "_ADACD_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(position),
    }
    command = [sys.executable, "-m", "adacd_cli"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.split()


@pytest.mark.parametrize(
    ("words", "position", "found"),
    [
        ("adacd ", 1, list(COMMANDS)),
        ("adacd ge", 1, ["generate"]),
        ("adacd config ", 2, ["show"]),
        ("adacd config show --agree", 3, ["--agreement-threshold"]),
        (
            "adacd config show --method ",
            4,
            ["default", "prompt", "selfcd", "safedecoding", "ssd", "surgical", "adacd", "adacd-gated"],
        ),
        ("adacd nonsense --met", 2, []),
    ],
)
def test_the_shell_completes_commands_flags_and_names(words: str, position: int, found: list[str]) -> None:
    assert completions(words, position) == found


def test_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "pydantic", "prompt_toolkit", "rich", "yaml")
    program = (
        "import sys\nfrom adacd_cli.cli.app import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ran.stdout.splitlines()[0], ran.stderr) == (HELP.splitlines()[0], "[]\n")


@pytest.mark.parametrize("arguments", [["config", "show"], ["generate", "--help"], ["explain", "--help"]])
def test_what_needs_no_model_imports_no_torch(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom adacd_cli.cli.app import app\n"
        f"try:\n    app({arguments})\nexcept SystemExit as left:\n    assert left.code == 0, left.code\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules], file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.stderr == "[]\n"


def fail_with(error: BaseException) -> Callable[[], int]:
    def run() -> int:
        raise error

    return run


class TorchOutOfMemoryError(RuntimeError):
    """Named as torch's is, without torch."""


TorchOutOfMemoryError.__name__ = "OutOfMemoryError"
MEMORY = (
    "Error: Out of memory.\n"
    "Hint: Try a smaller --max-new-tokens or --batch-size, --dtype bfloat16 or --quantize.\n"
)
REPORT = "Hint: Run it again with --debug to see where, and please report it.\n"


@pytest.mark.parametrize(
    ("error", "code", "err"),
    [
        (ModelError("No such model.", "Look again."), 3, "Error: No such model.\nHint: Look again.\n"),
        (AdacdError("It\nfailed \x1b[31m."), 1, "Error: It\\nfailed \\x1b[31m.\n"),
        (AdacdError("It failed."), 1, "Error: It failed.\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (typer.Abort(), 130, "Interrupted.\n"),
        (BrokenPipeError(), 0, ""),
        (MemoryError(), 1, MEMORY),
        (TorchOutOfMemoryError("CUDA out of memory."), 1, MEMORY),
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried"), 1, MEMORY),
        (ValueError("a\nb"), 1, f"Error: Something unexpected went wrong: ValueError: a.\n{REPORT}"),
        (KeyError("x"), 1, f"Error: Something unexpected went wrong: KeyError: 'x'.\n{REPORT}"),
        (OSError(28, "No space left on device"), 1, "Error: The output could not be written: No space left on device.\n"),
    ],
)  # fmt: skip
def test_every_failure_becomes_a_line_and_a_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, err: str
) -> None:
    assert guarded(fail_with(error), debug=False) == code
    assert capsys.readouterr() == ("", err)


def test_a_traceback_comes_only_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(fail_with(AdacdError("It failed.")), debug=True) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.endswith("adacd_cli.errors.AdacdError: It failed.\nError: It failed.\n")


@pytest.mark.parametrize(
    ("arguments", "env", "traced"),
    [
        (["config", "show"], {}, False),
        (["--debug", "config", "show"], {}, True),
        (["config", "show", "--debug"], {}, True),
        (["config", "show"], {"ADACD_DEBUG": "1"}, True),
        (["config", "show"], {"ADACD_DEBUG": "0"}, False),
    ],
)
def test_debug_stands_before_or_after_the_command_or_in_the_environment(
    adacd: RunCommand,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    env: dict[str, str],
    traced: bool,
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(config_command, "_origin", fail)
    code, _, err = adacd(*arguments, env=env)
    assert (code, "Traceback" in err) == (1, traced)
    assert err.endswith(f"Error: Something unexpected went wrong: RuntimeError: broken.\n{REPORT}")


def shell(command: str) -> tuple[int, str, str]:
    """Runs `adacd …` as a program, with the shell around it; gives the exit code of `adacd`."""
    program = f'adacd() {{ {sys.executable} -m adacd_cli "$@"; }}; {command}'
    ran = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60)
    return ran.returncode, ran.stdout, ran.stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code, out, err = shell("adacd config show | head -1 >/dev/null; echo ${PIPESTATUS[0]}")
    assert (code, out, err) == (0, "0\n", "")
    code, out, err = shell("adacd config show | true; echo ${PIPESTATUS[0]}")
    assert (code, out, err) == (0, "0\n", "")


def test_a_closed_stdout_is_an_error_and_a_closed_stderr_is_none() -> None:
    closed = "Error: Standard output is closed.\nHint: Redirect it to a file or a pipe.\n"
    assert shell("adacd config show >&-") == (1, "", closed)
    assert shell("adacd --help >&-") == (1, "", closed)
    assert shell("adacd config show --alpha -1 2>&-") == (2, "", "")
    assert shell("adacd -V <&-") == (0, f"adacd {__version__}\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_named() -> None:
    message = "Error: The output could not be written: No space left on device.\n"
    assert shell("adacd config show > /dev/full") == (1, "", message)


def test_the_public_api_is_what_it_says() -> None:
    import adacd_cli

    assert [name for name in adacd_cli.__all__ if not hasattr(adacd_cli, name)] == []
    assert sorted([*adacd_cli._HOME_OF, "__version__"]) == sorted(adacd_cli.__all__)
    with pytest.raises(AttributeError, match=r"^module 'adacd_cli' has no attribute 'no_such_name'$"):
        adacd_cli.no_such_name  # noqa: B018
