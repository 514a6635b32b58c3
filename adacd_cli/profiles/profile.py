"""A profile: plain YAML of some kilobytes with what was chosen for a model, and what was measured."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adacd_cli.config.settings import Settings
from adacd_cli.engine.switches.numbers import SwitchNumbers
from adacd_cli.errors import ConfigurationError, OutputError

SCHEMA = 1  # version of the file; it grows when an older adacd would misread it
# the settings that a profile holds
CHOSEN = ("contrast_prompt", "contrast_placement", "switch", "alpha", "plausibility", "contrast_steps")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Fingerprint(_Part):
    """What must be equal for a profile to fit a model; None is not known. `config` is the architecture and its
    sizes, the others are hexadecimal digests, of the weights that of the last norm, which quantising leaves as it
    is; there is none at a server."""

    config: str | None
    template: str
    tokenizer: str
    weights: str | None = None

    def differs_in(self, other: Fingerprint) -> list[str]:
        """What is known of both, and not equal."""
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in Fingerprint.model_fields}
        return [name for name, pair in pairs.items() if None not in pair and pair[0] != pair[1]]


class Profile(_Part):
    """What was chosen for a model."""

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
