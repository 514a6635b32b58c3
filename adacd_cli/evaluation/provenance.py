"""What decides a run's answers (the plan), and what is needed to repeat it (the provenance)."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adacd_cli import __version__
from adacd_cli.config.methods import METHODS

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine import LanguageModel
    from adacd_cli.evaluation.datasets.load import LoadedSet
    from adacd_cli.evaluation.judges.base import Judge

_LOADING = ("model", "revision", "dtype", "quantize", "system")
_SERVED = ("served_model", "tokenizer")


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
    loading = (*_LOADING, *_SERVED) if runs[0].served else _LOADING
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
        "datasets": {each.name: {"n": len(each.samples), "sha256": each.sha256} for each in sets},
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
        "data": {
            each.name: {"source": each.source, "n": len(each.samples), "sha256": each.sha256} for each in sets
        },
        "batch_size": plan["batch_size"],
        "machine": dict(where),
        **({} if ray is None else {"ray": dict(ray)}),
        "began": datetime.fromtimestamp(began, timezone.utc).isoformat(timespec="seconds"),
        "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
