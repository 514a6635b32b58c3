"""Merges flag > environment > file > default into Settings, remembers where each value came from, and refuses what
does not go together. Where a value came from decides, not whether it is truthy: 0, "" and false survive at every
level. Every problem is a ConfigurationError that names the setting, its range, the value and where it was given."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from pydantic import ValidationError

from adacd_cli.config import files
from adacd_cli.config.methods import METHODS
from adacd_cli.config.setting import Kind, Setting
from adacd_cli.config.settings import SETTINGS, Settings
from adacd_cli.errors import ConfigurationError
from adacd_cli.suggest import known_names_hint, nearest

# panels of the settings that are read when a model is loaded, and for each answer
LOADING, DECODING = ("Model",), ("Prompt", "Method", "Decoding")
# beginnings of the variables of adacd that are no settings
_RESERVED = tuple(
    f"ADACD_{name}" for name in ("CONFIG", "DEBUG", "API_KEY", "MODEL_KEY", "JUDGE_KEY", "DATA", "TEST_")
)

_TAKES: dict[Kind, str] = {
    "text": "text",
    "number": "a number",
    "integer": "a whole number",
    "switch": "true or false",
    "list": "a list",
    "size": "auto, 0, or a size such as 512MiB or 2GiB",
}
_EACH_TAKES = {
    "logit_bias": "ID:BIAS, the id of a token and a bias of -100 to 100, such as 42:-5",
    "stop_token_ids": "the id of a token, a whole number such as 42",
}


@dataclass(frozen=True)
class Source:
    """Where a value came from; `where` is the flag, the variable, or the file and line, "" for a default."""

    kind: Literal["flag", "environment", "file", "default"]
    where: str = ""


@dataclass(frozen=True)
class Resolved:
    """The settings of a run, and the source of each by name."""

    settings: Settings
    sources: Mapping[str, Source]


def resolve(
    flags: Mapping[str, Any],
    config: str | None = None,
    *,
    assignments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    one_method: bool = True,
) -> Resolved:
    """Merges the flags (values by setting name, as text or as values; None means not given) and the `name=value`
    texts of `--set`, the environment (None is the process's own), and a YAML file or preset (None reads
    ADACD_CONFIG). `one_method` tells whether a method that is given is the only one that the run decodes by.
    ConfigurationError where a name, a value or a file is wrong, or a flag is given that the method has no use
    for."""
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    given: dict[str, Any] = {}
    sources = {name: Source("default") for name in SETTINGS}
    levels = _file_values(config, environment), _environment_values(environment)
    for name, value, source in chain(*levels, _flag_values(flags, assignments)):
        values[name] = _convert(SETTINGS[name], value, source.where)
        given[name], sources[name] = value, source
    settings = _settings(values, given, sources)
    given_here = [name for name in SETTINGS if sources[name].kind == "flag"]
    # without a flag for the method, the command chooses several
    resources = "method" in flags and one_method
    _refuse_idle(settings, given_here, sources["method"].where, resources=resources)
    refuse_misplaced(settings, given_here)
    # before it is shown or written into a run's record
    if settings.served and "@" in settings.model.partition("//")[2].partition("/")[0]:
        what = f"`model` holds a user or a password in its address (from {sources['model'].where})."
        hint = "Leave them out of it, and put a key into the environment variable ADACD_MODEL_KEY."
        raise ConfigurationError(what, hint)
    return Resolved(settings, sources)


def change(settings: Settings, name: str, text: str, where: str) -> Settings:
    """The settings with one of them set from text, e.g. by `/set alpha 3`; ConfigurationError as `resolve`, and
    where the method lacks what it needs."""
    value = _convert(find_setting(name, where), text, where)
    changed = change_all(settings, {name: value}, Source("flag", where), {name: text})
    check_complete(changed, where)
    return changed


def change_all(
    settings: Settings, changes: Mapping[str, Any], source: Source, given: Mapping[str, Any] | None = None
) -> Settings:
    """The settings with some of them set to values, as Python has them; one text stands for a list of one.
    ConfigurationError, which shows the values as they were GIVEN, where one is of the wrong kind or out of its
    range, or the gate has no effect."""
    values = settings.model_dump(exclude_unset=True)
    for name, value in changes.items():
        values[name] = (value,) if SETTINGS[name].kind == "list" and isinstance(value, str) else value
    changed = _settings(values, given or changes, dict.fromkeys(changes, source))
    _refuse_idle(changed, changes if source.kind == "flag" else ())
    return changed


def changed(settings: Settings, changes: Mapping[str, Any], panels: Collection[str], where: str) -> Settings:
    """The settings changed by keywords as `change_all`, as the library function WHERE takes them: a wrong one is
    named, and none is ignored. ConfigurationError where a change is under another heading than these panels."""
    if not isinstance(settings, Settings):
        hint = "Give settings as keywords, or as Settings(…)."
        raise ConfigurationError(f"{where} takes Settings; got {type(settings).__name__}.", hint)
    for name in changes:
        panel = find_setting(name, where).panel
        if panel not in panels:
            reason, hint = {
                "Model": ("the model is already loaded", "Give it to load()."),
                "Output": ("it is for the command line", "Leave it out."),
            }.get(panel, ("it is read for each answer", "Give it to generate(), or give Settings to both."))
            raise ConfigurationError(f"`{name}` cannot be set in {where}: {reason}.", hint)
    return change_all(settings, changes, Source("flag", where)) if changes else settings


def find_setting(name: str, where: str) -> Setting:
    """The setting of that name; a ConfigurationError that says WHERE it was named where there is none."""
    if name in SETTINGS:
        return SETTINGS[name]
    near = _nearest_setting(name)
    hint = f"Did you mean `{near.name}`?" if near else "`adacd config show` lists every setting."
    raise ConfigurationError(f"There is no setting `{name}` (from {where}).", hint)


_Level = Iterable[tuple[str, Any, Source]]


def _file_values(config: str | None, environment: Mapping[str, str]) -> _Level:
    where = "--config"
    if config is None:
        config, where = environment.get("ADACD_CONFIG"), "ADACD_CONFIG"
        if not config:
            return
    for name, value, line in files.read(files.find(config, where)):
        yield find_setting(name, line).name, value, Source("file", line)


def _environment_values(environment: Mapping[str, str]) -> _Level:
    variables = {setting.variable: name for name, setting in SETTINGS.items()}
    for variable in sorted(environment):
        if variable in variables:
            yield variables[variable], environment[variable], Source("environment", variable)
        elif variable.startswith("ADACD_") and not variable.startswith(_RESERVED):
            # another program's may begin with ADACD_, too; one that is nearly a setting's is a slip
            near = _nearest_setting(variable.removeprefix("ADACD_").lower())
            if near is not None:
                hint = f"Did you mean {near.variable}? Unset it otherwise."
                raise ConfigurationError(f"The environment variable {variable} names no setting.", hint)


def _flag_values(flags: Mapping[str, Any], assignments: Sequence[str]) -> _Level:
    given = {name: value for name, value in flags.items() if value is not None}
    for name, value in given.items():
        yield name, value, Source("flag", SETTINGS[name].flag)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            hint = "Write e.g. --set alpha=3."
            raise ConfigurationError(f"--set takes name=value; got {assignment!r}.", hint)
        setting = find_setting(name.strip(), "--set")
        if setting.name in given:
            what = f"`{setting.name}` is given twice, by {setting.flag} and by --set."
            raise ConfigurationError(what, "Leave one of them out.")
        yield setting.name, text, Source("flag", "--set")


def _nearest_setting(name: str) -> Setting | None:
    names = {alias: each for each in SETTINGS.values() for alias in (each.name, *each.aliases)}
    near = nearest(name, names)
    return names[near] if near else None


def _convert(setting: Setting, value: Any, where: str) -> Any:
    for text in value if isinstance(value, (list, tuple)) else [value]:
        # surrogates are how Python hands on an argument's bytes that are not UTF-8
        if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text):
            what = f"`{setting.name}` holds bytes that are not UTF-8 (from {where})."
            raise ConfigurationError(what, "Write it in UTF-8.")
    if not isinstance(value, str):
        return value
    try:
        return setting.parse(value)
    except ValueError:
        raise _wrong_kind(setting, value, where) from None


def _settings(values: Mapping[str, Any], given: Mapping[str, Any], sources: Mapping[str, Source]) -> Settings:
    try:
        return Settings(**values)
    except ValidationError as error:
        problem = error.errors()[0]
    name, kind = str(problem["loc"][0]), problem["type"]
    setting, value, where = SETTINGS[name], given.get(name), f"(from {sources[name].where})"
    wrong_kind = kind.endswith(("_type", "_parsing", "_error")) and kind != "value_error"
    hint = setting.sentence
    if name in _EACH_TAKES:
        what = f"`{name}` takes {_EACH_TAKES[name]}; got {_shown(problem['input'])} {where}."
    elif setting.choices and isinstance(value, str):
        what, hint = f"Unknown {name} {value!r} {where}.", known_names_hint(value, setting.choices)
    elif kind == "string_too_short":
        what = f"`{name}` {'holds an empty text' if setting.kind == 'list' else 'is empty'} {where}."
    elif wrong_kind or not setting.range:
        raise _wrong_kind(setting, value, sources[name].where)
    else:
        number = value if isinstance(value, str) else _shown(value)
        what = f"`{name}` is {setting.range}; got {number} {where}."
    raise ConfigurationError(what, hint)


def _wrong_kind(setting: Setting, value: Any, where: str) -> ConfigurationError:
    message = f"`{setting.name}` takes {_TAKES[setting.kind]}; got {_shown(value)} (from {where})."
    parts = value if isinstance(value, (list, tuple)) else [value]
    quotes = setting.kind in ("text", "list") and not all(isinstance(each, str) for each in parts)
    return ConfigurationError(message, "Put quotes around text." if quotes else setting.sentence)


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return repr(list(value) if isinstance(value, tuple) else value)


def check_complete(settings: Settings, where: str = "") -> None:
    """ConfigurationError where the method lacks what it has to load; WHERE chose it, such as `/method`."""
    method = METHODS[settings.effective_method]
    if method.resource and not method.stand_in and getattr(settings, method.resource) is None:
        needed = SETTINGS[method.resource]
        flag = f"/set {needed.name}" if where.startswith("/") else needed.flag
        hint = f"Give {flag} {needed.name.upper()}. {needed.sentence}"
        raise ConfigurationError(f"Method {method.name} needs `{needed.name}`.", hint)


def _refuse_idle(
    settings: Settings, given: Collection[str], method_from: str = "", *, resources: bool = False
) -> None:
    """Refuses a gate without effect, and with `resources`, where the run decodes by no other method, what only
    another would load; as far as they are GIVEN for this run: one of a file is for the methods that use it.
    METHOD_FROM is where the method was chosen; "" leaves that out of the message."""
    others = [each for each in METHODS.values() if each.resource and each.name != settings.effective_method]
    given_to = [each for each in others if getattr(settings, each.resource) is not None]
    idle: dict[str, str] = {each.resource: each.name for each in given_to} if resources else {}
    gated = settings.method in ("adacd", "adacd-gated")
    if not gated if settings.gate else settings.method == "adacd-gated":
        idle = {"gate": "adacd"} | idle
    for name in idle:
        if name in given:
            chosen, hint = "", f"Choose --method {idle[name]}, or leave it out."
            if method_from:
                chosen, hint = f" (from {method_from})", "Leave one of them out."
            what = f"`{name}` is for method {idle[name]}; the method is {settings.method}{chosen}."
            raise ConfigurationError(what, hint)


def refuse_misplaced(settings: Settings, given: Collection[str]) -> None:
    """Raises ConfigurationError for what only a model on a server, or only one loaded here, can use."""
    names: tuple[str, ...] = ("served_model", "tokenizer")
    what = f"a model on a server, and the model is {settings.model!r}"
    hint = "Leave it out, or give the server's address as the model, like http://localhost:8000/v1."
    if settings.served:
        names = "engine", "device", "dtype", "quantize", "threads", "gpu_layers", "context", "compile"
        what = "weights that adacd loads itself, and the model runs on a server"
        hint = "Leave it out, and give the server its own when you start it."
    for name in names:
        if name in given:
            raise ConfigurationError(f"`{name}` is for {what}.", hint)
