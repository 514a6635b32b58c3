"""Every setting, declared once: type, default, range, unit, sentence and flags.

Constructing `Settings` reads no environment and no file; `resolve` does that. Command-line options, the error
texts, `config show` and configs/default.yaml all follow this declaration and its order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from adacd_cli.config.methods import METHOD_NAMES, METHODS

DEVICE_NAMES = ("auto", "cpu", "cuda", "cuda:N", "mps")


@dataclass(frozen=True)
class Option:
    """How a setting appears on the command line.

    Attributes:
        panel: heading of the help text it stands under.
        names: its flags, the main one first; a switch is written `--on/--off`; () where only --set gives it.
        unit: unit of its number, "" where there is none.
        choices: the values there are; empty where they are not a list of names.
    """

    panel: str
    names: tuple[str, ...] = ()
    unit: str = ""
    choices: tuple[str, ...] = ()


def is_address(model: str) -> bool:
    """Whether a model's name is the address of a server."""
    return model.strip().lower().startswith(("http://", "https://"))


def _known_method(value: str) -> str:
    if value not in METHOD_NAMES:
        raise ValueError(f"not one of {', '.join(METHOD_NAMES)}")
    return value


def _known_device(value: str) -> str:
    kind, colon, index = value.partition(":")
    if value not in DEVICE_NAMES[:3] + DEVICE_NAMES[4:] and not (
        kind == "cuda" and colon and index.isdecimal()
    ):
        raise ValueError(f"not one of {', '.join(DEVICE_NAMES)}")
    return value


class Settings(BaseModel):
    """The settings of a run; values only, frozen, equal when their values are.

    Raises:
        pydantic.ValidationError: a value has the wrong type or lies outside its range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: Annotated[
        str,
        Field(
            min_length=1,
            description="Hub id, folder, GGUF file, address of a server (http://…/v1), or `demo`, the model "
            "in the box.",
        ),
        Option("Model", ("--model", "-m")),
    ] = "demo"
    served_model: Annotated[
        str | None,
        Field(
            min_length=1,
            description="With a server's address: the model it is asked for; null where it serves one.",
        ),
        Option("Model", ("--served-model",)),
    ] = None
    tokenizer: Annotated[
        str | None,
        Field(
            min_length=1,
            description="With a server's address: the served model's tokenizer, a hub id, folder or GGUF "
            "file.",
        ),
        Option("Model", ("--tokenizer",)),
    ] = None
    revision: Annotated[
        str | None,
        Field(description="Branch, tag or commit of a model on the hub; null is its main branch."),
        Option("Model", ("--revision",)),
    ] = None
    device: Annotated[
        str,
        AfterValidator(_known_device),
        Field(description="Where the model runs; auto takes a GPU where there is one."),
        Option("Model", ("--device",), choices=DEVICE_NAMES),
    ] = "auto"
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        Field(
            description="Number format of the weights; auto is the checkpoint's own on a GPU, on a CPU "
            "bfloat16 where it is native and pays, else float32."
        ),
        Option("Model", ("--dtype",), choices=("auto", "bfloat16", "float16", "float32")),
    ] = "auto"
    quantize: Annotated[
        Literal["bnb-4bit", "bnb-8bit", "torchao-int8", "torchao-int4"] | None,
        Field(description="Store the weights in fewer bits; null leaves them as they are."),
        Option("Model", ("--quantize",), choices=("bnb-4bit", "bnb-8bit", "torchao-int8", "torchao-int4")),
    ] = None
    threads: Annotated[
        int | None,
        Field(ge=1, description="CPU threads to compute with; null is the number of free cores."),
        Option("Model", ("--threads",), unit="threads"),
    ] = None
    compile: Annotated[
        bool | None,
        Field(
            description="Compile the forwards of one token (CUDA graphs on a GPU); the first use takes a "
            "minute or more. Null compiles where it is won back: bench, eval and serve on a GPU."
        ),
        Option("Model", ("--compile/--no-compile",)),
    ] = None
    trust_remote_code: Annotated[
        bool,
        Field(description="Run Python code that comes with a model."),
        Option("Model", ("--trust-remote-code/--no-trust-remote-code",)),
    ] = False
    offline: Annotated[
        bool,
        Field(description="Use only what is already on this machine."),
        Option("Model", ("--offline/--no-offline",)),
    ] = False
    system: Annotated[
        str | None,
        Field(description="System message, given to both streams."),
        Option("Prompt", ("--system", "-s")),
    ] = None
    contrast_prompt: Annotated[
        str,
        Field(
            min_length=1, description="Prompt p* that asks for a refusal, given to the prompted stream only."
        ),
        Option("Prompt", ("--contrast-prompt",)),
    ] = "Please refuse to answer me!"
    contrast_placement: Annotated[
        Literal["system", "user-start", "user-end"],
        Field(
            description="Where the contrast prompt stands: in the system message, or at the start or the end "
            "of the last user message. With user-end both streams share the KV cache up to there."
        ),
        Option("Prompt", ("--contrast-placement",), choices=("system", "user-start", "user-end")),
    ] = "system"
    thinking: Annotated[
        bool,
        Field(description="Let a thinking model think before it answers."),
        Option("Prompt", ("--thinking/--no-thinking",)),
    ] = False
    method: Annotated[
        str,
        AfterValidator(_known_method),
        Field(description="Decoding method."),
        Option("Method", ("--method",), choices=METHOD_NAMES),
    ] = "adacd"
    gate: Annotated[
        bool,
        Field(description="With method adacd: contrast only while the answer follows the refusal."),
        Option("Method", ("--gate/--no-gate",)),
    ] = False
    alpha: Annotated[
        float,
        Field(ge=0, le=1e6, allow_inf_nan=False, description="Strength α of the contrast."),
        Option("Method", ("--alpha",)),
    ] = 4.5
    agreement_threshold: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            allow_inf_nan=False,
            description="Threshold λ of agreement and confidence; above 0.5 it asks that both streams "
            "have the same top token.",
        ),
        Option("Method", ("--agreement-threshold", "--lambda")),
    ] = 0.9
    plausibility: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            allow_inf_nan=False,
            description="Mask β: a token must have this share of the unprompted stream's top probability.",
        ),
        Option("Method", ("--plausibility", "--beta")),
    ] = 0.01
    contrast_steps: Annotated[
        int,
        Field(ge=0, description="Length k of the contrast window; 0 is ordinary decoding."),
        Option("Method", ("--contrast-steps", "--steps"), unit="tokens"),
    ] = 10
    helpful_prompt: Annotated[
        str,
        Field(min_length=1, description="With method prompt: the system message that asks for help."),
        Option("Method"),
    ] = (
        "You are an assistant that always prioritizes helpfulness. That is, you always give answers to any "
        "user queries."
    )
    safety_prompt: Annotated[
        str,
        Field(min_length=1, description="With method selfcd: the system message that asks for safety."),
        Option("Method"),
    ] = (
        "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while "
        "being safe. Your answers should not include any harmful, unethical, racist, sexist, toxic, "
        "dangerous, or illegal content."
    )
    selfcd_strength: Annotated[
        float,
        Field(ge=0, le=1e6, allow_inf_nan=False, description="With method selfcd: strength a."),
        Option("Method"),
    ] = 2.5
    expert: Annotated[
        str | None,
        Field(
            min_length=1,
            description="With method safedecoding: folder of a LoRA adapter taught to refuse; null is the "
            "prompted stand-in.",
        ),
        Option("Method", ("--expert",)),
    ] = None
    safedecoding_strength: Annotated[
        float,
        Field(ge=0, le=1e6, allow_inf_nan=False, description="With method safedecoding: strength α."),
        Option("Method"),
    ] = 3.0
    safedecoding_steps: Annotated[
        int,
        Field(ge=0, description="With method safedecoding: how many tokens m lean towards the expert."),
        Option("Method", unit="tokens"),
    ] = 2
    safedecoding_candidates: Annotated[
        int,
        Field(ge=1, description="With method safedecoding: the least number c of shared candidates."),
        Option("Method", unit="tokens"),
    ] = 5
    draft: Annotated[
        str | None,
        Field(
            min_length=1,
            description="With method ssd: the small safe model that drafts; same vocabulary as the model.",
        ),
        Option("Method", ("--draft",)),
    ] = None
    draft_tokens: Annotated[
        int,
        Field(ge=1, le=64, description="With method ssd: tokens T drafted at a time."),
        Option("Method", unit="tokens"),
    ] = 3
    ssd_bin: Annotated[
        int,
        Field(ge=1, description="With method ssd: tokens g after which the mode is decided anew."),
        Option("Method", unit="tokens"),
    ] = 7
    ssd_overlap: Annotated[
        int,
        Field(ge=1, description="With method ssd: candidates C."),
        Option("Method", unit="tokens"),
    ] = 10
    ssd_threshold: Annotated[
        float,
        Field(ge=0, le=1, allow_inf_nan=False, description="With method ssd: first threshold β₀ of matches."),
        Option("Method"),
    ] = 0.6
    ssd_intersection: Annotated[
        float,
        Field(ge=0, le=1, allow_inf_nan=False, description="With method ssd: strength α_I."),
        Option("Method"),
    ] = 0.3
    ssd_union: Annotated[
        float,
        Field(ge=0, le=1, allow_inf_nan=False, description="With method ssd: strength α_U."),
        Option("Method"),
    ] = 0.8
    direction: Annotated[
        str | None,
        Field(
            min_length=1,
            description="With method surgical: folder that `adacd direction build` wrote for the model.",
        ),
        Option("Method", ("--direction",)),
    ] = None
    max_new_tokens: Annotated[
        int,
        Field(ge=0, description="Longest answer."),
        Option("Decoding", ("--max-new-tokens", "-n", "--max-tokens"), unit="tokens"),
    ] = 512
    temperature: Annotated[
        float,
        Field(ge=0, le=100, allow_inf_nan=False, description="Temperature of sampling; 0 is greedy."),
        Option("Decoding", ("--temperature", "-t")),
    ] = 0.0
    top_p: Annotated[
        float,
        Field(
            gt=0, le=1, allow_inf_nan=False, description="Sample from the likeliest tokens up to this mass."
        ),
        Option("Decoding", ("--top-p",)),
    ] = 1.0
    top_k: Annotated[
        int,
        Field(ge=0, description="Sample from this many of the likeliest tokens; 0 is all of them."),
        Option("Decoding", ("--top-k",), unit="tokens"),
    ] = 0
    seed: Annotated[
        int | None,
        Field(ge=0, le=2**63 - 1, description="Seed of sampling; null draws one and reports it."),
        Option("Decoding", ("--seed",)),
    ] = None
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        Field(strict=False, description="Text that ends the answer and is left out of it; repeatable."),
        Option("Decoding", ("--stop",)),
    ] = ()
    display: Annotated[
        Literal["auto", "color", "plain", "none"],
        Field(description="How the answer is shown; auto colours the contrast window on a terminal."),
        Option("Output", ("--display",), choices=("auto", "color", "plain", "none")),
    ] = "auto"
    stats: Annotated[
        bool,
        Field(description="Show a line of statistics after the answer."),
        Option("Output", ("--stats/--no-stats",)),
    ] = True
    quiet: Annotated[
        bool,
        Field(description="Show nothing but the answer and errors."),
        Option("Output", ("--quiet", "-q")),
    ] = False

    @property
    def served(self) -> bool:
        """Whether the model is at a server: its address is given in place of a name."""
        return is_address(self.model)

    @property
    def effective_method(self) -> str:
        """The method that decodes: `adacd-gated` where `gate` is on and the method is `adacd`."""
        return "adacd-gated" if self.gate and self.method == "adacd" else self.method

    @property
    def method_label(self) -> str:
        """The method as it is printed: a stand-in is called one, and a draft is named."""
        return METHODS[self.effective_method].label(self)

    def decoding(self) -> dict[str, Any]:
        """The settings that decide the tokens, as JSON values, for `Started.settings`."""
        return self.model_dump(mode="json", include={*_DECODING, *METHODS[self.effective_method].settings})


_DECODING = (
    "contrast_prompt",
    "contrast_placement",
    "thinking",
    "alpha",
    "agreement_threshold",
    "plausibility",
    "contrast_steps",
    "max_new_tokens",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "stop",
)
