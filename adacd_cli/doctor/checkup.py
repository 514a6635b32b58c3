"""The checkup: section after section, from the machine to the model's behaviour. An error in one section is a
finding, and the later ones check what can be checked without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from adacd_cli.doctor import findings
from adacd_cli.doctor.findings import Finding, Section, Status, checked, raised, skipped
from adacd_cli.errors import AdacdError

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine import LanguageModel
    from adacd_cli.loading.files import Source

Progress = Callable[[str], None]


class Checkup:
    """Checks one model on this machine; QUICK decodes nothing. `sections` are functions that each give one section,
    to be called in this order; `machine` and `model` are what these found."""

    def __init__(self, settings: Settings, *, quick: bool) -> None:
        # decoded greedily, whatever method is set: with the model's profile, or with AdaCD as published
        fixed = {"method": "adacd", "gate": settings.effective_method == "adacd-gated"}
        self._settings = settings.model_copy(update={**fixed, "temperature": 0.0, "seed": None, "stop": ()})
        self._source: Source | None = None
        self._loaded: LanguageModel | None = None
        self._device: Any = None
        self._unasked, self._thinks = "--quick is set" if quick else "", False
        self.sections = (
            partial(self._section, "Machine", self._check_machine),
            partial(self._section, f"Model {settings.model}", self._check_model),
            partial(self._section, "Prompts", self._check_prompts),
            partial(self._section, "Behaviour", self._check_behaviour),
        )
        self.machine: dict[str, Any] = {}
        self.model: dict[str, Any] = {"name": settings.model}

    def _section(
        self, heading: str, check: Callable[[Progress], Iterable[Finding]], progress: Progress
    ) -> Section:
        found = []
        try:
            for finding in check(progress):
                found.append(finding)  # what was found before an error counts
        except AdacdError as error:
            found.append(raised(heading.split()[0].lower(), error))
        return Section(heading, tuple(found))

    def _check_machine(self, progress: Progress) -> Iterable[Finding]:
        from adacd_cli.loading.hub import go_offline
        from adacd_cli.loading.local import import_libraries

        if self._settings.offline:
            go_offline()
        progress("Starting PyTorch")
        import_libraries()
        from adacd_cli.doctor import machine
        from adacd_cli.loading.hardware import choose_device

        found = machine.inspect_machine(self._settings)
        if found["device"] is not None:
            self._device = choose_device(self._settings.device)
        apart = ("required", "extras", "idle_gpu", "device_error")  # which only the findings are about
        self.machine = {name: value for name, value in found.items() if name not in apart}
        return machine.check(found, self._settings)

    def _check_model(self, progress: Progress) -> Iterator[Finding]:
        """Whether the model fits, from its files alone; and if so, whether it loads."""
        if self._device is None:
            yield skipped("model", "It was not loaded: there is no device for it.")
            return
        if self._settings.served:
            yield skipped("memory", "It runs on a server, so its weights and number format are unknown.")
            yield from self._load(progress)
            return
        from adacd_cli.doctor.machine import check_mapped, check_memory, estimate, free_for
        from adacd_cli.loading.files import locate, read_once
        from adacd_cli.loading.hardware import require
        from adacd_cli.loading.local import loads_with_llamacpp
        from adacd_cli.loading.progress import quiet

        self._source = source = locate(self._settings, progress)
        if loads_with_llamacpp(self._settings, source):
            yield check_mapped(source, free_for(self._device))
            yield from self._load(progress)
            return
        if source.gguf:
            require(("gguf", "accelerate"), "A GGUF file")
        # a GGUF file is parsed once, for the estimate and for loading it
        with read_once() if source.gguf else nullcontext():
            progress("Reading the model's files")
            with quiet(progress):
                need = estimate(self._settings, source, self._device)
            memory = check_memory(need, free_for(self._device), str(self._device))
            self.model |= {"revision": source.revision, **memory.facts}
            self.model.pop("free_bytes", None)
            yield memory
            if memory.verdict == findings.NO_FIT:
                yield skipped("model", "It was not loaded.")
            else:
                yield from self._load(progress)

    def _load(self, progress: Progress) -> Iterator[Finding]:
        from adacd_cli.loading import load
        from adacd_cli.profiles.store import applied

        self._loaded = model = load(self._settings, progress=progress)
        length = model.context_length
        facts: dict[str, Any] = {"name": model.name, "revision": model.revision, "context_length": length}
        if model.model is not None:
            facts["dtype"] = model.dtype_name
        self.model |= facts
        for text in model.warnings:
            yield Finding("loading", Status.WARNING, text, "", facts)
        if not model.warnings:
            context = "" if length is None else f", with a context of {length:,} tokens"
            runs = {"server": "Its server answers", "torch": "It loads and runs"}.get(
                model.engine, f"It loads and runs on llama.cpp ({model.dtype_name})"
            )
            yield checked("model", facts, f"{runs}{context}.")
        if (profile := model.profile) is not None:
            if not self._settings.gate:
                self._settings = applied(self._settings.model_copy(update={"method": "fitted"}), profile)
            about = {name: getattr(profile, name) for name in ("name", "source", "date", "verdict")}
            verdict = f": {profile.verdict.rstrip('.')}" if profile.verdict else ""
            sentence = f"Its profile is {profile.name}, fitted on {profile.date}{verdict}."
            yield checked("profile", about, sentence)

    def _check_prompts(self, progress: Progress) -> Iterable[Finding]:
        from adacd_cli.doctor import prompts

        progress("Making prompts")
        tokenizer = self._loaded.tokenizer if self._loaded else self._tokenizer()
        if tokenizer is None:
            return (skipped("prompts", "No tokenizer was loaded."),)
        found = prompts.check(tokenizer, self._settings, self._loaded.eos_ids if self._loaded else None)
        if any(finding.verdict == findings.CANNOT for finding in found):
            self._unasked = self._unasked or "no prompts can be made"
        states = ("always", "switch") if self._settings.thinking else ("always",)
        self._thinks = any(finding.facts.get("thinking") in states for finding in found)
        return found

    def _tokenizer(self) -> Any:
        from adacd_cli.loading.loader import load_own_tokenizer
        from adacd_cli.loading.pretrained import load_tokenizer
        from adacd_cli.loading.progress import quiet

        settings = self._settings
        with suppress(AdacdError), quiet(lambda line: None):  # the model's section has said so
            if settings.served and settings.tokenizer is not None:
                return load_own_tokenizer(settings, lambda line: None)[0]
            if self._source is not None:
                trust = settings.trust_remote_code
                return load_tokenizer(self._source, settings.model, trust_remote_code=trust)
        return None

    def _check_behaviour(self, progress: Progress) -> Iterable[Finding]:
        from adacd_cli.doctor import behaviour

        if self._loaded is None or self._unasked:
            why = "the model is not loaded" if self._loaded is None else self._unasked
            return (skipped("behaviour", f"No questions were asked: {why}.", findings.UNMEASURED),)
        progress("Asking questions")
        answers = behaviour.run_questions(self._loaded, self._settings, progress, thinks=self._thinks)
        return behaviour.check(answers, model=self._settings.model)
