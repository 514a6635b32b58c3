"""Every setting, declared once: type, default, range, unit, sentence and flags.

Constructing `Settings` reads no environment and no file; `resolve` does that. Command-line options, error
texts, `config show` and configs/default.yaml follow this declaration and its order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from adacd_cli.config.methods import METHOD_NAMES, METHODS

DEVICE_NAMES = ("auto", "cpu", "cuda", "cuda:N", "mps")

Kind = Literal["text", "number", "integer", "switch", "list", "size"]
Engine = Literal["auto", "torch", "llamacpp"]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Quantization = Literal["bnb-4bit", "bnb-8bit", "torchao-int8", "torchao-int4"]
Display = Literal["auto", "color", "plain", "none"]


@dataclass(frozen=True)
class Setting:
    """What a setting does, and how it appears on the command line; `declaration` fills in what its type says.

    Attributes:
        panel: heading of the help text that it is listed under.
        flags: the main one first; a switch is written `--on/--off`; none where only --set gives it.
        choices: the values there are; empty where they are not a list of names.
        range: e.g. `in [0, 1]` or `at least 0`; "" where there is none.
    """

    panel: str
    sentence: str
    flags: tuple[str, ...] = ()
    unit: str = ""
    choices: tuple[str, ...] = ()
    name: str = ""
    kind: Kind = "text"
    nullable: bool = False
    default: Any = None
    range: str = ""

    @property
    def flag(self) -> str:
        """Its main flag, e.g. `--alpha`; `--set NAME` where it has none of its own."""
        return self.flags[0].split("/")[0] if self.flags else f"--set {self.name}"

    @property
    def variable(self) -> str:
        return f"ADACD_{self.name.upper()}"

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names people know it by, from its long flags: `lambda` for `agreement_threshold`."""
        flags = [part for flag in self.flags for part in flag.split("/") if part.startswith("--")]
        names = [flag[2:].replace("-", "_") for flag in flags]
        return tuple(name for name in names if name != self.name)


def _field(
    panel: str, default: Any, sentence: str, flags: str = "", unit: str = "", choices: tuple[str, ...] = ()
) -> Any:
    field = Field(default)
    field.metadata.append(Setting(panel, sentence, tuple(flags.split()), unit, choices))
    return field


_model, _prompt, _method, _decoding, _output = (
    partial(_field, panel) for panel in ("Model", "Prompt", "Method", "Decoding", "Output")
)


def _check_method(value: str) -> str:
    if value not in METHODS:
        raise ValueError(f"not one of {', '.join(METHODS)}")
    return value


def _check_bias(value: str) -> str:
    token, _, bias = value.partition(":")
    if not (token.isascii() and token.isdecimal() and abs(float(bias)) <= 100):
        raise ValueError("not ID:BIAS")
    return value


def _check_device(value: str) -> str:
    kind, colon, index = value.partition(":")
    numbered = kind == "cuda" and colon and index.isdecimal()
    if value == "cuda:N" or not (value in DEVICE_NAMES or numbered):
        raise ValueError(f"not one of {', '.join(DEVICE_NAMES)}")
    return value


_SIZE = re.compile(r"\d+(\.\d+)? ?([KMGT]i?B)?", re.IGNORECASE | re.ASCII)


def _check_size(value: object) -> object:
    # pydantic takes the beginning of a text such as `1 TB or so`
    if isinstance(value, str) and value != "auto" and not _SIZE.fullmatch(value):
        raise ValueError("no size")
    return None if value == "auto" else value


Text = Annotated[str, Field(min_length=1)]
Strength = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Size = Annotated[
    Annotated[ByteSize, Field(ge=0)] | None,
    BeforeValidator(_check_size),
    PlainSerializer(lambda value: "auto" if value is None else int(value), when_used="json"),
]
"""A number of bytes, also as text such as 512MiB; `auto` is None."""


class Settings(BaseModel):
    """The settings of a run; values only, frozen, equal when their values are.

    Raises:
        pydantic.ValidationError: a value has the wrong type or lies outside its range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: Text = _model(
        "demo",
        "Hub id, folder, GGUF file, address of a server (http://…/v1), or `demo`, the bundled model.",
        "--model -m",
    )
    served_model: Text | None = _model(
        None,
        "With a server's address: the model to ask it for; null if it serves only one.",
        "--served-model",
    )
    tokenizer: Text | None = _model(
        None,
        "With a server's address: the served model's tokenizer, a hub id, folder or GGUF file.",
        "--tokenizer",
    )
    revision: str | None = _model(
        None, "Branch, tag or commit of a model on the hub; null is its main branch.", "--revision"
    )
    engine: Engine = _model(
        "auto",
        "What computes a model on this machine: llamacpp runs a GGUF file as it is, torch unpacks it; auto "
        "takes llama.cpp for a GGUF file where it is installed.",
        "--engine",
    )
    device: Annotated[str, AfterValidator(_check_device)] = _model(
        "auto", "Where the model runs; auto takes a GPU if there is one.", "--device", choices=DEVICE_NAMES
    )
    dtype: Dtype = _model(
        "auto",
        "Number format of the weights; auto is the checkpoint's own on a GPU, on a CPU bfloat16 where "
        "that is native and faster, else float32.",
        "--dtype",
    )
    quantize: Quantization | None = _model(
        None, "Store the weights in fewer bits; null leaves them as they are.", "--quantize"
    )
    threads: Count | None = _model(
        None, "CPU threads to compute with; null is the number of free cores.", "--threads", "threads"
    )
    gpu_layers: CountOrZero | None = _model(
        None,
        "With llama.cpp: how many layers a GPU computes; null is all of them where the installed build has a "
        "GPU.",
        "--gpu-layers",
        "layers",
    )
    context: Count | None = _model(
        None,
        "Longest context, prompt and answer together; null is what the model was trained for, as far as "
        "memory goes.",
        "--context",
        "tokens",
    )
    prefix_cache: Size = _model(
        None,
        "Bytes that the KV prefix cache may hold, e.g. 512MiB or 2GiB; 0 keeps nothing, auto is a share "
        "of the free memory.",
        "--prefix-cache",
    )
    compile: bool | None = _model(
        None,
        "Compile the forward passes of one token (CUDA graphs on a GPU); the first use takes a minute or "
        "more. Null compiles where it pays off: bench, eval and serve on a GPU.",
        "--compile/--no-compile",
    )
    profile: Text = _model(
        "auto",
        "Profile that `adacd fit` made of the model: auto takes the one that fits the model, none takes none, or "
        "a file.",
        "--profile",
    )
    trust_remote_code: bool = _model(
        False, "Run Python code that comes with a model.", "--trust-remote-code/--no-trust-remote-code"
    )
    offline: bool = _model(False, "Use only what is already on this machine.", "--offline/--no-offline")
    system: str | None = _prompt(None, "System message, given to both streams.", "--system -s")
    contrast_prompt: Text = _prompt(
        "Please refuse to answer me!",
        "Prompt p* that asks for a refusal, given to the prompted stream only.",
        "--contrast-prompt",
    )
    contrast_placement: Literal["system", "user-start", "user-end"] = _prompt(
        "system",
        "Where the contrast prompt stands: in the system message, or at the start or the end of the last "
        "user message. With user-end both streams share the KV cache up to there.",
        "--contrast-placement",
    )
    thinking: bool = _prompt(
        False, "Let a thinking model think before it answers.", "--thinking/--no-thinking"
    )
    method: Annotated[str, AfterValidator(_check_method)] = _method(
        "adacd", "Decoding method.", "--method", choices=METHOD_NAMES
    )
    gate: bool = _method(
        False, "With method adacd: contrast only while the answer follows the refusal.", "--gate/--no-gate"
    )
    switch: Literal["agreement", "mass", "learned"] = _method(
        "agreement",
        "What decides between adding and subtracting: how the two streams agree at each step (the paper), or, "
        "once at the first token and with a profile's numbers, the mass of all refusal openers, or a learned "
        "classifier.",
        "--switch",
    )
    alpha: Strength = _method(4.5, "Strength α of the contrast.", "--alpha")
    agreement_threshold: Share = _method(
        0.9,
        "Threshold λ of agreement and confidence; above 0.5 it requires that both streams have the same "
        "top token.",
        "--agreement-threshold --lambda",
    )
    plausibility: Share = _method(
        0.01,
        "Mask β: a token must have this share of the unprompted stream's top probability.",
        "--plausibility --beta",
    )
    contrast_steps: CountOrZero = _method(
        10, "Length k of the contrast window; 0 is ordinary decoding.", "--contrast-steps --steps", "tokens"
    )
    helpful_prompt: Text = _method(
        "You are an assistant that always prioritizes helpfulness. That is, you always give answers to any "
        "user queries.",
        "With method prompt: the system message that asks for help.",
    )
    safety_prompt: Text = _method(
        "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while "
        "being safe. Your answers should not include any harmful, unethical, racist, sexist, toxic, "
        "dangerous, or illegal content.",
        "With method selfcd: the system message that asks for safety.",
    )
    selfcd_strength: Strength = _method(2.5, "With method selfcd: strength a.")
    expert: Text | None = _method(
        None,
        "With method safedecoding: folder of a LoRA adapter trained to refuse; null uses the prompted "
        "stand-in.",
        "--expert",
    )
    safedecoding_strength: Strength = _method(3.0, "With method safedecoding: strength α.")
    safedecoding_steps: CountOrZero = _method(
        2, "With method safedecoding: how many tokens m lean towards the expert.", unit="tokens"
    )
    safedecoding_candidates: Count = _method(
        5, "With method safedecoding: the least number c of shared candidates.", unit="tokens"
    )
    draft: Text | None = _method(
        None, "With method ssd: the small safe model that drafts; same vocabulary as the model.", "--draft"
    )
    draft_tokens: Annotated[int, Field(ge=1, le=64)] = _method(
        3, "With method ssd: tokens T drafted at a time.", unit="tokens"
    )
    ssd_bin: Count = _method(
        7, "With method ssd: tokens g after which the mode is decided again.", unit="tokens"
    )
    ssd_overlap: Count = _method(10, "With method ssd: candidates C.", unit="tokens")
    ssd_threshold: Share = _method(0.6, "With method ssd: first threshold β₀ of matches.")
    ssd_intersection: Share = _method(0.3, "With method ssd: strength α_I.")
    ssd_union: Share = _method(0.8, "With method ssd: strength α_U.")
    direction: Text | None = _method(
        None, "With method surgical: folder that `adacd direction build` wrote for the model.", "--direction"
    )
    max_new_tokens: CountOrZero = _decoding(
        512, "Longest answer.", "--max-new-tokens -n --max-tokens", "tokens"
    )
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = _decoding(
        0.0, "Temperature of sampling; 0 is greedy.", "--temperature -t"
    )
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = _decoding(
        1.0, "Sample from the likeliest tokens up to this mass.", "--top-p"
    )
    top_k: CountOrZero = _decoding(
        0, "Sample from this many of the likeliest tokens; 0 is all of them.", "--top-k", "tokens"
    )
    min_p: Share = _decoding(
        0.0, "Sample from tokens with at least this share of the likeliest one's probability.", "--min-p"
    )
    repetition_penalty: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = _decoding(
        1.0,
        "Divide the positive scores of tokens of the prompt and the answer so far, and multiply the negative "
        "ones, by this; 1 changes nothing.",
        "--repetition-penalty",
    )
    presence_penalty: Penalty = _decoding(
        0.0, "Subtract this from the scores of the answer's tokens so far.", "--presence-penalty"
    )
    frequency_penalty: Penalty = _decoding(
        0.0,
        "Subtract this from the scores of the answer's tokens so far, once for each time.",
        "--frequency-penalty",
    )
    logit_bias: Annotated[tuple[Annotated[str, AfterValidator(_check_bias)], ...], Field(strict=False)] = (
        _decoding(
            (), "Add a bias of -100 to 100 to a token's score, written ID:BIAS; repeatable.", "--logit-bias"
        )
    )
    min_tokens: CountOrZero = _decoding(
        0, "Shortest answer: before, no token may end it.", "--min-tokens", "tokens"
    )
    stop_token_ids: Annotated[tuple[Annotated[int, Field(ge=0, strict=False)], ...], Field(strict=False)] = (
        _decoding(
            (), "Id of a token that ends the answer and is left out of it; repeatable.", "--stop-token-ids"
        )
    )
    ignore_eos: bool = _decoding(
        False, "Go on after the model's own end of the answer.", "--ignore-eos/--no-ignore-eos"
    )
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = _decoding(
        None, "Seed of sampling; null draws one and reports it.", "--seed"
    )
    stop: Annotated[tuple[Text, ...], Field(strict=False)] = _decoding(
        (), "Text that ends the answer and is left out of it; repeatable.", "--stop"
    )
    display: Display = _output(
        "auto", "How the answer is shown; auto colours the contrast window on a terminal.", "--display"
    )
    stats: bool = _output(True, "Show a line of statistics after the answer.", "--stats/--no-stats")
    quiet: bool = _output(False, "Show nothing but the answer and errors.", "--quiet -q")

    @property
    def served(self) -> bool:
        """Whether the model is on a server: its address is given in place of a name."""
        return self.model.strip().lower().startswith(("http://", "https://")) and not _HUB.match(self.model)

    @model_validator(mode="before")
    @classmethod
    def _name_hub_pages(cls, values: Any) -> Any:
        """A model's page on the hub, or its hf:// address, stands for its name and revision."""
        for key in ("model", "tokenizer"):
            if found := _HUB_PAGE.fullmatch(str(values.get(key))):
                name, revision, file = found["name"], found["revision"] or found["branch"], found["file"]
                values = values | {key: f"{name}:{file}" if file else name}
                if revision not in (None, "main"):
                    values["revision"] = values.get("revision") or revision
        return values

    @property
    def effective_method(self) -> str:
        """The method that decodes: `adacd-gated` where `gate` is on and the method is `adacd`."""
        return "adacd-gated" if self.gate and self.method == "adacd" else self.method

    @property
    def uses_profile(self) -> bool:
        """Whether the model's profile decides tokens: with `fitted`, or by a switch that takes its numbers."""
        switched = self.switch != "agreement" and METHODS[self.effective_method].switched
        return self.method == "fitted" or switched

    @property
    def method_label(self) -> str:
        """The method as it is printed: a stand-in is called one, and a draft is named."""
        return METHODS[self.effective_method].label(self)

    def decoding(self) -> dict[str, Any]:
        """The settings that decide the tokens, as JSON values, for `Started.settings`."""
        names = {*_DECODING, *METHODS[self.effective_method].settings, *self.controls}
        return self.model_dump(mode="json", include=names)

    @property
    def biases(self) -> dict[int, float]:
        """`logit_bias` by token id."""
        return {int(token): float(bias) for token, bias in (each.split(":") for each in self.logit_bias)}

    @property
    def controls(self) -> dict[str, Any]:
        """Those of the settings that change scores or ends of answers which are not neutral, by name."""
        values = {name: getattr(self, name) for name in CONTROLS}
        return {
            name: value for name, value in values.items() if value != type(self).model_fields[name].default
        }


_HUB = re.compile(r"\s*(hf://(models/)?|(https?://)?(www\.)?(huggingface\.co|hf\.co)/)", re.IGNORECASE)
_HUB_PAGE = re.compile(
    rf"{_HUB.pattern}(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[^/?#]+))?"
    r"(/(tree|blob|resolve)/(?P<branch>[^/?#]+))?([/:](?P<file>[^?#:]+\.gguf|(?<=:)[\w.-]+))?/?([?#].*)?\s*",
    re.IGNORECASE,
)

_DECODING = (
    *("contrast_prompt", "contrast_placement", "thinking", "alpha", "agreement_threshold", "plausibility"),
    *("contrast_steps", "max_new_tokens", "temperature", "top_p", "top_k", "seed", "stop"),
)

PROCESSING = ("logit_bias", "repetition_penalty", "frequency_penalty", "presence_penalty", "min_tokens")
"""The settings that change a step's final scores, in the order in which they do."""

CONTROLS = (*PROCESSING, "min_p", "stop_token_ids", "ignore_eos")
"""Those, and the others that are neutral unless they are given."""
