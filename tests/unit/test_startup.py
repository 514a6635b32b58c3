"""The libraries' start: what it leaves out, that this still works when asked for, and the plain import."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from adacd_cli.loading import local as startup
from adacd_cli.loading.local import import_libraries, import_modelling, scan_models_once

SCIPY = """\
import sys
print("scipy.optimize was imported", file=sys.stderr)
def linear_sum_assignment(*given):
    return "assigned", given
anything_else = "real"
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with a scipy that says on stderr when its heavy part is imported."""
    (tmp_path / "scipy").mkdir()
    (tmp_path / "scipy" / "__init__.py").touch()
    (tmp_path / "scipy" / "optimize.py").write_text(SCIPY)
    return tmp_path


def test_an_answer_leaves_out_what_no_decoding_needs(packages: Path) -> None:
    program = """\
import sys
from adacd_cli.cli.app import app
try:
    app(["generate", "--quiet", "--model", "demo", "-n", "1", "Hi"])
except SystemExit as left:
    assert left.code == 0, left.code
heavy = ("scipy.optimize", "sklearn", "pandas", "pyarrow", "ray", "matplotlib", "datasets")
print([name for name in heavy if name in sys.modules])

from transformers.loss import loss_for_object_detection as loss
print("called", file=sys.stderr)
print(loss.linear_sum_assignment(1))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(packages), os.getcwd()])}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.stdout.splitlines()[1:] == ["[]", "('assigned', (1,))"], ran.stderr
    assert ran.stderr == "called\nscipy.optimize was imported\n"


@pytest.mark.slow  # transformers reads its 3,000 files
def test_what_was_scanned_once_is_what_transformers_finds() -> None:
    program = """\
from adacd_cli.loading.local import import_libraries
import_libraries()
from transformers import models
from transformers.utils.import_utils import define_import_structure
plain = type(models)("models", models.__file__, define_import_structure(models.__file__))
print("LlamaForCausalLM" in models.__all__, set(plain.__all__) ^ set(models.__all__))
print(models._class_to_module == plain._class_to_module)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ran.stdout == "True set()\nTrue\n", ran.stderr


def test_an_importer_that_wants_more_of_scipy_gets_the_real_module(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (packages / "greedy.py").write_text("from scipy.optimize import anything_else\n")
    (packages / "content.py").write_text("from scipy.optimize import linear_sum_assignment\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == "scipy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(packages)
    try:
        with startup._scipy_on_call():
            import_module("content")
            import_module("greedy")
        assert not {"greedy", "scipy.optimize"} & set(sys.modules)
        assert import_module("greedy").anything_else == "real"
        assert import_module("content").linear_sum_assignment(1) == ("assigned", (1,))
        with startup._scipy_on_call():  # it is there already: nothing to defer
            assert import_module("scipy.optimize").anything_else == "real"
    finally:
        for name in ("greedy", "content", "scipy", "scipy.optimize"):
            sys.modules.pop(name, None)


def test_a_transformers_that_scans_otherwise_is_imported_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.utils import import_utils

    def refuse(path: str) -> dict[Any, Any]:
        raise AssertionError

    monkeypatch.setattr(import_utils, "create_import_structure_from_path", refuse)
    monkeypatch.delitem(sys.modules, "transformers.models", raising=False)
    scan_models_once(tmp_path)
    assert import_utils.create_import_structure_from_path is refuse
    monkeypatch.delattr(import_utils, "create_import_structure_from_path")
    scan_models_once(tmp_path)
    assert not hasattr(import_utils, "create_import_structure_from_path")


@pytest.mark.parametrize("collecting", [True, False])
def test_the_collector_is_left_as_it_was(collecting: bool) -> None:
    try:
        if not collecting:
            gc.disable()
        import_libraries()
        import_modelling()
        assert (gc.isenabled(), gc.get_freeze_count()) == (collecting, 0)
    finally:
        gc.enable()


def test_a_command_ends_without_a_last_search_for_garbage() -> None:
    program = """\
import gc, sys
from adacd_cli.cli.start import main
sys.argv = ["adacd", "--version"]
try:
    main()
except SystemExit:
    print(gc.get_freeze_count() > 0)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ran.stdout.splitlines()[1:], ran.stderr) == (["True"], "")
