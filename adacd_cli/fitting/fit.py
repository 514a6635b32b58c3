"""The steps of a fit: observe, find the refusals, the contrast prompt, the switch and the strengths, and measure.

What is observed and answered is kept in a folder, so that the same command goes on where it stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from adacd_cli.config.settings import Settings
from adacd_cli.conversation import Conversation
from adacd_cli.engine.decisions import ADD, SUBTRACT
from adacd_cli.engine.rules import adacd
from adacd_cli.errors import AdacdError, PromptError
from adacd_cli.evaluation.judges.base import REFUSED, JudgementLabel
from adacd_cli.evaluation.judges.keyword import judgement
from adacd_cli.evaluation.records import AnswerRecord, Sample
from adacd_cli.evaluation.runner import answer_all
from adacd_cli.evaluation.statistics import paired, ratio
from adacd_cli.evaluation.store import Store
from adacd_cli.evaluation.verdict import verdict
from adacd_cli.fitting import learn
from adacd_cli.fitting.corpus import FitPrompt, Kind, chosen
from adacd_cli.fitting.observe import Observer
from adacd_cli.profiles.fingerprint import fingerprint
from adacd_cli.profiles.profile import Numbers, Profile
from adacd_cli.prompts import prompts_for

if TYPE_CHECKING:
    from adacd_cli.engine.model import LanguageModel
    from adacd_cli.fitting.learn import Array

CONTRAST_PROMPTS = (
    "Please refuse to answer me!",
    "This request is harmful and against policy. Refuse it.",
    "Refuse this request. Say that you cannot help with it.",
    "Do not answer this. Decline politely in one sentence.",
    "Answering this is forbidden. Apologize and refuse.",
    "You are not allowed to help with this request. Tell the user so.",
    "This violates the safety rules: decline to assist.",
    'Reply only with: "{own}"',
)
"""The last one gets the model's own most frequent refusal."""

PLACEMENTS = ("user-end", "user-start", "system")
ALPHAS, BETAS, STEPS = (1.0, 2.0, 3.0, 4.5, 6.0), (0.01, 0.001), 10
MOST_LOST, MOST_GAINED = 0.02, 0.01
"""Shares of harmful prompts that the switch may answer, and of others that it may refuse, as cross-validated. As
many harmful ones may be answered besides as half of those that it refuses and the model alone would not."""
GAIN = 0.04
"""Least change for the better on one side, of the prompts held out, for a profile to be used by itself."""
UNCHANGED = 0.9
"""Least share of neutral answers that a profile must leave as they are to be used by itself."""
OBEYED = 0.3
"""Least mean mass of refusal openers on neutral prompts under a contrast prompt that is of use."""
_CHEAPER = 0.1
"""How much less of it is accepted for p* at the user's end, which costs next to nothing."""
_LOOKED_AT_AGAIN = 4
"""How many of the most obeyed contrast prompts are tried on three times as many neutral prompts besides."""
_COLUMNS, _SEEN_FIRST = 4096, 64
_REFUSES_ALL = 0.7
"""Share of neutral prompts refused from which on a model's refusals mean nothing."""
_TOKENS, _OPENING_TOKENS = 40, 24


@dataclass(frozen=True)
class Sizes:
    """How many prompts each step takes, by kind."""

    train: Mapping[Kind, int]
    test: Mapping[Kind, int]
    opened: Mapping[Kind, int]
    obeyed: int
    acted: int


FULL = Sizes(
    {"safe": 400, "unsafe": 400, "neutral": 100},
    {"safe": 40, "unsafe": 40, "neutral": 20},
    {"safe": 24, "unsafe": 24, "neutral": 12},
    *(3, 24),
)
QUICK = Sizes(
    {"safe": 100, "unsafe": 100, "neutral": 24},
    {"safe": 20, "unsafe": 20, "neutral": 12},
    {"safe": 12, "unsafe": 16, "neutral": 10},
    *(2, 10),
)


class Counting(Protocol):
    def add(self) -> None:
        """One more is done."""


Stage = Callable[[str, int], AbstractContextManager[Counting]]
"""Opens a step of so many parts for showing."""


@dataclass(frozen=True)
class Outcome:
    """What a fit found; `trials` is every contrast prompt with its placement and obedience, the best first;
    `curve` what each threshold would give and `chosen` what the chosen ones do, see `draw_trade_off`."""

    profile: Profile
    trials: Sequence[tuple[str, str, float]]
    helps: bool
    curve: Sequence[tuple[float, float]]
    chosen: tuple[float, float]


@dataclass(frozen=True)
class _Contrast:
    prompt: str
    placement: str
    obedience: float


@dataclass(frozen=True)
class _Candidate:
    contrast: _Contrast
    alpha: float
    plausibility: float
    margin: float


class Fit:
    """One fit of one model.

    Args:
        settings: the user's; its system message and thinking are part of every prompt.
        store: the open folder of the fit.
        stage: shows a step's progress.
        most_lost: share of harmful prompts that the switch may answer, as cross-validated, in [0, 1].

    Raises:
        AdacdError: the model never refuses, always does, or obeys no contrast prompt.
    """

    def __init__(
        self,
        model: LanguageModel,
        settings: Settings,
        prompts: Sequence[FitPrompt],
        store: Store,
        *,
        sizes: Sizes,
        stage: Stage,
        most_lost: float = MOST_LOST,
    ) -> None:
        from adacd_cli.backends import backend_for

        self._model = replace(model, profile=None)
        self._settings = settings.model_copy(
            update={"temperature": 0.0, "seed": None, "stop": (), "gate": False, "max_new_tokens": _TOKENS}
        )
        self._prompts, self._store, self._sizes, self._stage = prompts, store, sizes, stage
        self._most_lost = most_lost
        self._observer = Observer(backend_for(self._model))

    def run(self) -> Outcome:
        train = chosen(self._prompts, self._sizes.train, held_out=False)
        test = chosen(self._prompts, self._sizes.test, held_out=True)
        columns, logprobs = self._observe(train)
        openers, words = self._find_openers(train, columns, logprobs)
        self._place = {int(token): place for place, token in enumerate(columns)}
        refusing = np.exp(logprobs[:, [self._place[each] for each in openers]]).sum(axis=1)
        contrasts = self._find_contrasts(train, openers, words)
        numbers, q = self._learn(train, columns, logprobs, openers, refusing)
        candidate = self._find_strength(train, contrasts[:2], numbers, q, refusing, columns, logprobs)
        numbers = numbers.model_copy(update={"margin": round(candidate.margin, 3)})
        self._observer.close()
        profile = self._profile(candidate, numbers)
        measured, helps, text = self._measure(profile, test)
        harmful = np.array([each.kind == "unsafe" for each in train])
        about = refusing >= 0.5
        facts = {
            "prompts": {"fitted on": len(train), "held out": len(test)},
            "obedience": round(candidate.contrast.obedience, 3),
            "auc": _rounded(learn.auc(q, harmful)),
            "auc among the refused": _rounded(learn.auc(q[about], harmful[about])),
        }
        profile = profile.model_copy(
            update={"measured": {**facts, **measured}, "verdict": text, "automatic": helps}
        )
        trials = [(each.prompt, each.placement, each.obedience) for each in contrasts]
        curve, chosen_point = _trade_off(numbers, q, refusing, harmful)
        return Outcome(profile, trials, helps, curve, chosen_point)

    # --- the steps ---

    def _observe(self, train: Sequence[FitPrompt]) -> tuple[Array, Array]:
        """Token ids [columns], and log-probabilities of the first token in nats, float32 [prompts, columns]."""
        path = self._store.folder / "first_tokens.npz"
        columns, rows = None, []
        if path.exists():
            with np.load(path) as kept:
                columns, rows = kept["columns"], list(kept["rows"])
        left = [self._prompt_ids(each.text)[0] for each in train[len(rows) :]]
        begin: list[torch.Tensor] = []

        def keep() -> None:
            assert columns is not None
            with path.with_suffix(".part").open("wb") as file:
                np.savez(file, columns=columns, rows=np.array(rows, dtype=np.float32))
            path.with_suffix(".part").replace(path)

        with self._stage("Reading prompts", len(left)) as counted:
            for row in self._observer.read(left):
                counted.add()
                if columns is None:
                    begin.append(row)
                    if len(begin) < min(_SEEN_FIRST, len(left)):
                        continue
                    mass = torch.stack(begin).exp().mean(dim=0)
                    columns = mass.topk(min(_COLUMNS, len(mass))).indices.numpy()
                    rows = [each.numpy()[columns] for each in begin]
                else:
                    rows.append(row.numpy()[columns])
                if len(rows) % _SEEN_FIRST == 0:
                    keep()
        keep()
        return columns, np.array(rows, dtype=np.float32)

    def _find_openers(
        self, train: Sequence[FitPrompt], columns: Array, logprobs: Array
    ) -> tuple[tuple[int, ...], str]:
        """The tokens that its refusals begin with, and its most frequent refusal in its own words."""
        sample = self._some(train, self._sizes.opened)
        answers = self._answers("openings", sample, _OPENING_TOKENS)
        refused = np.array([_label(each) in REFUSED for each in answers])
        by_kind = {
            kind: [one for one, each in zip(refused, sample, strict=True) if each.kind == kind]
            for kind in self._sizes.opened
        }
        own = sum(by_kind["unsafe"])
        if own < max(2, len(by_kind["unsafe"]) // 10):
            raise AdacdError(
                f"{self._model.name} hardly refuses: {own} of {len(by_kind['unsafe'])} harmful prompts. There is "
                "nothing to fix, and AdaCD adds no safety.",
                "Use it as it is: --method default.",
            )
        if sum(by_kind["neutral"]) > _REFUSES_ALL * len(by_kind["neutral"]):
            raise AdacdError(
                f"{self._model.name} refuses {sum(by_kind['neutral'])} of {len(by_kind['neutral'])} ordinary "
                "prompts, so its refusals tell nothing.",
                "Look at its prompt: adacd generate --show-prompts.",
            )
        places = {each.id: place for place, each in enumerate(train)}
        masses = np.exp(logprobs[[places[each.id] for each in sample]])
        refusing, answering = masses[refused].mean(axis=0), masses[~refused].mean(axis=0)
        ordered = np.argsort(-refusing)
        found = [each for each in ordered if refusing[each] >= 0.01 and refusing[each] >= 3 * answering[each]]
        openers = tuple(int(columns[each]) for each in (found or ordered[:1])[:24])
        texts = Counter(_first_sentence(each.text) for each, one in zip(answers, refused, strict=True) if one)
        return openers, texts.most_common(1)[0][0]

    def _find_contrasts(
        self, train: Sequence[FitPrompt], openers: Sequence[int], words: str
    ) -> list[_Contrast]:
        """Every contrast prompt and placement that the model's template can take, the most obeyed first."""
        neutral = sorted((each.text for each in train if each.kind == "neutral"), key=len)
        first, more = neutral[: self._sizes.obeyed], neutral[self._sizes.obeyed : 4 * self._sizes.obeyed]
        pairs = list(product(PLACEMENTS, (each.replace("{own}", words) for each in CONTRAST_PROMPTS)))
        found = []

        def masses(texts: Sequence[str], prompt: str, placement: str) -> list[float]:
            ids = [self._prompt_ids(text, prompt, placement)[1] for text in texts]
            return [float(row.exp()[list(openers)].sum()) for row in self._observer.read(ids)]

        cheap = lambda each: each.obedience + (_CHEAPER if each.placement == "user-end" else 0)  # noqa: E731
        with self._stage("Trying contrast prompts", len(pairs) + _LOOKED_AT_AGAIN) as counted:
            for placement, prompt in pairs:
                counted.add()
                with suppress(PromptError):  # the template cannot take this placement
                    found.append(_Contrast(prompt, placement, fmean(masses(first, prompt, placement))))
            found.sort(key=cheap, reverse=True)
            for place, each in enumerate(found[:_LOOKED_AT_AGAIN]):
                counted.add()
                again = masses(more, each.prompt, each.placement) or [each.obedience]
                whole = (each.obedience * len(first) + sum(again)) / (len(first) + len(again))
                found[place] = replace(each, obedience=whole)
        best = max((each.obedience for each in found), default=0.0)
        if best < OBEYED:
            raise AdacdError(
                f"{self._model.name} obeys no contrast prompt: asked to refuse, it begins a refusal with "
                f"probability {best:.2f} at most.",
                "AdaCD cannot help it. Use --method default.",
            )
        return sorted(found, key=cheap, reverse=True)

    def _learn(
        self,
        train: Sequence[FitPrompt],
        columns: Array,
        logprobs: Array,
        openers: tuple[int, ...],
        refusing: Array,
    ) -> tuple[Numbers, Array]:
        """The learned switch, and the cross-validated q of each prompt."""
        harmful = np.array([each.kind == "unsafe" for each in train])
        mass = np.exp(logprobs).mean(axis=0)
        features = np.argsort(-mass)[: learn.FEATURES]
        values = learn.centred(logprobs[:, features])
        means = values.mean(axis=0)
        values = values - means
        about = refusing >= 0.5
        # what is refused is where it matters, if both kinds are
        counted = about if len(set(harmful[about])) == 2 and about.sum() >= 100 else np.ones_like(about)
        q, ridge = learn.cross_validated(values, harmful, [each.group for each in train], counted)
        w, b = learn.fit_weights(values, harmful, ridge)
        high = learn.threshold_above(q[~harmful & ~about], int((~harmful).sum()), MOST_GAINED)
        added = float((harmful & ~about & (q >= high)).sum() / max(1, harmful.sum()))
        # what is refused besides makes up for as much that is answered
        lost = self._most_lost + min(added / 2, MOST_LOST)
        low = min(learn.threshold_below(q[harmful & about], int(harmful.sum()), lost), high)
        # centring each row is the same as weights that sum to 0, so the switch needs none
        balanced = w - w.mean()
        numbers = Numbers(
            openers=openers,
            tokens=tuple(int(columns[each]) for each in features),
            means=tuple(round(float(each), 2) for each in logprobs[:, features].mean(axis=0)),
            weights=tuple(round(float(each), 4) for each in balanced),
            bias=round(float(b), 4),
            low=round(float(low), 4),
            high=round(float(high), 4),
        )
        return numbers, q

    def _find_strength(
        self,
        train: Sequence[FitPrompt],
        contrasts: Sequence[_Contrast],
        numbers: Numbers,
        q: Array,
        refusing: Array,
        columns: Array,
        logprobs: Array,
    ) -> _Candidate:
        """The contrast prompt, α and β whose answers are best where the switch acts: chosen by the rule on the
        first token, then among the best by whole answers."""
        about = refusing >= 0.5
        kinds = np.array([each.kind for each in train])
        acted = {
            SUBTRACT: np.flatnonzero((kinds == "safe") & about & (q < numbers.low)),
            ADD: np.flatnonzero((kinds == "unsafe") & ~about & (q >= numbers.high)),
        }
        places = {which: found[: self._sizes.acted] for which, found in acted.items()}
        kept = {which: [train[each] for each in found] for which, found in places.items()}
        refused = np.flatnonzero((kinds == "unsafe") & about)[: self._sizes.acted // 2]
        candidates = []
        looked_at = np.concatenate([places[SUBTRACT], places[ADD], refused])
        # the columns hold nearly all of the probability
        z = torch.from_numpy(logprobs[looked_at])
        with self._stage("Choosing strengths", len(looked_at) * len(contrasts)) as counted:
            for contrast in contrasts:
                ids = [
                    self._prompt_ids(train[each].text, contrast.prompt, contrast.placement)[1]
                    for each in looked_at
                ]
                rows = []
                for row in self._observer.read(ids):
                    counted.add()
                    rows.append(row[columns])
                prompted = torch.stack(rows) if rows else z
                candidates.append(self._strength(contrast, z, prompted, kept, numbers))
        if len(candidates) == 1 or not (kept[SUBTRACT] or kept[ADD]):
            return candidates[0]
        asked = [*kept[SUBTRACT], *kept[ADD]]

        def good(place: int) -> float:
            profile = self._profile(candidates[place], numbers)
            answers = self._answers(f"candidate {place}", asked, _TOKENS, profile)
            labels = [_label(each) for each in answers]
            wanted = [
                label == "compliance" if each.kind == "safe" else label in REFUSED
                for each, label in zip(asked, labels, strict=True)
            ]
            return fmean(wanted)

        # the less obeyed one has to be clearly better
        return candidates[max(range(len(candidates)), key=lambda place: good(place) - 0.1 * place)]

    def _strength(
        self,
        contrast: _Contrast,
        z: torch.Tensor,
        prompted: torch.Tensor,
        kept: Mapping[int, Sequence[FitPrompt]],
        numbers: Numbers,
    ) -> _Candidate:
        from adacd_cli.engine.switches.mass import opener_logits

        subtracted, added = len(kept[SUBTRACT]), len(kept[ADD])
        openers = torch.tensor([self._place[each] for each in numbers.openers])
        slices = {SUBTRACT: slice(0, subtracted), ADD: slice(subtracted, subtracted + added)}

        def succeed(alpha: float, beta: float) -> int:
            settings = self._settings.model_copy(update={"alpha": alpha, "plausibility": beta})
            count = 0
            for decision, rows in slices.items():
                logits = {"unprompted": z[rows], "prompted": prompted[rows]}
                if len(logits["unprompted"]):
                    verdict = adacd.decided(logits, settings, decision, tuple(openers.tolist()))
                    chosen_ids = verdict.scores.argmax(dim=-1)
                    refuses = torch.isin(chosen_ids, openers)
                    count += int((refuses if decision == ADD else ~refuses).sum())
            return count

        # of equals the gentlest: max() keeps the first
        alpha, beta = max(product(ALPHAS, BETAS), key=lambda pair: succeed(*pair))
        harmful = slice(subtracted + added, None)
        margins = [
            opener_logits(each[harmful], tuple(openers.tolist())).clamp(-30, 30).double()
            for each in (z, prompted)
        ]
        values = (margins[0] - margins[1]).numpy()
        margin = learn.threshold_below(values, len(values), MOST_LOST) if len(values) else 0.0
        return _Candidate(contrast, alpha, beta, margin)

    def _measure(self, profile: Profile, test: Sequence[FitPrompt]) -> tuple[dict[str, Any], bool, str]:
        """What Default, the paper's settings and the fitted ones do on the prompts held out."""
        labels: dict[str, list[JudgementLabel]] = {}
        answers: dict[str, list[AnswerRecord]] = {}
        for name in ("default", "adacd", "fitted"):
            answers[name] = self._answers("held out", test, _TOKENS, profile, method=name)
            labels[name] = [_label(each) for each in answers[name]]
        # what is decoded plainly is Default's own, though a batch of others may round it otherwise
        acts = [bool(each.added or each.subtracted) for each in answers["fitted"]]
        labels["fitted"] = [
            own if acted else before
            for acted, own, before in zip(acts, labels["fitted"], labels["default"], strict=True)
        ]
        kinds = [each.kind for each in test]
        refused = {name: [one in REFUSED for one in own] for name, own in labels.items()}
        measured: dict[str, Any] = {}
        seconds = {name: sum(each.seconds for each in own) for name, own in answers.items()}
        tokens = {name: max(1, sum(each.tokens for each in own)) for name, own in answers.items()}
        sides: dict[str, dict[str, Any]] = {}
        for name in answers:
            row: dict[str, Any] = {}
            for kind in ("safe", "unsafe"):
                here = [place for place, each in enumerate(kinds) if each == kind]
                own = [refused[name][each] for each in here]
                one = ratio(sum(own), len(own))
                row[f"{kind} refused"] = [sum(own), len(own), _rounded(one.low), _rounded(one.high)]
                change = paired([refused["default"][each] for each in here], own)
                row[f"{kind} p"] = _rounded(change.p)
                if name == "fitted":
                    broken = sum(
                        labels[name][each] == "degenerate" != labels["default"][each] for each in here
                    )
                    sides[f"all {kind}"] = {
                        **dict(n=change.n, change=change.change or 0.0, p=change.p),
                        "newly_degenerate": broken,
                    }
            same = [
                each.text == before.text or not (each.added or each.subtracted)
                for each, before, kind in zip(answers[name], answers["default"], kinds, strict=True)
                if kind == "neutral"
            ]
            row["neutral unchanged"] = [sum(same), len(same)]
            row["cost"] = _rounded(seconds[name] / tokens[name] / (seconds["default"] / tokens["default"]))
            measured[name] = row
        found = verdict(sides)
        safe, unsafe = (sides[f"all {kind}"]["change"] for kind in ("safe", "unsafe"))
        same_share = measured["fitted"]["neutral unchanged"]
        helps = (
            ((safe <= -GAIN and unsafe >= -self._most_lost) or (unsafe >= GAIN and safe <= MOST_LOST))
            and same_share[0] >= UNCHANGED * same_share[1]
            and not sides["all safe"]["newly_degenerate"]
        )
        return measured, helps, f"{found.name}: {found.reason}"

    # --- what they share ---

    def _prompt_ids(
        self, text: str, contrast: str | None = None, placement: str = "user-end"
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids of both streams; of the unprompted one twice without a contrast prompt."""
        update: dict[str, Any] = {"method": "default"}
        if contrast is not None:
            update = {"method": "adacd", "contrast_prompt": contrast, "contrast_placement": placement}
        settings = self._settings.model_copy(update=update)
        prompts = prompts_for(self._model.tokenizer, Conversation.ask(text, settings.system), settings)
        return prompts.base.ids, list(prompts.streams.values())[-1].ids

    def _some(self, prompts: Sequence[FitPrompt], limits: Mapping[Kind, int]) -> list[FitPrompt]:
        left = Counter(limits)
        return [each for each in prompts if left[each.kind] > 0 and not left.subtract([each.kind])]

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
        given = {
            name: getattr(self._settings, name)
            for name in self._settings.model_fields_set & {"system", "thinking", "prefix_cache"}
        }
        settings = Settings(**given, temperature=0.0, max_new_tokens=tokens, method=method)
        samples = [
            Sample(title, each.id, each.text, "unsafe" if each.kind == "unsafe" else "safe", each.kind)
            for each in prompts
        ]
        waiting = [each for each in samples if self._store.lacks(method, each)]
        with self._stage(f"Answering ({title}, {method})", len(waiting)) as counted:
            answer_all(
                model, waiting, [settings], self._store, batch_size=8, on_record=lambda record: counted.add()
            )
        found = [self._store.answers[method, title, each.id] for each in samples]
        failed = next((each for each in found if each.error), None)
        if failed is not None:
            raise AdacdError(f"The prompt {failed.prompt[:80]!r} cannot be answered: {failed.error}")
        return found

    def _profile(self, candidate: _Candidate, numbers: Numbers) -> Profile:
        from adacd_cli import __version__
        from adacd_cli.loading.machine import versions

        return Profile(
            model=self._model.name,
            fingerprint=fingerprint(self._model),
            settings={
                "contrast_prompt": candidate.contrast.prompt,
                "contrast_placement": candidate.contrast.placement,
                "switch": "learned",
                "alpha": candidate.alpha,
                "plausibility": candidate.plausibility,
                "contrast_steps": STEPS,
            },
            numbers=numbers.model_copy(update={"margin": round(candidate.margin, 3)}),
            versions={
                "adacd": __version__,
                "engine": self._model.engine,
                **versions("torch", "transformers"),
            },
            date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        )


def _trade_off(
    numbers: Numbers, q: Array, refusing: Array, harmful: Array
) -> tuple[list[tuple[float, float]], tuple[float, float]]:
    """Shares refused of harmless and harmful prompts by the first token: for each τ_low alone, and as chosen."""
    about = refusing >= 0.5

    def shares(low: float, high: float) -> tuple[float, float]:
        refused = np.where(about, q >= low, q >= high)
        return float(refused[~harmful].mean()), float(refused[harmful].mean())

    thresholds = (
        [-np.inf, *np.quantile(q[about], np.linspace(0, 1, 41)), np.inf] if about.any() else [-np.inf]
    )
    return [shares(each, np.inf) for each in thresholds], shares(numbers.low, numbers.high)


def _label(answer: AnswerRecord) -> JudgementLabel:
    return judgement(answer.text, answer.prompt).label


def _first_sentence(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else ""
    for end in (". ", "! "):
        line = line.partition(end)[0] + end.strip() if end in line else line
    return line.replace('"', "'")[:120]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
