"""Configuration files and presets: YAML text -> values with their lines, which `resolve` checks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from adacd_cli.errors import ConfigurationError, first_line
from adacd_cli.suggest import known_names_hint

_PACKAGE = Path(__file__).resolve().parent.parent


def presets() -> dict[str, Path]:
    """The presets by name: next to the package in a checkout, inside it once it is installed from a wheel."""
    for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def find(config: str, where: str) -> Path:
    """The file that `config`, given by `where`, means: a preset or a path; else ConfigurationError."""
    named = presets()
    path = named.get(config) or Path(config).expanduser()
    if path.is_file():
        return path
    hint = f"Name a YAML file or a preset. {known_names_hint(config, named)}"
    raise ConfigurationError(f"There is no preset and no file named {config!r} (from {where}).", hint)


def read(path: Path) -> list[tuple[str, Any, str]]:
    """The names and values of a YAML file, in its order, and where each stands, e.g. `my.yaml, line 3`;
    ConfigurationError where it is no mapping in YAML."""
    name = path.name if path in presets().values() else str(path)
    where = name
    try:
        loader = yaml.SafeLoader(path.read_bytes())
        root = loader.get_single_node()
        return [] if root is None else list(_entries(loader, root, name))
    except OSError as error:
        raise ConfigurationError(f"{name} could not be read: {error.strerror or error}.") from error
    except yaml.MarkedYAMLError as error:
        problem = error.problem or error.context or ""
        if mark := error.problem_mark or error.context_mark:
            where = f"{name}, line {mark.line + 1}"
    except RecursionError:
        problem = "it is nested too deeply"
    except (yaml.YAMLError, ValueError) as error:
        problem = first_line(error).rstrip(".")
    hint = "Write one `name: value` a line; configs/default.yaml shows every setting."
    raise ConfigurationError(f"{where} is not valid YAML: {problem}.", hint)


def _entries(loader: yaml.SafeLoader, root: yaml.Node, name: str) -> Iterator[tuple[str, Any, str]]:
    hint = "Write one `name: value` a line."
    if not isinstance(root, yaml.MappingNode):
        raise ConfigurationError(f"{name} holds no settings.", hint)
    lines: dict[str, int] = {}
    for key_node, value_node in root.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigurationError(f"{name}, line {line} names no setting.", hint)
        key = key_node.value
        if key in lines:
            what = f"`{key}` is given twice in {name}, on lines {lines[key]} and {line}."
            raise ConfigurationError(what, "Remove one of them.")
        lines[key] = line
        yield key, loader.construct_object(value_node, deep=True), f"{name}, line {line}"
