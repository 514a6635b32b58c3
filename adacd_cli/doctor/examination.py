"""The examination: section after section, from the machine to the model's behaviour.

A fault in one section is a finding, and the next ones look at what can be looked at without it. A model that
is served elsewhere has no weights here: what is asked of them is skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from adacd_cli.doctor.finding import Finding, Section, Verdict, fine, raised, skipped, warned
from adacd_cli.doctor.verdict import CANNOT, NO_FIT, UNMEASURED, verdict
from adacd_cli.errors import AdacdError

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.doctor.machine import Machine
    from adacd_cli.engine import LanguageModel
    from adacd_cli.loading.source import Source

Progress = Callable[[str], None]
"""Told in short lines what is being done."""

Stage = Callable[[Progress], Section]


class Examination:
    """Examines one model on this machine; its stages are called in their order, each once.

    Args:
        settings: what a run would have.
        quick: leave the behaviour out, so that nothing is decoded.

    Attributes:
        sections: what was found so far.
        machine: what the machine is, JSON values, from the first stage on.
        model: what the model is, JSON values.
    """

    def __init__(self, settings: Settings, *, quick: bool) -> None:
        # what is measured is AdaCD and its gated form, greedily, whatever method was set
        gated = settings.effective_method == "adacd-gated"
        fixed: dict[str, Any] = {
            "method": "adacd",
            "gate": gated,
            "temperature": 0.0,
            "seed": None,
            "stop": (),
        }
        self._settings = settings.model_copy(update=fixed)
        self._quick = quick
        self._machine: Machine | None = None
        self._source: Source | None = None
        self._loaded: LanguageModel | None = None
        self._device: Any = None
        self.sections: list[Section] = []
        self.machine: dict[str, Any] = {}
        self.model: dict[str, Any] = {"name": settings.model}

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What is to be called; each gives its section and keeps it."""
        return tuple(map(self._keeping, (self._look_at_machine, self._load, self._read_prompts, self._ask)))

    @property
    def verdict(self) -> Verdict:
        """What all stages together come to."""
        return verdict(self.sections)

    def _keeping(self, stage: Stage) -> Stage:
        def run(progress: Progress) -> Section:
            section = stage(progress)
            self.sections.append(section)
            return section

        return run

    def _look_at_machine(self, progress: Progress) -> Section:
        from adacd_cli.loading.hub import go_offline
        from adacd_cli.loading.startup import import_libraries

        if self._settings.offline:
            go_offline()
        progress("Starting PyTorch")
        import_libraries()
        from adacd_cli.doctor import environment, machine
        from adacd_cli.loading.hardware import choose_device

        self._machine = here = machine.look(self._settings)
        if here.device is not None:
            self._device = choose_device(self._settings.device)
        self.machine = {**here.facts, **machine.facts(here)}
        return Section("Machine", environment.examine(here, self._settings))

    def _load(self, progress: Progress) -> Section:
        from adacd_cli.loading.source import locate

        heading = f"Model {self._settings.model}"
        if self._device is None:
            return Section(heading, (skipped("model", "It was not loaded: there is no device for it."),))
        if self._settings.served:
            why = "It runs elsewhere, so neither its weights nor its number format are known here."
            return Section(heading, (skipped("memory", why), *self._try_to_load(progress)))
        try:
            self._source = source = locate(self._settings, progress)
            with _parsed_once(source):
                memory = self._look_at_files(source, progress)
                if memory.verdict == NO_FIT:
                    return Section(heading, (memory, skipped("model", "It was not loaded.")))
                return Section(heading, (memory, *self._try_to_load(progress)))
        except AdacdError as error:
            return Section(heading, (raised("model", error, CANNOT),))

    def _look_at_files(self, source: Source, progress: Progress) -> Finding:
        """Whether the model fits, from its files alone.

        Raises:
            AdacdError: its files cannot be used.
        """
        from adacd_cli.doctor.memory import check_memory, estimate, free_for
        from adacd_cli.loading.progress import quiet

        progress("Reading the model's files")
        with quiet(progress):
            need = estimate(self._settings, source, self._device)
        self.model |= {"revision": source.revision, **need.facts}
        return check_memory(need, free_for(self._device), str(self._device))

    def _try_to_load(self, progress: Progress) -> tuple[Finding, ...]:
        from adacd_cli.loading import load

        try:
            self._loaded = model = load(self._settings, progress=progress)
        except AdacdError as error:
            return (raised("model", error, CANNOT),)
        facts: dict[str, Any] = {"name": model.name, "revision": model.revision}
        facts["context_length"] = model.context_length
        if model.model is not None:
            facts["dtype"] = str(model.model.dtype).removeprefix("torch.")
        self.model |= facts
        if model.warnings:
            return tuple(warned("loading", warning, "", facts) for warning in model.warnings)
        context = (
            "" if model.context_length is None else f", with a context of {model.context_length:,} tokens"
        )
        runs = "Its server answers" if model.model is None else "It loads, and runs"
        return (fine("model", f"{runs}{context}.", facts),)

    def _read_prompts(self, progress: Progress) -> Section:
        from adacd_cli.doctor import template

        progress("Making prompts")
        if self._loaded is not None:
            tokenizer, ends = self._loaded.tokenizer, self._loaded.eos_ids
            return Section("Prompts", template.examine(tokenizer, self._settings, ends))
        tokenizer = self._tokenizer_alone()
        if tokenizer is None:
            return Section("Prompts", (skipped("prompt pair", "No tokenizer was loaded."),))
        return Section("Prompts", template.examine(tokenizer, self._settings, None))

    def _tokenizer_alone(self) -> Any:
        """The tokenizer of a model that was not loaded; None where that fails, too."""
        from adacd_cli.loading.progress import quiet
        from adacd_cli.loading.tokenizer import load_tokenizer
        from adacd_cli.backends.server.load import tokenizer_of

        settings = self._settings
        try:
            with quiet(lambda line: None):
                if settings.served and settings.tokenizer is not None:
                    return tokenizer_of(settings, lambda line: None)[0]
                if self._source is not None:
                    trust = settings.trust_remote_code
                    return load_tokenizer(self._source, settings.model, trust_remote_code=trust)
        except AdacdError:  # said of the model already
            pass
        return None

    def _ask(self, progress: Progress) -> Section:
        from adacd_cli.doctor import behaviour, counts

        if self._loaded is None:
            why = "Nothing was asked: the model is not loaded."
        elif self._quick:
            why = "Nothing was asked, by --quick."
        elif any(each.verdict == CANNOT for section in self.sections for each in section.findings):
            why = "Nothing was asked: no prompts can be made."
        else:
            progress("Asking")
            try:
                answers = behaviour.ask(self._loaded, self._settings, progress)
            except AdacdError as error:
                return Section("Behaviour", (raised("behaviour", error, CANNOT),))
            return Section("Behaviour", counts.examine(answers, gated=self._settings.gate))
        return Section("Behaviour", (skipped("behaviour", why, UNMEASURED),))


def _parsed_once(source: Source) -> AbstractContextManager[None]:
    """Within it a GGUF file is parsed once, for what is read of it first and for loading it.

    Raises:
        MissingExtraError: the packages that read one are not installed.
    """
    if not source.gguf:
        return nullcontext()
    from adacd_cli.loading.gguf import read_once
    from adacd_cli.loading.quantization import require

    require(("gguf", "accelerate"), "A GGUF file")
    return read_once()
