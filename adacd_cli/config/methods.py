"""The decoding methods by name: what each is fed, what must be loaded for it, and the numbers it is known by.

A method is a line here and a file of `engine.rules` with its rule. This module knows no torch, so that a name
can be checked, completed and explained before anything slow is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from adacd_cli.config.settings import Settings

Resource = Literal["expert", "draft", "direction"]


@dataclass(frozen=True)
class SecondStream:
    """What a method's second stream is fed.

    Attributes:
        prompt: the setting with the system text that it reads besides the conversation; "" for none.
        steps: the setting with the number of answer tokens that it is fed for; "" for the whole answer.
        runs: which model reads it.
    """

    prompt: str = "contrast_prompt"
    steps: str = ""
    runs: Literal["model", "expert", "draft"] = "model"


@dataclass(frozen=True)
class Method:
    """A decoding method.

    Attributes:
        name: as `--method` takes it.
        summary: one sentence for help and documentation.
        rule: the module of `engine.rules` whose `rule` chooses its tokens while the second stream is fed.
        explanation: what it does at a step, in the words of a trace.
        prompt: the setting with a system text of the first stream; "" where it is the conversation alone.
        second: its second stream; None where one stream is enough.
        follows_track: whether a request leaves the second stream at the first token that is not its top.
        symbols: the numbers that decide, each with its symbol.
        others: numbers that decide but are not worth a place in the line that describes a run.
        resource: the setting that names what has to be loaded besides the model; "" for nothing.
        stand_in: what the second stream is instead where the resource is not given; "" where it must be.
    """

    name: str
    summary: str
    rule: str
    explanation: str = ""
    prompt: str = ""
    second: SecondStream | None = None
    follows_track: bool = False
    symbols: tuple[tuple[str, str], ...] = ()
    others: tuple[str, ...] = ()
    resource: Resource | Literal[""] = ""
    stand_in: str = ""

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings that decide its tokens, beside those of all methods."""
        texts = self.prompt, self.second.prompt if self.second else "", self.resource
        return (*(name for name, _ in self.symbols), *self.others, *filter(None, texts))

    def second_stream(self, settings: Settings) -> SecondStream | None:
        """The second stream under these settings: an expert reads the first stream's own prompt."""
        second = self.second
        stands_in = second and self.stand_in and getattr(settings, second.runs) is None
        if second is None or second.runs == "model" or stands_in:
            return second and SecondStream(second.prompt, second.steps)
        return SecondStream("", second.steps, second.runs)

    @property
    def window_setting(self) -> str:
        """The setting with the length of its window; "" where that is the whole answer, or nothing."""
        return self.second.steps if self.second else ""

    def window(self, settings: Settings) -> int:
        """How many tokens of an answer the second stream is fed for."""
        if self.second is None:
            return 0
        return int(getattr(settings, self.second.steps or "max_new_tokens"))

    def label(self, settings: Settings) -> str:
        """The name as it is printed: a stand-in is called one, and a draft is named."""
        given = getattr(settings, self.resource) if self.resource else None
        if self.stand_in and given is None:
            return f"{self.name} ({self.stand_in})"
        return f"{self.name} (draft: {given})" if self.resource == "draft" else self.name


_ADACD = (("alpha", "α"), ("agreement_threshold", "λ"), ("plausibility", "β"), ("contrast_steps", "k"))
_AGREEMENT = (
    "Each is asked for its top token. rank: the place the plain stream gives the prompted stream's; "
    "agr = 1 / rank; c and c*: how sure the plain and the prompted stream are. Where agr ≥ λ and c ≥ λ×c* "
    "the step leans towards the prompted stream (+ add), elsewhere away from it (− subtract); · is plain "
    "decoding."
)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("default", "Plain decoding of the unprompted stream.", "default"),
        Method(
            "prompt",
            "Plain decoding under a system message that asks for help.",
            "default",
            prompt="helpful_prompt",
        ),
        Method(
            "selfcd",
            "Contrast with a safety-prompted stream, the whole answer (Self-CD).",
            "selfcd",
            "At every step a times their difference is subtracted from the safety-prompted stream (−).",
            second=SecondStream("safety_prompt"),
            symbols=(("selfcd_strength", "a"),),
        ),
        Method(
            "safedecoding",
            "Lean towards a safety expert, first m tokens (SafeDecoding).",
            "safedecoding",
            "For the first m tokens the probabilities lean towards the second stream's (+), among the tokens "
            "that both rank high; · is plain decoding.",
            second=SecondStream(steps="safedecoding_steps", runs="expert"),
            symbols=(
                ("safedecoding_strength", "α"),
                ("safedecoding_steps", "m"),
                ("safedecoding_candidates", "c"),
            ),
            resource="expert",
            stand_in="prompted stand-in",
        ),
        Method(
            "ssd",
            "Lean towards a small safe draft model that also drafts the tokens (SSD).",
            "ssd",
            "At every step the probabilities lean towards the draft model's (+), among the tokens that both "
            "rank high, or, once the two agree less, among those of either; · is plain decoding.",
            second=SecondStream(prompt="", runs="draft"),
            symbols=(("draft_tokens", "T"), ("ssd_bin", "g"), ("ssd_overlap", "C"), ("ssd_threshold", "β₀")),
            others=("ssd_intersection", "ssd_union"),
            resource="draft",
        ),
        Method(
            "surgical",
            "Plain decoding with the direction of false refusal removed (Surgical).",
            "default",
            resource="direction",
        ),
        Method(
            "adacd",
            "Contrast with a refusal-prompted stream, first k tokens.",
            "adacd",
            _AGREEMENT,
            second=SecondStream(steps="contrast_steps"),
            symbols=_ADACD,
        ),
        Method(
            "adacd-gated",
            "AdaCD only while the answer follows the refusal's own tokens.",
            "adacd_gated",
            _AGREEMENT,
            second=SecondStream(steps="contrast_steps"),
            follows_track=True,
            symbols=_ADACD,
        ),
    )
}

METHOD_NAMES = tuple(METHODS)


def spoken(setting: str) -> str:
    """A setting in a sentence: `contrast prompt` for contrast_prompt."""
    return setting.replace("_", " ")


def method_of(label: str) -> Method:
    """The method behind a printed label: `safedecoding (prompted stand-in)` is safedecoding."""
    return METHODS[label.partition(" (")[0]]
