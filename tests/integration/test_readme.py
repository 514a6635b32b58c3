"""README.md and docs/: what they show is what the program prints today, and what they name exists.

The blocks that are not run are the parameters of `test_a_block_that_is_not_run_…`; `pytest -v` lists them.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from functools import cache

import pytest
from typer.testing import CliRunner

from adacd_cli import events
from adacd_cli.cli.app import COMMANDS, app
from adacd_cli.profiles import store
from tests.readme import PAGES, ROOT, TABLE, TABLES, blocks, masked, run_console, run_python

BUNDLED = store.bundled  # before the tests' own stands in its place
BLOCKS = [block for page in PAGES for block in blocks(page)]
SCREENS = [block for block in BLOCKS if block.kind == "console" and not block.reason]
NOT_RUN = [block for block in BLOCKS if block.reason]
PYTHON = sorted({block.page for block in BLOCKS if block.kind == "python" and not block.reason})
COMMAND_LINE = re.compile(
    r"^(\$ \w|([A-Z_]+=\S+ )?(adacd|python|pip|make|git|curl|vllm|llama-server|torchrun|ray) [\w.-])",
    re.MULTILINE,
)
LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#]*)(?:#(?P<anchor>[^)]*))?\)")


@pytest.fixture(autouse=True)
def _bundled_profiles(monkeypatch):
    """What a reader has: the profiles that come with the package."""
    monkeypatch.delenv("ADACD_PROFILE")
    monkeypatch.setattr(store, "bundled", BUNDLED)


def test_the_readme_is_short_and_the_screens_are_there():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    assert len(SCREENS) >= 12
    assert len(PYTHON) >= 2


@pytest.mark.parametrize("block", SCREENS, ids=str)
def test_a_screen_is_what_the_command_prints(block):
    assert masked(run_console(block.body)) == masked(block.body)


@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.name)
def test_python_prints_what_the_page_says(page):
    for _, says, prints in run_python(page):
        assert prints == (says or "")


@pytest.mark.parametrize("block", NOT_RUN, ids=str)
def test_a_block_that_is_not_run_says_why_and_names_options_that_exist(block):
    assert block.reason.startswith("needs ")
    for line in block.body.replace("\\\n", " ").splitlines():
        if found := re.search(r"(?:^|[ $(`])adacd ((?:direction |config )?[a-z]+)(?P<rest>[^`]*)", line):
            words = shlex.split(found["rest"].partition(" | ")[0], comments=True)
            for flag in (word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)):
                assert re.search(rf"(?<![\w-]){flag}(?![\w-])", help_of(found[1])), f"{flag} of {found[1]}"


@cache
def help_of(command):
    return CliRunner().invoke(app, [*command.split(), "--help"]).output


@pytest.mark.parametrize("block", [block for block in BLOCKS if block not in SCREENS + NOT_RUN], ids=str)
def test_a_block_without_a_mark_holds_no_command_that_nobody_runs(block):
    assert block.kind == "python" or not COMMAND_LINE.search(block.body)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_from_the_code_are_those_of_today(page):
    for match in TABLE.finditer(page.read_text(encoding="utf-8")):
        assert match["body"] == TABLES[match["name"]](), "`python -m tests.readme` writes it"


def test_every_command_extra_and_key_of_an_event_is_described():
    commands = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## (\w+)", commands, re.MULTILINE)) >= set(COMMANDS)
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = project.partition("[project.optional-dependencies]")[2].partition("\ndev =")[0]
    extras = re.findall(r"^([\w-]+) =", extras, re.MULTILINE)
    assert [name for name in extras if f"`{name}`" not in reference] == []
    kinds = [kind for kind in vars(events).values() if hasattr(kind, "__dataclass_fields__")]
    names = {field.name for kind in kinds for field in fields(kind)} - {"measures", "named", "cause"}
    assert sorted(name for name in names if f"`{name}`" not in reference) == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for match in LINK.finditer(page.read_text(encoding="utf-8")):
        target = page.parent / match["path"] if match["path"] else page
        assert target.exists(), match[0]
        if match["anchor"]:
            assert match["anchor"] in anchors(target), match[0]


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
