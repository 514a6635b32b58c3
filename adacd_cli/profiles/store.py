"""A profile, plain YAML of some kilobytes with what was chosen for a model and what was measured; where profiles
lie, the user's and the bundled ones; and which of them fits a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adacd_cli.config.settings import Settings
from adacd_cli.engine.model import LanguageModel
from adacd_cli.engine.switches import SwitchNumbers
from adacd_cli.errors import AdacdError, ConfigurationError, OutputError
from adacd_cli.profiles.fingerprint import Fingerprint, fingerprint

SCHEMA = 1  # version of the file; it grows when an older adacd would misread it
# the settings that a profile holds
CHOSEN = ("contrast_prompt", "contrast_placement", "switch", "alpha", "plausibility", "contrast_steps")


class Profile(BaseModel):
    """What was chosen for a model."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_: Literal[1] = Field(1, alias="schema")
    model: str  # the name that it was fitted under
    fingerprint: Fingerprint
    settings: dict[str, Any]  # values of CHOSEN
    numbers: SwitchNumbers
    # whether it is used without being named: it helped, and harmed no side beyond the bounds
    automatic: bool = True
    verdict: str = ""
    measured: dict[str, Any] = {}  # what was measured on prompts held out, Default beside it
    versions: dict[str, str] = {}  # versions, date: what made it, and when
    date: str = ""
    source: str = Field("", exclude=True)  # where it was read from

    @model_validator(mode="after")
    def _is_chosen(self) -> Profile:
        unknown = [name for name in self.settings if name not in CHOSEN]
        if unknown:
            raise ValueError(f"settings holds {', '.join(unknown)}, which no profile chooses")
        Settings(**self.settings)
        return self

    @property
    def name(self) -> str:
        """The name of its file, or of its model where it has none."""
        return Path(self.source).stem if self.source else self.model

    @property
    def digest(self) -> str:
        """Of all that decides tokens, 16 hexadecimal digits."""
        chosen = self.model_dump_json(include={"settings", "numbers"})
        return hashlib.sha256(chosen.encode()).hexdigest()[:16]

    def text(self) -> str:
        values = self.model_dump(mode="json", by_alias=True)
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)


def read(path: Path) -> Profile:
    """A profile from a file. ConfigurationError where it cannot be read, is no profile, or is of a newer
    version."""
    hint = "Make a new one with `adacd fit`, or use --profile none."
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"The profile {path} cannot be read: {error.strerror}.", hint) from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigurationError(f"The profile {path} is broken: it is no YAML text.", hint) from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"The profile {path} is broken: it is no mapping.", hint)
    version = values.get("schema")
    if isinstance(version, int) and version > SCHEMA:
        message = f"The profile {path} is of version {version}, and this adacd reads versions up to {SCHEMA}."
        raise ConfigurationError(message, "Update adacd, or make a new one with `adacd fit`.")
    try:
        return Profile(**values).model_copy(update={"source": str(path)})
    except (ValidationError, TypeError) as error:
        what = "it is no profile"
        if isinstance(error, ValidationError):
            problem = error.errors()[0]
            what = f"{'.'.join(map(str, problem['loc'])) or 'a value'}: {problem['msg']}"
        raise ConfigurationError(f"The profile {path} is broken: {what}.", hint) from error


def write(profile: Profile, path: Path) -> None:
    """Writes it whole or not at all. Raises OutputError."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(profile.text(), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True) if part.parent.is_dir() else None
        raise OutputError(
            f"The profile cannot be written to {path}: {error.strerror}.", "Name another file with --output."
        ) from error


def applied(settings: Settings, profile: Profile | None) -> Settings:
    """The settings that decode under a method: with `fitted`, the profile's wherever the user gave none.
    ConfigurationError where the method is `fitted`, and there is no profile."""
    if settings.method != "fitted":
        return settings
    if profile is None:
        raise ConfigurationError(
            "Method fitted needs a profile of the model, and there is none.",
            "Make one with `adacd fit -m MODEL`, or name its file with --profile.",
        )
    given = settings.model_fields_set
    values = {name: value for name, value in profile.settings.items() if name not in given}
    return settings.model_copy(update=values)


def chosen_method(settings: Settings, profile: Profile | None) -> Settings:
    """The settings with method `fitted` where a profile is used and the user chose no method."""
    if profile is None or settings.model_fields_set & {"method", "gate"}:
        return settings
    return settings.model_copy(update={"method": "fitted"})


# beginnings of the names of the models that the paper's settings were chosen on
PRESETS = ("meta-llama-3-8b-instruct", "gemma-2-9b-it", "qwen3-8b")


def folder() -> Path:
    return user_data_path("adacd", appauthor=False) / "profiles"


def bundled() -> list[Path]:
    return sorted(Path(str(files("adacd_cli.profiles"))).glob("bundled/*.yaml"))


def saved() -> list[Path]:
    try:
        own = [(path.stat().st_mtime, path) for path in folder().glob("*.yaml")]
    except OSError:
        return []
    return [path for _, path in sorted(own, reverse=True)]


def file_of(name: str) -> Path:
    """The file of a saved or bundled profile. Raises ConfigurationError where there is none of that name."""
    known = {path.stem: path for path in (*bundled(), *reversed(saved()))}
    if name not in known:
        raise ConfigurationError(f"There is no profile {name!r}.", "`adacd profiles` lists them.")
    return known[name]


def remove(name: str) -> Path:
    """Deletes a saved profile. Raises ConfigurationError, or OutputError where it cannot be deleted."""
    path = file_of(name)
    if path not in saved():
        raise ConfigurationError(
            f"The profile {name!r} comes with adacd.", "Use --profile none to do without."
        )
    try:
        path.unlink()
    except OSError as error:
        raise OutputError(f"The profile {path} cannot be removed: {error.strerror}.") from error
    return path


def with_profile(model: LanguageModel, settings: Settings) -> LanguageModel:
    """The model with its profile, as `settings.profile` says, and with a warning where one of the same weights
    cannot be used. ConfigurationError where a profile that is named cannot be read, or is of another model."""
    if settings.profile == "none":
        return model
    own = fingerprint(model)
    if settings.profile != "auto":
        path = Path(settings.profile).expanduser()
        profile = read(path if path.suffix or path.exists() else file_of(settings.profile))
        if differs := profile.fingerprint.differs_in(own):
            raise ConfigurationError(
                f"The profile {settings.profile} was made for {profile.model}, and {model.name} has another "
                f"{' and '.join(differs)}.",
                f"Make one with `adacd fit -m {model.name}`, or use --profile auto.",
            )
        _check_tokens(profile, model)
        return replace(model, profile=profile)
    warnings: list[str] = []
    for profile in _candidates(own, warnings):
        differs = profile.fingerprint.differs_in(own)
        if not differs and profile.automatic:
            try:
                _check_tokens(profile, model)
            except AdacdError as error:
                warnings.append(error.message)
                continue
            return replace(model, profile=profile, warnings=(*model.warnings, *warnings))
        if own.weights and profile.fingerprint.weights == own.weights and differs:
            warnings.append(
                f"The profile {profile.name} of these weights is not used: the {' and '.join(differs)} is another."
            )
    return replace(model, warnings=(*model.warnings, *dict.fromkeys(warnings)))


def _check_tokens(profile: Profile, model: LanguageModel) -> None:
    """Raises ConfigurationError for tokens that the model does not have."""
    numbers, size = profile.numbers, len(model.tokenizer)
    most = max((*numbers.openers, *numbers.tokens))
    if most >= size:
        raise ConfigurationError(
            f"The profile {profile.name} is broken: token {most} is beyond the model's {size}.",
            "Make a new one with `adacd fit`, or use --profile none.",
        )


def _candidates(own: Fingerprint, warnings: list[str]) -> Iterator[Profile]:
    """The user's profiles, and those bundled ones that have the model's weights, or where these are not known its
    tokenizer: parsing one takes 35 ms."""
    mark = own.weights or own.tokenizer
    fitting = (path for path in bundled() if mark in path.read_text(encoding="utf-8"))
    for path in (*saved(), *fitting):
        try:
            yield read(path)
        except AdacdError as error:
            warnings.append(error.message)


def is_preset(name: str) -> bool:
    """Whether the paper's settings were chosen on the model of this name."""
    return name.rpartition("/")[2].lower().startswith(PRESETS)
