"""Imports torch and transformers without the parts of their start that no decoding needs. A saving that does not
apply (another transformers, a package that is missing or loaded already) gives way to the plain import."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any


def import_libraries() -> None:
    """Imports torch and transformers themselves. ImportError where one is not installed, or broken."""
    with _no_collections():
        import torch  # noqa: F401  # first, so that its absence is not reported in transformers' words
        import transformers

        scan_models_once(Path(transformers.__file__).parent / "models")


def import_modelling() -> None:
    """Imports the base classes of transformers' models, apart because their imports can warn; a fault in them is
    left to be reported where they are used."""
    with _no_collections(), suppress(Exception):
        with _scipy_on_call():
            import_module("transformers.loss.loss_utils")
        import_module("transformers.modeling_layers")


@contextmanager
def _no_collections() -> Iterator[None]:
    """Pauses the search for cyclic garbage: imports make a million objects that stay and few to collect."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            if gc.get_freeze_count() == 0:  # else what the caller froze would thaw
                gc.freeze()
                gc.unfreeze()  # frozen and thawed they all are old, and the next search passes them by
            gc.enable()


def scan_models_once(folder: Path) -> None:
    """Imports transformers.models with what transformers found when it scanned its 3,000 files for itself; there it
    scans them again, a tenth of the whole start, because it names the folder in another way."""
    from transformers.utils import import_utils

    with suppress(Exception):
        scan, file = import_utils.create_import_structure_from_path, str(folder / "__init__.py")
        # it keeps what it found for each path
        import_utils.create_import_structure_from_path = lambda path: scan(folder if path == file else path)
        try:
            import_module("transformers.models")
        finally:
            import_utils.create_import_structure_from_path = scan


@contextmanager
def _scipy_on_call() -> Iterator[None]:
    """Gives whoever imports scipy.optimize in the block the one function of it that the losses of object detectors
    take, which imports its 300 modules when called. An importer that wants another fails until imported again."""
    name = "scipy.optimize"
    if name in sys.modules or find_spec("scipy") is None:
        yield
        return
    stand_in: Any = ModuleType(name)
    stand_in.linear_sum_assignment = lambda *given: import_module(name).linear_sum_assignment(*given)
    sys.modules[name] = stand_in
    try:
        with suppress(ImportError, AttributeError):
            yield
    finally:
        del sys.modules[name]
