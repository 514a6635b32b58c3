"""Known sets from the hub: a fake of the package `datasets` and of the hub's answer, never the network."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi, constants, errors

from adacd_cli.errors import EnvironmentFault, MissingExtraError
from adacd_cli.evaluation.datasets.files import Sample
from adacd_cli.evaluation.datasets.hub import KNOWN_SETS
from tests.data_sets import lines, load, refusal, write


class Table(list[dict[str, Any]]):
    """What `load_dataset` gives: rows, the names of the columns, and the files of its cache."""

    def __init__(self, rows: Sequence[dict[str, Any]], files: Sequence[str] = ()) -> None:
        super().__init__(rows)
        self.column_names = list(rows[0])
        self.cache_files = [{"filename": file} for file in files]


class FakePackage(SimpleNamespace):
    """The package `datasets`: its tables by hub id and split, and what it was asked for."""

    def __init__(self, tables: dict[tuple[str, str], Table | Exception]) -> None:
        self.asked: list[tuple[str, str | None, str, str]] = []
        self.offline: list[bool] = []
        self.bars = [True]
        self.config = SimpleNamespace(HF_HUB_OFFLINE=False)
        self.tables = tables

    def load_dataset(self, path: str, *, name: str | None, split: str, revision: str) -> Table:
        self.asked.append((path, name, split, revision))
        self.offline.append(self.config.HF_HUB_OFFLINE and constants.HF_HUB_OFFLINE)
        assert self.bars[-1] is False
        table = self.tables[path, split]
        if isinstance(table, Exception):
            raise table
        return table

    def are_progress_bars_disabled(self) -> bool:
        return not self.bars[-1]

    def disable_progress_bars(self) -> None:
        self.bars.append(False)

    def enable_progress_bars(self) -> None:
        self.bars.append(True)


def install(
    monkeypatch: pytest.MonkeyPatch,
    tables: dict[tuple[str, str], Table | Exception],
    answer: Exception | None = None,
) -> FakePackage:
    """Puts the fake package in the place of the real one, and an answer in the place of the hub's."""

    def dataset_info(self: Any, repo_id: str, *, revision: str, timeout: float) -> None:
        assert timeout <= 10
        if answer is not None:
            raise answer

    package = FakePackage(tables)
    monkeypatch.setitem(sys.modules, "datasets", package)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    return package


HUB_TABLES: dict[tuple[str, str], Table | Exception] = {
    ("Paul/XSTest", "train"): Table(
        [
            {
                "id": 1,
                "prompt": "Kill it?",
                "type": "homonyms",
                "label": "safe",
                "focus": "kill",
                "note": None,
            },
            {
                "id": 26,
                "prompt": "Kill him?\n",
                "type": "contrast",
                "label": "unsafe",
                "focus": "",
                "note": None,
            },
        ]
    ),
    ("bench-llm/or-bench", "train"): Table([{"prompt": "Sly?", "category": "deception"}]),
    ("walledai/AdvBench", "train"): Table([{"prompt": "Hack it", "target": "Sure"}]),
    ("JailbreakBench/JBB-Behaviors", "harmful"): Table(
        [{"Index": 0, "Goal": "Harm", "Target": "Sure", "Behavior": "H", "Category": "Fraud", "Source": "O"}]
    ),
    ("JailbreakBench/JBB-Behaviors", "benign"): Table(
        [{"Index": 0, "Goal": "Help", "Target": "Sure", "Behavior": "B", "Category": "Fraud", "Source": "O"}]
    ),
    ("walledai/StrongREJECT", "train"): Table([{"prompt": "Lie", "category": "Lies", "source": "custom"}]),
    ("re-align/just-eval-instruct", "test"): Table(
        [
            {"id": 0, "instruction": "Hi", "dataset": "lima", "source_id": "lima-0"},
            {"id": 1, "instruction": "Hi", "dataset": "mt", "source_id": "mt-0"},
            {"id": 800, "instruction": "Bad", "dataset": "MaliciousInstruct", "source_id": "m-0"},
            {"id": 801, "instruction": "Red", "dataset": "hh-rlhf/red-team-attempts", "source_id": "r-0"},
        ]
    ),
}
JAIL = Sample("jailbench", "jbb-harmful-0", "Harm", "unsafe", "Fraud")
HUB_SAMPLES = {
    "xstest": (
        Sample("xstest", "xstest-1", "Kill it?", "safe", "homonyms"),
        Sample("xstest", "xstest-26", "Kill him?", "unsafe", "contrast"),
    ),
    "orbench": (Sample("orbench", "orbench-hard-0", "Sly?", "safe", "deception"),),
    "advbench": (Sample("advbench", "advbench-0", "Hack it", "unsafe", "harmful_behaviors"),),
    "jbb": (
        Sample("jbb", "jbb-harmful-0", "Harm", "unsafe", "Fraud"),
        Sample("jbb", "jbb-benign-0", "Help", "safe", "Fraud"),
    ),
    "jailbench": (JAIL,),
    "strongreject": (Sample("strongreject", "strongreject-0", "Lie", "unsafe", "Lies"),),
    "just-eval": (
        Sample("just-eval", "just-eval-0", "Hi", "safe", "lima"),
        Sample("just-eval", "just-eval-1", "Hi", "safe", "mt"),
        Sample("just-eval", "just-eval-800", "Bad", "unsafe", "MaliciousInstruct"),
        Sample("just-eval", "just-eval-801", "Red", "unsafe", "hh-rlhf/red-team-attempts"),
    ),
}


def test_the_hub_gives_every_set_that_is_on_it_by_id_and_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = install(monkeypatch, HUB_TABLES)
    names = [name for name, known in KNOWN_SETS.items() if known.hub]
    loaded = load(*names, data=tmp_path, offline=False)
    assert {one.name: one.samples for one in loaded} == HUB_SAMPLES
    commits = {known.hub.id: known.hub.revision for known in KNOWN_SETS.values() if known.hub}
    assert loaded[0].source == f"Paul/XSTest@{commits['Paul/XSTest']}"
    jbb = "JailbreakBench/JBB-Behaviors"
    assert package.asked == [
        (hub, config, split, commits[hub])
        for hub, config, split in (
            ("Paul/XSTest", None, "train"),
            ("bench-llm/or-bench", "or-bench-hard-1k", "train"),
            ("walledai/AdvBench", None, "train"),
            (jbb, "behaviors", "harmful"),
            (jbb, "behaviors", "benign"),
            (jbb, "behaviors", "harmful"),
            (jbb, "behaviors", "benign"),
            ("walledai/StrongREJECT", None, "train"),
            ("re-align/just-eval-instruct", None, "test"),
        )
    ]
    assert not any(package.offline)
    assert package.bars[-1] is True  # given back


def test_a_file_in_the_folder_wins_over_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = install(monkeypatch, HUB_TABLES)
    path = write(tmp_path / "jbb.jsonl", lines({"prompt": "Do harm", "label": "unsafe"}))
    assert load("jbb", data=tmp_path, offline=False)[0].source == str(path)
    assert package.asked == []


PUT = "put xstest.jsonl into a folder and name that with --data"
LATER = f"Try again later, or {PUT}."


@pytest.mark.parametrize("by_variable", [False, True])
def test_offline_the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch, by_variable: bool) -> None:
    package = install(monkeypatch, HUB_TABLES)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", by_variable)
    error = refusal("xstest", offline=not by_variable)
    assert type(error) is EnvironmentFault
    assert error.message == "xstest is not on this machine, and adacd is offline."
    assert error.hint == f"P{PUT[1:]}, or run without --offline and HF_HUB_OFFLINE."
    assert package.asked == []


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    error = refusal("xstest", offline=False)
    assert type(error) is MissingExtraError
    assert error.message == "xstest is not on this machine, and the package `datasets` is not installed."
    assert error.hint == f"Run `pip install 'adacd[datasets]'` to load it from the hub, or {PUT}."
    error = refusal("orbench", data=tmp_path, offline=False)
    assert error.message == f"orbench is not in {tmp_path}, and the package `datasets` is not installed."
    assert error.hint == (
        f"Run `pip install 'adacd[datasets]'` to load it from the hub, or put orbench.jsonl into {tmp_path}."
    )


def test_a_set_that_is_on_no_hub_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, HUB_TABLES)
    error = refusal("oktest", data=tmp_path, offline=False)
    assert type(error) is EnvironmentFault
    assert error.message == f"oktest is not in {tmp_path}, and it is on no hub."
    assert error.hint == f"Put data/OKTest.csv of InvokerStark/OverKill on GitHub into {tmp_path}."


def hub_error(kind: type[errors.HfHubHTTPError]) -> Exception:
    """An error as huggingface_hub's client raises it."""
    response: Any = SimpleNamespace(headers={}, request=None)
    return kind("Refused.\nMore.", response=response)


GATED = ValueError("Dataset 'Paul/XSTest' is a gated dataset on the Hub. Visit the page to ask for access.")
PAGE = "https://huggingface.co/datasets/Paul/XSTest"
TERMS = f"Accept its terms at {PAGE}, then run `hf auth login` or set HF_TOKEN."
NO_ACCESS = "xstest is gated, and this machine has no access to it."
UNREACHABLE = "xstest is not on this machine, and the hub cannot be reached."
COMMIT = "0123456789abcdef0123456789abcdef01234567"
XSTEST_COMMIT = KNOWN_SETS["xstest"].hub.revision  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("answer", "table", "message", "hint"),
    [
        (
            OSError("no route"),
            OSError("x"),
            UNREACHABLE,
            LATER,
        ),
        (
            OSError("no route"),
            Table([{"prompt": "a"}], [f"/cache/{COMMIT}/a.arrow"]),
            f"xstest is on this machine as commit 0123456, not {XSTEST_COMMIT[:7]}, and the hub cannot be "
            "reached.",
            LATER,
        ),
        (
            hub_error(errors.GatedRepoError),
            OSError(),
            NO_ACCESS,
            TERMS,
        ),
        (None, GATED, NO_ACCESS, TERMS),
        (hub_error(errors.RepositoryNotFoundError), OSError(), "The hub has no Paul/XSTest any more.", LATER),
        (
            hub_error(errors.RevisionNotFoundError),
            OSError(),
            f"The hub's Paul/XSTest has no commit {XSTEST_COMMIT[:7]} any more.",
            LATER,
        ),
        (
            hub_error(errors.HfHubHTTPError),
            OSError(),
            "xstest could not be loaded from the hub: Refused.",
            LATER,
        ),
        (None, OSError("Disk full.\nx"), "xstest could not be loaded from the hub: Disk full.", LATER),
        (None, KeyError(), "xstest could not be loaded from the hub: KeyError.", LATER),
        (
            None,
            Table([{"id": 1, "prompt": "a", "label": "safe"}]),
            "The hub's Paul/XSTest, split train, has no column 'type'; it has: id, prompt, label.",
            LATER,
        ),
        (
            None,
            Table([{"id": 1, "prompt": "a", "label": "bad", "type": "x"}]),
            f"Paul/XSTest@{XSTEST_COMMIT}, row 1: the label is 'bad', neither safe nor unsafe.",
            "A prompt to answer is safe, harmless, benign or 0, one to refuse unsafe, harmful, malicious or 1.",
        ),
    ],
)
def test_what_goes_wrong_at_the_hub_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch,
    answer: Exception | None,
    table: Table | Exception,
    message: str,
    hint: str,
) -> None:
    package = install(monkeypatch, {("Paul/XSTest", "train"): table}, answer)
    error = refusal("xstest", offline=False)
    assert (error.message, error.hint) == (message, hint)
    assert constants.HF_HUB_OFFLINE is False
    assert package.config.HF_HUB_OFFLINE is False
    assert package.bars[-1] is True


def test_a_hub_out_of_reach_leaves_what_this_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    xstest = HUB_TABLES["Paul/XSTest", "train"]
    assert isinstance(xstest, Table)
    here = Table(xstest, [f"/cache/{XSTEST_COMMIT}/a.arrow", "/elsewhere/b.arrow"])
    package = install(monkeypatch, {("Paul/XSTest", "train"): here}, OSError("no route"))
    assert load("xstest", offline=False)[0].samples == HUB_SAMPLES["xstest"]
    assert package.offline == [True]


def test_a_folder_that_is_named_like_the_set_on_the_hub_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = install(monkeypatch, HUB_TABLES)
    (tmp_path / "Paul" / "XSTest").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    error = refusal("xstest", offline=False)
    assert (
        error.message
        == "Paul/XSTest is also a file or folder here, which would be read in the place of xstest."
    )
    assert error.hint == "Run adacd in another folder."
    assert package.asked == []
