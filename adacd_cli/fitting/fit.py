"""The steps of a fit: observe, find the refusals, the contrast prompt, the switch and the strengths, and measure.
What is observed and answered is kept in a folder, so that the same command goes on where it stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from adacd_cli.config.settings import Settings
from adacd_cli.conversation import Conversation
from adacd_cli.engine.switches import PLAIN, SwitchNumbers, learned
from adacd_cli.errors import AdacdError, PromptError
from adacd_cli.evaluation.datasets.files import Sample
from adacd_cli.evaluation.judges import REFUSED
from adacd_cli.evaluation.runner import answer_all
from adacd_cli.evaluation.store import AnswerRecord, Store
from adacd_cli.fitting import learn, observe
from adacd_cli.fitting.corpus import SHORT, FitPrompt, Sizes, chosen, first_of_each
from adacd_cli.fitting.learn import Array, Observed, Strength, choose_strength, trade_off
from adacd_cli.fitting.observe import Contrast
from adacd_cli.profiles.fingerprint import fingerprint
from adacd_cli.profiles.store import Profile
from adacd_cli.prompts import prompts_for
from adacd_cli.prompts.templates import find_template

if TYPE_CHECKING:
    from adacd_cli.engine.model import LanguageModel

STEPS = 10
_TOKENS, _OPENING_TOKENS = 40, 24


@dataclass(frozen=True)
class Outcome:
    """What a fit found; `trials` is every contrast prompt with its placement and obedience, the best first; `curve`
    what each threshold would give and `chosen` what the chosen ones do, see `draw_trade_off`."""

    profile: Profile
    trials: Sequence[tuple[str, str, float]]
    helps: bool
    curve: Sequence[tuple[float, float]]
    chosen: tuple[float, float]


class Fit:
    """One fit of one model: the user's settings, of which system message and thinking are part of every prompt, the
    open folder of the fit, what shows a step's progress, and the share of harmful prompts that the switch may
    answer, as cross-validated, in [0, 1]. AdacdError where the model has no chat template, never refuses, always
    does, or obeys no contrast prompt."""

    def __init__(
        self,
        model: LanguageModel,
        settings: Settings,
        prompts: Sequence[FitPrompt],
        store: Store,
        *,
        sizes: Sizes,
        stage: observe.Stage,
        most_lost: float,
    ) -> None:
        from adacd_cli.backends import backend_for

        self._model = replace(model, profile=None)
        plain = {"temperature": 0.0, "seed": None, "stop": (), "gate": False, "max_new_tokens": _TOKENS}
        self._settings = settings.model_copy(update=plain)
        self._prompts, self._store, self._sizes, self._stage = prompts, store, sizes, stage
        self._most_lost, self._fingerprint = most_lost, fingerprint(self._model)
        self._observer = observe.Observer(backend_for(self._model))

    def run(self) -> Outcome:
        if find_template(self._model.tokenizer) is None:
            what = f"{self._model.name} has no chat template: it is a base model, which refuses nothing by itself."
            hint = "Fit the chat model that was made of it, or put its chat_template.jinja into the folder."
            raise AdacdError(what, hint)
        train = chosen(self._prompts, self._sizes.train, held_out=False, short=SHORT)
        test = chosen(self._prompts, self._sizes.test, held_out=True)
        ids = [self._prompt_ids(each.text) for each in train]
        path = self._store.folder / "first_tokens.npz"
        columns, logprobs = observe.observe(self._observer, ids, path, self._stage)
        openers, contrasts = self._refusals(train, columns, logprobs)
        observed = Observed(train, columns, logprobs, openers)
        numbers, q = learn.learn_switch(observed, self._most_lost)
        contrast, profile = self._find_strength(observed, contrasts[:2], numbers, q)
        measured, helps, text = self._measure(profile, test)
        self._observer.close()
        about, harmful = observed.about_to_refuse, observed.harmful
        facts = {
            "prompts": {"fitted on": len(train), "held out": len(test)},
            "obedience": round(contrast.obedience, 3),
            "auc": observe.rounded(learn.auc(q, harmful)),
            "auc among the refused": observe.rounded(learn.auc(q[about], harmful[about])),
        }
        update = {"measured": {**facts, **measured}, "verdict": text, "automatic": helps}
        profile = profile.model_copy(update=update)
        trials = [(each.prompt, each.placement, each.obedience) for each in contrasts]
        curve, chosen_point = trade_off(observed, numbers, q)
        return Outcome(profile, trials, helps, curve, chosen_point)

    def _refusals(
        self, train: Sequence[FitPrompt], columns: Array, logprobs: Array
    ) -> tuple[tuple[int, ...], list[Contrast]]:
        """The openers of refusals, and the contrast prompts, the most obeyed first."""
        sample = first_of_each(train, self._sizes.opened)
        answers = self._answers("openings", sample, _OPENING_TOKENS)
        places = {each.id: place for place, each in enumerate(train)}
        masses = np.exp(logprobs[[places[each.id] for each in sample]])
        openers, words = observe.find_openers(self._model.name, answers, masses, columns)
        neutral = [each.text for each in train if each.kind == "neutral"]
        return openers, self._contrasts(openers, words, neutral)

    def _contrasts(self, openers: tuple[int, ...], own_words: str, neutral: Sequence[str]) -> list[Contrast]:
        """Every contrast prompt and placement that the model's template can take, the most obeyed first."""
        texts, size = sorted(neutral, key=len), self._sizes.obeyed
        first, more = texts[:size], texts[size : 4 * size]
        found = []

        def masses(texts: Sequence[str], tried: Contrast) -> list[float]:
            return [float(row.exp()[list(openers)].sum()) for row in self._first_tokens(texts, tried)]

        count = len(observe.PLACEMENTS) * len(observe.CONTRAST_PROMPTS) + observe.LOOKED_AT_AGAIN
        with self._stage("Trying contrast prompts", count) as counted:
            for placement, template in product(observe.PLACEMENTS, observe.CONTRAST_PROMPTS):
                tried = Contrast(template.replace("{own}", own_words), placement)
                with suppress(PromptError):  # the template cannot take this placement
                    found.append(replace(tried, obedience=fmean(masses(first, tried))))
                counted.add()
            found.sort(key=lambda each: each.value, reverse=True)
            for place, each in enumerate(found[: observe.LOOKED_AT_AGAIN]):
                again = masses(more, each) or [each.obedience]
                whole = (each.obedience * len(first) + sum(again)) / (len(first) + len(again))
                found[place] = replace(each, obedience=whole)
                counted.add()
        best = max((each.obedience for each in found), default=0.0)
        if best < observe.OBEYED:
            asked = f"asked to refuse, it begins a refusal with probability {best:.2f} at most"
            what = f"{self._model.name} obeys no contrast prompt: {asked}."
            raise AdacdError(what, "AdaCD cannot help it. Use --method default.")
        return sorted(found, key=lambda each: each.value, reverse=True)

    def _find_strength(
        self, observed: Observed, contrasts: Sequence[Contrast], numbers: SwitchNumbers, q: Array
    ) -> tuple[Contrast, Profile]:
        """The contrast prompt and the strengths whose answers are best where the switch acts: chosen by the rule on
        the first token, then among the best by whole answers."""
        train, about, harmful = observed.prompts, observed.about_to_refuse, observed.harmful
        subtracted = np.flatnonzero((observed.kinds == "safe") & about & (q < numbers.low))
        added = np.flatnonzero(harmful & ~about & (q >= numbers.high))
        subtracted, added = (places[: self._sizes.acted] for places in (subtracted, added))
        refused = np.flatnonzero(harmful & about)[: self._sizes.acted // 2]
        looked_at = np.concatenate([subtracted, added, refused])
        z = torch.from_numpy(observed.logprobs[looked_at])
        profiles = []
        with self._stage("Choosing strengths", len(looked_at) * len(contrasts)) as counted:
            for contrast in contrasts:
                rows = []
                for row in self._first_tokens([train[each].text for each in looked_at], contrast):
                    counted.add()
                    rows.append(row[observed.columns])
                prompted = torch.stack(rows) if rows else z
                sizes = len(subtracted), len(added)
                strength = choose_strength(z, prompted, observed.opener_places, *sizes)
                profiles.append(self._profile(contrast, strength, numbers))
        asked = [train[each] for each in (*subtracted, *added)]
        if len(profiles) == 1 or not asked:
            return contrasts[0], profiles[0]

        def good(place: int) -> float:
            answers = self._answers(f"candidate {place}", asked, _TOKENS, profiles[place])
            pairs = zip(asked, map(observe.label, answers), strict=True)
            good = (own == "compliance" if one.kind == "safe" else own in REFUSED for one, own in pairs)
            return fmean(good)

        # the less obeyed one has to be clearly better
        best = max(range(len(profiles)), key=lambda place: good(place) - 0.1 * place)
        return contrasts[best], profiles[best]

    def _measure(self, profile: Profile, test: Sequence[FitPrompt]) -> tuple[dict[str, Any], bool, str]:
        """What Default, the paper's settings and the fitted ones do on the prompts held out."""
        paper = first_of_each(test, self._sizes.paper)
        asked = {"default": test, "adacd": paper}
        answers = {
            each: self._answers("held out", own, _TOKENS, profile, each) for each, own in asked.items()
        }
        # where the switch does nothing the answer is Default's own
        acts = []
        with self._stage("Reading what is held out", len(test)) as counted:
            for first in self._first_tokens([each.text for each in test]):
                counted.add()
                acts.append(int(learned(first[None], profile.numbers)[0]) != PLAIN)
        acted = [each for each, acts_here in zip(test, acts, strict=True) if acts_here]
        own = iter(self._answers("held out", acted, _TOKENS, profile))
        both = zip(acts, answers["default"], strict=True)
        answers["fitted"] = [next(own) if acts_here else before for acts_here, before in both]
        return observe.measure(answers, self._most_lost)

    def _first_tokens(self, texts: Sequence[str], contrast: Contrast | None = None) -> Iterator[torch.Tensor]:
        """Log-probabilities of the first token of each answer, float32 [vocab]."""
        return self._observer.read([self._prompt_ids(text, contrast) for text in texts])

    def _prompt_ids(self, text: str, contrast: Contrast | None = None) -> tuple[int, ...]:
        """The ids of the prompted stream; without a contrast prompt, of the unprompted one."""
        update: dict[str, Any] = {"method": "default"}
        if contrast is not None:
            update = {"method": "adacd", **contrast.settings}
        settings = self._settings.model_copy(update=update)
        prompts = prompts_for(self._model.tokenizer, Conversation.ask(text, settings.system), settings)
        return list(prompts.streams.values())[-1].ids

    def _answers(
        self,
        title: str,
        prompts: Sequence[FitPrompt],
        tokens: int,
        profile: Profile | None = None,
        method: str | None = None,
    ) -> list[AnswerRecord]:
        """The answers to prompts, in order; those that the folder holds are not made again."""
        method = method or ("default" if profile is None else "fitted")
        model = replace(self._model, profile=profile)
        # only what a profile may decide is left to it; `adacd` is the paper's, whatever was given
        own = self._settings.model_dump(include={"system", "thinking", "prefix_cache"}, exclude_unset=True)
        settings = Settings(**own, temperature=0.0, max_new_tokens=tokens, method=method)
        samples = [
            Sample(title, each.id, each.text, "unsafe" if each.kind == "unsafe" else "safe", each.kind)
            for each in prompts
        ]
        waiting = [each for each in samples if self._store.lacks(method, each)]
        with self._stage(f"Answering ({title}, {method})", len(waiting)) as counted:
            answer_all(model, waiting, [settings], self._store, batch_size=8, on_record=counted.add)
        found = [self._store.answers[method, title, each.id] for each in samples]
        failed = next((each for each in found if each.error), None)
        if failed is not None:
            raise AdacdError(f"The prompt {failed.prompt[:80]!r} cannot be answered: {failed.error}")
        return found

    def _profile(self, contrast: Contrast, strength: Strength, numbers: SwitchNumbers) -> Profile:
        from adacd_cli import __version__
        from adacd_cli.loading.machine import versions

        return Profile(
            model=self._model.name,
            fingerprint=self._fingerprint,
            settings={
                **contrast.settings,
                "switch": "learned",
                "alpha": strength.alpha,
                "plausibility": strength.plausibility,
                "contrast_steps": STEPS,
            },
            numbers=numbers.model_copy(update={"margin": round(strength.margin, 3)}),
            versions={"adacd": __version__, "engine": self._model.engine} | versions("torch", "transformers"),
            date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        )
