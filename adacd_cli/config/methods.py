"""The decoding methods by name: what each is fed, what must be loaded for it, and the numbers it is known by. A
method is a line here and a file of `engine.rules`. This module knows no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from adacd_cli.config.settings import Settings

Resource = Literal["expert", "draft", "direction"]


@dataclass(frozen=True)
class StreamSpec:
    """What one stream of a method is fed."""

    name: str
    prompt: str = ""  # the setting with the system text that it reads besides the conversation; "" for none
    # the setting with the number of answer tokens that it is fed for; "" for the whole answer
    steps: str = ""
    # which weights read it: the model's own, or those of an extra (`Method.resource`)
    weights: Literal["base", "expert", "draft", "direction"] = "base"


UNPROMPTED = StreamSpec("unprompted")


@dataclass(frozen=True)
class Method:
    """A decoding method, named as `--method` takes it."""

    name: str
    summary: str
    rule: str  # the module of `engine.rules` whose `rule` chooses its tokens while other streams are fed
    explanation: str = ""  # what it does at a step, in the words of a trace
    streams: tuple[StreamSpec, ...] = (UNPROMPTED,)  # the first, the base stream, is alone outside the window
    switched: bool = False  # whether `switch` says what decides between ADD, SUBTRACT and PLAIN
    follows_track: bool = False  # whether the others end at the first token that is not the top of the second
    symbols: tuple[tuple[str, str], ...] = ()  # the numbers that decide, each with its symbol
    others: tuple[str, ...] = ()  # numbers that decide but are left out of the line that describes a run
    resource: Resource | Literal[""] = ""  # the setting that names what has to be loaded besides the model
    # what a stream with other weights is instead where the resource is not given; "" where it must be given
    stand_in: str = ""
    # whether the rule needs only the most probable tokens, so that a server tells enough
    sparse: bool = False

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings that decide its tokens, beside those of all methods."""
        texts = *(stream.prompt for stream in self.streams), self.resource
        placement = "contrast_placement" if any(stream.prompt for stream in self.streams[1:]) else ""
        switch = "switch" if self.switched else ""
        numbers = (name for name, _ in self.symbols)
        return *numbers, *self.others, *filter(None, (*texts, placement, switch))

    def streams_for(self, settings: Settings) -> tuple[StreamSpec, ...]:
        """The streams under these settings: a stand-in reads its prompt with the model's own weights, and an
        expert that is given reads the base stream's own prompt."""
        if not self.stand_in:
            return self.streams
        missing = getattr(settings, self.resource) is None
        other: dict[str, Any] = {"weights": "base"} if missing else {"prompt": ""}
        return tuple(each if each.weights == "base" else replace(each, **other) for each in self.streams)

    @property
    def window_setting(self) -> str:
        """The setting with the length of its window; "" where that is the whole answer, or nothing."""
        return next((stream.steps for stream in self.streams[1:]), "")

    def window(self, settings: Settings) -> int:
        """How many tokens of an answer any stream besides the base is fed for."""
        return max((self.steps(stream, settings) for stream in self.streams[1:]), default=0)

    @staticmethod
    def steps(stream: StreamSpec, settings: Settings) -> int:
        """How many tokens of an answer a stream besides the base is fed for."""
        return int(getattr(settings, stream.steps or "max_new_tokens"))

    def label(self, settings: Settings) -> str:
        """The name as it is printed: a stand-in is called one, and a draft is named."""
        given = getattr(settings, self.resource) if self.resource else None
        if self.stand_in and given is None:
            return f"{self.name} ({self.stand_in})"
        return f"{self.name} (draft: {given})" if self.resource == "draft" else self.name


_EXPERT = StreamSpec("expert", "contrast_prompt", "safedecoding_steps", "expert")
_SAFEDECODING = (("strength", "α"), ("steps", "m"), ("candidates", "c"))
COLUMNS = (
    "Each is asked for its top token. rank: the place the plain stream gives the prompted stream's; "
    "agr = 1 / rank; c and c*: how sure the plain and the prompted stream are."
)
"""What stands in a trace of two streams, whatever decides."""
_AGREEMENT = (
    f"{COLUMNS} Where agr ≥ λ and c ≥ λ×c* the step leans towards the prompted stream (+ add), elsewhere away "
    "from it (− subtract); · is plain decoding."
)
_ADACD = Method(
    *("adacd", "Contrast with a refusal-prompted stream, first k tokens.", "adacd", _AGREEMENT),
    streams=(UNPROMPTED, StreamSpec("prompted", "contrast_prompt", "contrast_steps")),
    switched=True,
    symbols=(("alpha", "α"), ("agreement_threshold", "λ"), ("plausibility", "β"), ("contrast_steps", "k")),
    sparse=True,
)
_GATED = replace(_ADACD, rule="adacd_gated", follows_track=True)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("default", "Plain decoding of the unprompted stream.", "default", sparse=True),
        Method(
            *("prompt", "Plain decoding under a system message that asks for help.", "default"),
            streams=(StreamSpec("unprompted", "helpful_prompt"),),
            sparse=True,
        ),
        Method(
            "selfcd",
            "Contrast with a safety-prompted stream, the whole answer (Self-CD).",
            "selfcd",
            "At every step a times their difference is subtracted from the safety-prompted stream (−).",
            streams=(StreamSpec("plain"), StreamSpec("safe", "safety_prompt")),
            symbols=(("selfcd_strength", "a"),),
        ),
        Method(
            "safedecoding",
            "Lean towards a safety expert, first m tokens (SafeDecoding).",
            "safedecoding",
            "For the first m tokens the probabilities lean towards the second stream's (+), among the tokens "
            "that both rank high; · is plain decoding.",
            streams=(StreamSpec("base"), _EXPERT),
            symbols=tuple((f"safedecoding_{name}", symbol) for name, symbol in _SAFEDECODING),
            resource="expert",
            stand_in="prompted stand-in",
        ),
        Method(
            "ssd",
            "Lean towards a small safe draft model that also drafts the tokens (SSD).",
            "ssd",
            "At every step the probabilities lean towards the draft model's (+), among the tokens that both "
            "rank high, or, once the two agree less, among those of either; · is plain decoding.",
            streams=(StreamSpec("target"), StreamSpec("draft", weights="draft")),
            symbols=(("draft_tokens", "T"), ("ssd_bin", "g"), ("ssd_overlap", "C"), ("ssd_threshold", "β₀")),
            others=("ssd_intersection", "ssd_union"),
            resource="draft",
        ),
        Method(
            "surgical",
            "Plain decoding with the direction of false refusal removed (Surgical).",
            "default",
            streams=(StreamSpec("unprompted", weights="direction"),),
            resource="direction",
        ),
        _ADACD,
        replace(
            _GATED,
            name="adacd-gated",
            summary="AdaCD only while the answer follows the refusal's own tokens.",
        ),
        replace(
            _GATED, name="fitted", summary="AdaCD with what `adacd fit` found for the model (its profile)."
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
