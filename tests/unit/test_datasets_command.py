"""`adacd datasets`: whole screens, JSON Lines, and the folder by flag and by variable."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from adacd_cli.cli.app import COMMANDS, Entry
from adacd_cli.evaluation.datasets.registry import KNOWN_SETS
from tests.conftest import RunCommand
from tests.data_sets import lines, write


@pytest.fixture(autouse=True)
def _listed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(COMMANDS, "datasets", Entry("adacd_cli.cli.datasets", "List the data sets."))
    monkeypatch.setitem(sys.modules, "datasets", None)
    yield


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package `datasets` is installed, and the hub is not forbidden."""
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


NOTHING = """\
set            safe  unsafe  licence     status   source
xstest          250     200  CC-BY-4.0   missing  Paul/XSTest
orbench       1,319       –  CC-BY-4.0   missing  bench-llm/or-bench
oktest          300       –  not stated  missing  InvokerStark/OverKill on GitHub
advbench          –     520  MIT         missing  walledai/AdvBench
jbb             100     100  MIT         missing  JailbreakBench/JBB-Behaviors
jailbench         –     100  MIT         missing  JailbreakBench/JBB-Behaviors
strongreject      –     313  MIT         missing  walledai/StrongREJECT
just-eval       800     200  MIT         missing  re-align/just-eval-instruct

xstest, orbench, advbench, jbb, jailbench, strongreject, just-eval: Run `pip
install 'adacd[datasets]'` to load them from the hub, or put xstest.jsonl,
orbench.jsonl, advbench.jsonl, jbb.jsonl, strongreject.jsonl, just-eval.jsonl
into a folder and name that with --data.

oktest: Put data/OKTest.csv of InvokerStark/OverKill on GitHub into a folder and
name that with --data.
"""


def test_with_nothing_available_it_says_how_to_get_each(adacd: RunCommand) -> None:
    assert adacd("datasets") == (0, NOTHING, "")


SOME = """\
set           safe  unsafe  licence     status  source
xstest         250     200  CC-BY-4.0   broken  Paul/XSTest
orbench          2       –  CC-BY-4.0   file    bench-llm/or-bench
oktest         300       –  not stated  file    InvokerStark/OverKill on GitHub
advbench         –     520  MIT         hub     walledai/AdvBench
jbb              1       1  MIT         file    JailbreakBench/JBB-Behaviors
jailbench        –       1  MIT         file    JailbreakBench/JBB-Behaviors
strongreject     –     313  MIT         hub     walledai/StrongREJECT
just-eval      800     200  MIT         hub     re-align/just-eval-instruct

file: in some [bold] sets as orbench-hard-1k.jsonl, OKTest.csv, jbb.jsonl.

xstest: some [bold] sets/xstest.jsonl, line 2: the label is 'bad', neither safe
nor unsafe. safe is a prompt to answer, unsafe one to refuse.

orbench: published with 1,319 rows; the file has 2.

jbb: published with 200 rows; the file has 2.

jailbench: published with 100 rows; the file has 1.

hub: loaded from the hub when a set is first used.

advbench: Accept its terms at https://huggingface.co/datasets/walledai/AdvBench,
then run `hf auth login`.

strongreject: Accept its terms at
https://huggingface.co/datasets/walledai/StrongREJECT, then run `hf auth login`.
"""


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
    assert adacd("datasets", "--data", some) == (0, SOME, "")
    assert adacd("datasets", env={"ADACD_DATA": some}) == (0, SOME, "")
    assert adacd("datasets", "--data", some, env={"ADACD_DATA": "gone"}) == (0, SOME, "")
    assert max(map(len, SOME.splitlines())) <= 80


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
        "how": "safe is a prompt to answer, unsafe one to refuse.",
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


HELP = """\
Usage: adacd datasets [OPTIONS]

  List the data sets: rows, label, licence, source, whether available.

Options:
  --data DIR  Folder with xstest.jsonl, jbb.jsonl, …: id, prompt, label,
              category (or ADACD_DATA).
  --json      One JSON object a set.
  --debug     Show the traceback of an error.
  -h, --help  Show this message and exit."""


def test_help(adacd: RunCommand) -> None:
    code, out, err = adacd("datasets", "--help")
    assert (code, out.rstrip("\n"), err) == (0, HELP, "")
