"""Imports torch and transformers without the parts of their start that no decoding needs.

`import_libraries` and then `import_modelling` are called before anything else imports them. Each saving
stands by itself and gives way to the plain import where it does not apply: another transformers, a package
that is not there or already loaded.
"""

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
    """Imports torch and transformers themselves.

    Raises:
        ImportError: torch or transformers is not installed, or broken.
    """
    with _no_collections():
        import torch  # noqa: F401  # first, so that its absence is not said in transformers' words
        import transformers

        scan_models_once(Path(transformers.__file__).parent / "models")


def import_modelling() -> None:
    """Imports the base classes of transformers' models, apart because their imports can warn.

    A fault in them is left to be told where they are used, with what was asked for.
    """
    with _no_collections(), suppress(Exception):
        # The losses of object detectors take this one function of scipy's, which brings 300 modules along.
        import_deferring("transformers.loss.loss_utils", "scipy.optimize", "linear_sum_assignment")
        import_module("transformers.modeling_layers")


@contextmanager
def _no_collections() -> Iterator[None]:
    """Pauses the search for cyclic garbage: imports make a million objects that stay and few to collect."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:  # else what the caller froze would thaw
            gc.freeze()
            gc.unfreeze()  # frozen and thawed they all are old, and the next search passes them by
        gc.enable()


def scan_models_once(folder: Path) -> None:
    """Imports transformers.models with what transformers knows already from scanning its 3,000 files.

    It scans them for itself, and again for transformers.models: its cache holds 128 folders of some 500.

    Args:
        folder: the folder of transformers.models.
    """
    from transformers.utils import import_utils

    scan = import_utils.define_import_structure
    with suppress(Exception):  # another transformers may scan otherwise; then it simply scans again
        whole = scan(folder, prefix="models")
        found = {backends: _below("models.", names) for backends, names in whole.items()}
        if not any(found.values()):
            return

        def scanned(path: str, prefix: str | None = None) -> Any:
            known = prefix is None and Path(path).parent == folder
            return found if known else scan(path, prefix)

        import_utils.define_import_structure = scanned
        try:
            import_module("transformers.models")
        finally:
            import_utils.define_import_structure = scan


def _below(prefix: str, names: dict[str, set[str]]) -> dict[str, set[str]]:
    return {name.removeprefix(prefix): made for name, made in names.items() if name.startswith(prefix)}


def import_deferring(importer: str, module: str, function: str) -> None:
    """Imports a module while a heavy one that it takes a function from waits for the function's first call.

    Args:
        importer: the module to import. What goes wrong is left to its plain import, later.
        module: the heavy module.
        function: what the importer takes from it and does not call.
    """
    if module in sys.modules or find_spec(module.partition(".")[0]) is None:
        return

    def call(*args: Any, **keywords: Any) -> Any:
        return getattr(import_module(module), function)(*args, **keywords)

    stand_in = _StandIn(module)
    setattr(stand_in, function, call)
    sys.modules[module] = stand_in
    try:
        with suppress(Exception):
            import_module(importer)
    finally:
        if sys.modules.get(module) is stand_in:
            del sys.modules[module]


class _StandIn(ModuleType):
    """A module with one function, which makes way for the real module when anything else is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)
