"""Where profiles lie, the user's and the bundled ones, and which of them fits a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from platformdirs import user_data_path

from adacd_cli.config.settings import Settings
from adacd_cli.engine.model import LanguageModel
from adacd_cli.errors import AdacdError, ConfigurationError, OutputError
from adacd_cli.profiles.fingerprint import fingerprint
from adacd_cli.profiles.profile import Fingerprint, Profile, read

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
