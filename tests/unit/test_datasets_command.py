"""`adacd datasets`: whole screens, JSON Lines, and the folder by flag and by variable."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from adacd_cli.cli.app import COMMANDS
from adacd_cli.evaluation.datasets.hub import KNOWN_SETS
from tests.conftest import RunCommand
from tests.data_sets import lines, write
from tests.golden import check


@pytest.fixture(autouse=True)
def _listed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(COMMANDS, "datasets", "List the data sets.")
    monkeypatch.setitem(sys.modules, "datasets", None)
    yield


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package `datasets` is installed, and the hub is not forbidden."""
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_with_nothing_available_it_says_how_to_get_each(adacd: RunCommand) -> None:
    code, out, err = adacd("datasets")
    assert (code, err) == (0, "")
    check("evaluation", "datasets, nothing there", out)


@pytest.fixture
def some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with some sets, one of them broken; its name has markup in it."""
    monkeypatch.chdir(tmp_path)
    folder = Path("some [bold] sets")
    folder.mkdir()
    rows = [{"id": label, "prompt": "Hello", "label": label} for label in ("safe", "unsafe")]
    write(folder / "jbb.jsonl", lines(*rows))
    write(folder / "xstest.jsonl", lines(rows[0], {"prompt": "Hello", "label": "bad"}))
    write(folder / "orbench-hard-1k.jsonl", lines({"prompt": "a"}, {"prompt": "b"}))
    write(folder / "OKTest.csv", "prompt\n" + '"Why?\n"\n' * 300)
    return str(folder)


@pytest.mark.usefixtures("package")
def test_the_table_says_what_is_here_what_is_wrong_and_what_the_hub_has(adacd: RunCommand, some: str) -> None:
    code, out, err = shown = adacd("datasets", "--data", some)
    assert (code, err) == (0, "")
    check("evaluation", "datasets, some there", out)
    assert adacd("datasets", env={"ADACD_DATA": some}) == shown
    assert adacd("datasets", "--data", some, env={"ADACD_DATA": "gone"}) == shown
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.usefixtures("package")
def test_json_is_an_object_a_set(adacd: RunCommand, some: str) -> None:
    code, out, err = adacd("datasets", "--json", "--data", some)
    assert (code, err) == (0, "")
    rows = {row["name"]: row for row in map(json.loads, out.splitlines())}
    assert list(rows) == list(KNOWN_SETS)
    published = {
        "rows": 450,
        "safe": 250,
        "unsafe": 200,
        "licence": "CC-BY-4.0",
        "source": "Paul/XSTest",
        "revision": "f600c994b256f12867dfa5b3eb3d545a3e62f8b5",
    }
    assert rows["xstest"] == {
        "name": "xstest",
        **published,
        "status": "broken",
        "where": f"{some}/xstest.jsonl",
        "problem": f"{some}/xstest.jsonl, line 2: the label is 'bad', neither safe nor unsafe.",
        "how": "A prompt to answer is safe, harmless, benign or 0, one to refuse unsafe, harmful, malicious or 1.",
    }
    assert rows["oktest"] == {
        "name": "oktest",
        "rows": 300,
        "safe": 300,
        "unsafe": 0,
        "licence": "not stated",
        "source": "InvokerStark/OverKill on GitHub",
        "revision": None,
        "status": "file",
        "where": f"{some}/OKTest.csv",
        "problem": None,
        "how": None,
    }
    assert rows["advbench"]["status"] == "hub"
    assert rows["advbench"]["how"] == (
        "Accept its terms at https://huggingface.co/datasets/walledai/AdvBench, then run `hf auth login`."
    )
    assert (rows["just-eval"]["status"], rows["just-eval"]["how"]) == ("hub", None)


def test_a_folder_that_is_not_there_is_a_usage_error(adacd: RunCommand) -> None:
    hint = "Name a folder that holds xstest.jsonl and the like; `adacd datasets` lists the sets."
    for arguments, variable, where in ((["--data", "no"], "yes", "--data"), ([], "no", "ADACD_DATA")):
        assert adacd("datasets", *arguments, env={"ADACD_DATA": variable}) == (
            2,
            "",
            f"Error: The data folder no does not exist (from {where}).\nHint: {hint}\n",
        )


def test_the_variable_is_no_misspelt_setting(adacd: RunCommand) -> None:
    code, _, err = adacd("config", "show", env={"ADACD_DATA": "somewhere"})
    assert (code, err) == (0, "")


def test_help(adacd: RunCommand) -> None:
    code, out, err = adacd("datasets", "--help")
    assert (code, err) == (0, "")
    check("evaluation", "datasets --help", out)
