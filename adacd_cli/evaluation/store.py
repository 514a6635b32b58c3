"""A run's folder: what it was asked (run.json), every answer and every judgement, a line each; these as values; and
what is needed to repeat the run. A line is written when its answer is finished, so a run that is killed loses only
what was being decoded. The same plan continues it; another plan is refused, and so is a second process."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from adacd_cli import __version__
from adacd_cli.config.methods import METHODS
from adacd_cli.errors import ConfigurationError, OutputError, UsageError
from adacd_cli.evaluation.datasets.files import Label, Sample
from adacd_cli.evaluation.judges import Judge, JudgementLabel

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine import LanguageModel
    from adacd_cli.evaluation.datasets.load import LoadedSet


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """One method's answer to one sample, or in `error` why there is none."""

    method: str
    dataset: str
    id: str
    prompt: str
    label: Label
    category: str
    text: str = ""
    finish_reason: str = ""  # stop or length; this and the next three as in the event Finished
    tokens: int = 0
    added: int = 0
    subtracted: int = 0
    seconds: float = 0.0  # the answer's share of the time of its batch
    error: str = ""
    cpu_seconds: float = 0.0  # of this process's time; 0 where something else computes the model
    batch: int = 0  # numbered from 1: all methods answered its samples in turn

    @property
    def key(self) -> tuple[str, str, str]:
        return self.method, self.dataset, self.id  # a later record of the same key replaces an earlier one

    @classmethod
    def of(cls, method: str, sample: Sample, **values: Any) -> AnswerRecord:
        return cls(method, sample.dataset, sample.id, sample.prompt, sample.label, sample.category, **values)


@dataclass(frozen=True, slots=True)
class JudgementRecord:
    """A judge's judgement of one answer; `text_sha256` tells whether the answer is still that one."""

    method: str
    dataset: str
    id: str
    judge: str
    label: JudgementLabel
    text_sha256: str
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.method, self.dataset, self.id, self.judge

    @property
    def failed(self) -> bool:
        """Whether the judge could not be asked: it may be, another time."""
        return bool(self.detail.get("failed"))


PLAN, ANSWERS, JUDGEMENTS, LOCK = "run.json", "answers.jsonl", "judgements.jsonl", ".lock"

Record = TypeVar("Record", AnswerRecord, JudgementRecord)


class Store:
    """An open run folder, made where it is missing; a context manager, because it holds the folder's lock. PLAN is
    what decides the answers, JSON values by name; `answers` and `judgements` are records by key. ConfigurationError
    where the folder belongs to another plan; UsageError where another process works in it, or its files are not a
    run's; OutputError where it cannot be written."""

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        from filelock import FileLock, Timeout

        self.folder = folder
        with ExitStack() as opened:
            with _writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                try:
                    opened.enter_context(FileLock(folder / LOCK, blocking=False))
                except Timeout:
                    hint = "Wait for it, or name another folder with --output."
                    raise UsageError(f"Another run is working in {folder}.", hint) from None
            if (folder / ANSWERS).exists() and not (folder / PLAN).exists():
                raise UsageError(f"{folder} has answers but no {PLAN}.", "Name another folder with --output.")
            self.agree_on(PLAN, plan)
            self.answers = {record.key: record for record in self._read(ANSWERS, AnswerRecord)}
            self.judgements = {record.key: record for record in self._read(JUDGEMENTS, JudgementRecord)}
            with _writing(folder):
                files = {name: (folder / name).open("a", encoding="utf-8") for name in (ANSWERS, JUDGEMENTS)}
                self._files = {name: opened.enter_context(file) for name, file in files.items()}
            self._opened = opened.pop_all()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # the disk is full; writing has raised that already
            self._opened.close()

    def lacks(self, method: str, sample: Sample) -> bool:
        """Whether a method's answer to a sample is not there, or is there as failed."""
        before = self.answers.get((method, sample.dataset, sample.id))
        return before is None or bool(before.error)

    def add(self, record: AnswerRecord | JudgementRecord) -> None:
        """Writes an answer or a judgement down, or raises OutputError, e.g. because the disk is full."""
        name = ANSWERS if isinstance(record, AnswerRecord) else JUDGEMENTS
        with _writing(self.folder / name):
            # ASCII only, so that no character of an answer can break a line or the encoding
            self._files[name].write(json.dumps(asdict(record)) + "\n")
            self._files[name].flush()
        if isinstance(record, AnswerRecord):
            self.answers[record.key] = record
        else:
            self.judgements[record.key] = record

    def write(self, name: str, text: str) -> Path:
        """Replaces a file of the folder, whole or not at all, or raises OutputError."""
        path = self.folder / name
        partial = path.with_name(f"{name}.partial")
        with _writing(path):
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        return path

    def agree_on(self, name: str, facts: Mapping[str, Any]) -> None:
        """Writes facts to a file of the folder, or checks that they are what it holds. ConfigurationError, which
        names the first difference, where they differ; UsageError where the file is damaged."""
        path = self.folder / name
        if not path.exists():
            self.write(name, json.dumps(facts, indent=2) + "\n")
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            hint = "Name another folder with --output."
            raise UsageError(f"{path} cannot be read: {error}.", hint) from error
        for changed in _differences(before, json.loads(json.dumps(facts))):
            what = f"The run in {self.folder} was made with other settings: {changed}."
            hint = "Use the same settings to continue it, or name another folder with --output."
            raise ConfigurationError(what, hint)

    def _read(self, name: str, kind: type[Record]) -> Iterator[Record]:
        """The records of a file; a last line that was cut off by a kill is taken out of it."""
        path = self.folder / name
        if not path.exists():
            return
        with path.open("rb+") as file:
            begin = 0
            for number, line in enumerate(file.read().splitlines(keepends=True), 1):
                try:
                    if not line.endswith(b"\n"):
                        raise ValueError("the line has no end")
                    record = kind(**json.loads(line))
                except (ValueError, TypeError) as error:
                    if begin + len(line) == file.seek(0, 2):
                        file.truncate(begin)
                        return
                    hint = "Remove that line, and its answer is made again; or name another --output."
                    raise UsageError(f"{path}, line {number} is damaged.", hint) from error
                begin += len(line)
                yield record


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """`name was 1 and is now 2`, of whatever differs; nested names are joined by dots."""
    for name in [*before, *(name for name in after if name not in before)]:
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            was, now = (json.dumps(value, ensure_ascii=False) for value in (old, new))
            yield f"{prefix}{name} was {was} and is now {now}"


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "Make room or name another folder; the same command then continues where it stopped."
        raise OutputError(f"{path} could not be written: {error.strerror or error}.", hint) from error


def make_plan(
    runs: Sequence[Settings],
    sets: Sequence[LoadedSet],
    judges: Sequence[Judge],
    *,
    limit: int | None,
    batch_size: int | str,
) -> dict[str, Any]:
    """What must be the same for a run to be continued, JSON values by name."""
    values = runs[0].model_dump(mode="json")
    loading: tuple[str, ...] = ("model", "revision", "dtype", "quantize", "system")
    loading += ("served_model", "tokenizer") if runs[0].served else ()
    hashes: dict[str, str] = {}  # of adapter and direction: a folder may come to hold another
    for settings in runs:
        name = METHODS[settings.effective_method].resource
        given = getattr(settings, name) if name and name != "draft" else None
        files = sorted(Path(given).expanduser().glob("*.safetensors")) if given else []
        if name and files:
            hashes[name] = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return {
        **{name: values[name] for name in loading},
        "methods": {settings.method_label: settings.decoding() for settings in runs},
        "datasets": {one.name: {"n": len(one.samples), "sha256": one.sha256} for one in sets},
        **({"resources": hashes} if hashes else {}),
        "limit": limit,
        # not of the answers, but of their times
        "batch_size": batch_size,
        "threads": values["threads"],
        "judges": {judge.name: dict(judge.facts) for judge in judges},
    }


def model_facts(model: LanguageModel) -> dict[str, Any]:
    """What the loaded model adds to the plan: the commit, the number format and the chat template. Of a model at a
    server the commit is the tokenizer's, and the server's facts replace the number format."""
    template = model.tokenizer.chat_template
    text = template if isinstance(template, str) else repr(template)
    return {
        "revision": model.revision,
        "dtype": model.dtype_name,
        **(model.server.facts() if model.server is not None else {}),
        **({"engine": model.engine, "llama.cpp": model.model.version} if model.engine == "llamacpp" else {}),
        **({"profile": f"{model.profile.name} {model.profile.digest}"} if model.profile else {}),
        "template_sha256": None if template is None else hashlib.sha256(text.encode()).hexdigest(),
    }


def provenance(
    plan: Mapping[str, Any],
    facts: Mapping[str, Any],
    where: Mapping[str, Any],
    sets: Sequence[LoadedSet],
    *,
    began: float,
    ray: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Versions, model, settings, data and machine: FACTS and WHERE are `model_facts` and `machine_facts` of the
    model, wherever it ran, BEGAN is in seconds since 1970, and RAY tells of the workers, where Ray spread the
    run."""
    from adacd_cli.loading.machine import package_versions

    return {
        "adacd": __version__,
        "versions": package_versions(),
        "python": platform.python_version(),
        "model": plan["model"],
        **facts,
        "settings": dict(plan["methods"]),
        "system": plan["system"],
        "quantize": plan["quantize"],
        "judges": list(plan["judges"]),
        "judging": dict(plan["judges"]),
        "limit": plan["limit"],
        "data": {one.name: {"source": one.source, **plan["datasets"][one.name]} for one in sets},
        "batch_size": plan["batch_size"],
        "machine": dict(where),
        **({} if ray is None else {"ray": dict(ray)}),
        "began": datetime.fromtimestamp(began, timezone.utc).isoformat(timespec="seconds"),
        "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
