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
from adacd_cli.cli import lists
from adacd_cli.cli.app import COMMANDS
from adacd_cli.cli.errors import guarded
from adacd_cli.config import SETTINGS
from adacd_cli.config.methods import METHOD_NAMES
from adacd_cli.errors import AdacdError, ModelError
from tests.conftest import RunCommand
from tests.golden import check


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",)])
def test_help_names_every_command(adacd: RunCommand, arguments: tuple[str, ...]) -> None:
    code, out, err = adacd(*arguments)
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.partition("Commands:\n")[2].splitlines()] == list(COMMANDS)
    check("cli", "--help", out)


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(adacd: RunCommand, flag: str) -> None:
    assert adacd(flag) == (0, f"adacd {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("genrate", "`adacd generate`"),
        ("zzz", "'zzz'"),
        ("--zzz", "--zzz"),
        ("--versio", "--version"),
        ("config shw", "'show'"),
        ("config show --alfa 1", "--alpha"),
        ("config show --alpha", "--alpha"),
        ("config show a b", "a b"),
        ("config show --alpha -1", "[0, 1000000]"),
        ("config show --alpha x", "'x'"),
        ("config show --lambda 2", "`agreement_threshold`"),
        ("config show --set alfa=1", "`alpha`"),
        ("config show --prefix-cache 5XB", "512MiB"),
        ("config show -C qwen3", "'qwen3-8b'"),
        ("generate --batch-size 0 -f x", "--batch-size"),
        ("explain x --top -1", "--top"),
        ("bench --tokenizer x", "--tokenizer"),
    ],
)
def test_a_usage_error_is_two_lines_and_exit_code_2(adacd: RunCommand, arguments: str, named: str) -> None:
    code, out, err = adacd(*arguments.split())
    assert (code, out) == (2, "")
    error, hint = err.splitlines()
    assert error.startswith("Error: ") and hint.startswith("Hint: ") and named in err
    check("cli", arguments, err)


def test_every_setting_has_its_flags_in_the_help_text(adacd: RunCommand) -> None:
    code, out, err = adacd("config", "show", "--help")
    assert (code, err) == (0, "")
    for setting in SETTINGS.values():
        for name in setting.flags:
            for flag in name.split("/"):
                assert f" {flag}" in out
    check("cli", "config show --help", out)


def test_config_alone_shows_its_help(adacd: RunCommand) -> None:
    code, out, err = adacd("config")
    assert (code, err) == (0, "")
    assert out.startswith("Usage: adacd config [OPTIONS] COMMAND [ARGS]...\n")


def test_config_show_names_every_value_and_its_source(adacd: RunCommand, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("model: somewhere\nstop: ['\\n', é]\n", encoding="utf-8")
    arguments = ["-C", str(file), "--lambda", "0", "--no-stats", "--set", "top_k=7", "--system", ""]
    code, out, err = adacd("config", "show", *arguments, env={"ADACD_SEED": "3", "ADACD_PROFILE": None})
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
            list(METHOD_NAMES),
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
    assert (ran.stdout.splitlines()[0], ran.stderr) == ("Usage: adacd [OPTIONS] COMMAND [ARGS]...", "[]\n")


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


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ModelError("No such model.", "Look again."), 3),
        (AdacdError("It\nfailed \x1b[31m."), 1),
        (AdacdError("It failed."), 1),
        (KeyboardInterrupt(), 130),
        (typer.Abort(), 130),
        (BrokenPipeError(), 0),
        (MemoryError(), 1),
        (TorchOutOfMemoryError("CUDA out of memory."), 1),
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried"), 1),
        (ValueError("a\nb"), 1),
        (KeyError("x"), 1),
        (OSError(28, "No space left on device"), 1),
    ],
)
def test_every_failure_becomes_a_line_and_a_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    assert guarded(fail_with(error), debug=False) == code
    out, err = capsys.readouterr()
    assert out == "" and "\x1b" not in err and err.count("\n") == len(err.splitlines()) <= 2
    check("cli", repr(error), err)


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

    monkeypatch.setattr(lists.typer, "echo", fail)
    code, _, err = adacd(*arguments, env=env)
    assert (code, "Traceback" in err) == (1, traced)
    assert "\nError: " in f"\n{err}" and "RuntimeError: broken." in err and "--debug" in err


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
    for command in ("config show", "--help"):
        code, out, err = shell(f"adacd {command} >&-")
        assert (code, out) == (1, "") and err.startswith("Error: ")
        check("cli", "closed stdout", err)
    assert shell("adacd config show --alpha -1 2>&-") == (2, "", "")
    assert shell("adacd -V <&-") == (0, f"adacd {__version__}\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_named() -> None:
    code, out, err = shell("adacd config show > /dev/full")
    assert (code, out) == (1, "") and "No space left on device" in err and len(err.splitlines()) == 1


def test_the_public_api_is_what_it_says() -> None:
    import adacd_cli

    assert [name for name in adacd_cli.__all__ if not hasattr(adacd_cli, name)] == []
    assert set(adacd_cli._HOME_OF) < set(adacd_cli.__all__)
    with pytest.raises(AttributeError, match=r"^module 'adacd_cli' has no attribute 'no_such_name'$"):
        adacd_cli.no_such_name  # noqa: B018
