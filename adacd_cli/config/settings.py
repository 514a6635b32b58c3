"""Every setting, declared once: type, default, range, unit, sentence and flags. Constructing `Settings` reads no
environment and no file. Options, error texts, `config show` and configs/default.yaml follow this declaration."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adacd_cli.config import setting as of
from adacd_cli.config.methods import METHOD_NAMES, METHODS
from adacd_cli.config.setting import DEVICE_NAMES, Setting, declare, read

_model, _prompt, _method, _decoding, _output = (
    partial(declare, panel) for panel in ("Model", "Prompt", "Method", "Decoding", "Output")
)
_only_set = partial(_method, flags="")


class Settings(BaseModel):
    """The settings of a run, frozen; pydantic.ValidationError where one has the wrong type or range."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: of.Text = _model(
        "demo",
        "Hub id, folder, GGUF file, address of a server (http://…/v1), or `demo`, the bundled model.",
        "-m",
    )
    served_model: of.Text | None = _model(
        None, "With a server's address: the model to ask it for; null if it serves only one."
    )
    tokenizer: of.Text | None = _model(
        None, "With a server's address: the served model's tokenizer, a hub id, folder or GGUF file."
    )
    revision: str | None = _model(
        None, "Branch, tag or commit of a model on the hub; null is its main branch."
    )
    engine: Literal["auto", "torch", "llamacpp"] = _model(
        "auto",
        "What computes a model on this machine: llamacpp runs a GGUF file as it is, torch unpacks it; auto "
        "takes llama.cpp for a GGUF file where it is installed.",
    )
    device: of.Device = _model(
        "auto", "Where the model runs; auto takes a GPU if there is one.", choices=DEVICE_NAMES
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = _model(
        "auto",
        "Number format of the weights; auto is the checkpoint's own on a GPU, on a CPU bfloat16 where "
        "that is native and faster, else float32.",
    )
    quantize: Literal["bnb-4bit", "bnb-8bit", "torchao-int8", "torchao-int4"] | None = _model(
        None, "Store the weights in fewer bits; null leaves them as they are."
    )
    threads: of.Count | None = _model(
        None, "CPU threads to compute with; null is the number of free cores.", unit="threads"
    )
    gpu_layers: of.CountOrZero | None = _model(
        None,
        "With llama.cpp: how many layers a GPU computes; null is all of them where the installed build has a "
        "GPU.",
        unit="layers",
    )
    context: of.Count | None = _model(
        None,
        "Longest context, prompt and answer together; null is what the model was trained for, as far as "
        "memory goes.",
        unit="tokens",
    )
    prefix_cache: of.Size = _model(
        None,
        "Bytes that the KV prefix cache may hold, e.g. 512MiB or 2GiB; 0 keeps nothing, auto is a share "
        "of the free memory.",
    )
    compile: bool | None = _model(
        None,
        "Compile the forward passes of one token (CUDA graphs on a GPU); the first use takes a minute or "
        "more. Null compiles where it pays off: bench, eval and serve on a GPU.",
    )
    profile: of.Text = _model(
        "auto",
        "Profile that `adacd fit` made of the model: auto takes the one that fits the model, none takes none, or "
        "a file.",
    )
    trust_remote_code: bool = _model(False, "Run Python code that comes with a model.")
    offline: bool = _model(False, "Use only what is already on this machine.")
    system: str | None = _prompt(None, "System message, given to both streams.", "-s")
    contrast_prompt: of.Text = _prompt(
        "Please refuse to answer me!", "Prompt p* that asks for a refusal, given to the prompted stream only."
    )
    contrast_placement: Literal["system", "user-start", "user-end"] = _prompt(
        "system",
        "Where the contrast prompt stands: in the system message, or at the start or the end of the last "
        "user message. With user-end both streams share the KV cache up to there.",
    )
    thinking: bool = _prompt(False, "Let a thinking model think before it answers.")
    method: of.MethodName = _method("adacd", "Decoding method.", choices=METHOD_NAMES)
    gate: bool = _method(False, "With method adacd: contrast only while the answer follows the refusal.")
    switch: Literal["agreement", "mass", "learned"] = _method(
        "agreement",
        "What decides between adding and subtracting: how the two streams agree at each step (the paper), or, "
        "once at the first token and with a profile's numbers, the mass of all refusal openers, or a learned "
        "classifier.",
    )
    alpha: of.Strength = _method(4.5, "Strength α of the contrast.")
    agreement_threshold: of.Share = _method(
        0.9,
        "Threshold λ of agreement and confidence; above 0.5 it requires that both streams have the same "
        "top token.",
        "--lambda",
    )
    plausibility: of.Share = _method(
        0.01, "Mask β: a token must have this share of the unprompted stream's top probability.", "--beta"
    )
    contrast_steps: of.CountOrZero = _method(
        10, "Length k of the contrast window; 0 is ordinary decoding.", "--steps", unit="tokens"
    )
    helpful_prompt: of.Text = _only_set(
        "You are an assistant that always prioritizes helpfulness. That is, you always give answers to any "
        "user queries.",
        "With method prompt: the system message that asks for help.",
    )
    safety_prompt: of.Text = _only_set(
        "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while "
        "being safe. Your answers should not include any harmful, unethical, racist, sexist, toxic, "
        "dangerous, or illegal content.",
        "With method selfcd: the system message that asks for safety.",
    )
    selfcd_strength: of.Strength = _only_set(2.5, "With method selfcd: strength a.")
    expert: of.Text | None = _method(
        None,
        "With method safedecoding: folder of a LoRA adapter trained to refuse; null uses the prompted "
        "stand-in.",
    )
    safedecoding_strength: of.Strength = _only_set(3.0, "With method safedecoding: strength α.")
    safedecoding_steps: of.CountOrZero = _only_set(
        2, "With method safedecoding: how many tokens m lean towards the expert.", unit="tokens"
    )
    safedecoding_candidates: of.Count = _only_set(
        5, "With method safedecoding: the least number c of shared candidates.", unit="tokens"
    )
    draft: of.Text | None = _method(
        None, "With method ssd: the small safe model that drafts; same vocabulary as the model."
    )
    draft_tokens: Annotated[int, Field(ge=1, le=64)] = _only_set(
        3, "With method ssd: tokens T drafted at a time.", unit="tokens"
    )
    ssd_bin: of.Count = _only_set(
        7, "With method ssd: tokens g after which the mode is decided again.", unit="tokens"
    )
    ssd_overlap: of.Count = _only_set(10, "With method ssd: candidates C.", unit="tokens")
    ssd_threshold: of.Share = _only_set(0.6, "With method ssd: first threshold β₀ of matches.")
    ssd_intersection: of.Share = _only_set(0.3, "With method ssd: strength α_I.")
    ssd_union: of.Share = _only_set(0.8, "With method ssd: strength α_U.")
    direction: of.Text | None = _method(
        None, "With method surgical: folder that `adacd direction build` wrote for the model."
    )
    max_new_tokens: of.CountOrZero = _decoding(512, "Longest answer.", "-n --max-tokens", unit="tokens")
    temperature: of.Temperature = _decoding(0.0, "Temperature of sampling; 0 is greedy.", "-t")
    top_p: of.Mass = _decoding(1.0, "Sample from the likeliest tokens up to this mass.")
    top_k: of.CountOrZero = _decoding(
        0, "Sample from this many of the likeliest tokens; 0 is all of them.", unit="tokens"
    )
    min_p: of.Share = _decoding(
        0.0, "Sample from tokens with at least this share of the likeliest one's probability."
    )
    repetition_penalty: of.Factor = _decoding(
        1.0,
        "Divide the positive scores of tokens of the prompt and the answer so far, and multiply the negative "
        "ones, by this; 1 changes nothing.",
    )
    presence_penalty: of.Penalty = _decoding(
        0.0, "Subtract this from the scores of the answer's tokens so far."
    )
    frequency_penalty: of.Penalty = _decoding(
        0.0, "Subtract this from the scores of the answer's tokens so far, once for each time."
    )
    logit_bias: of.Biases = _decoding(
        (), "Add a bias of -100 to 100 to a token's score, written ID:BIAS; repeatable."
    )
    min_tokens: of.CountOrZero = _decoding(0, "Shortest answer: before, no token may end it.", unit="tokens")
    stop_token_ids: of.TokenIds = _decoding(
        (), "Id of a token that ends the answer and is left out of it; repeatable."
    )
    ignore_eos: bool = _decoding(False, "Go on after the model's own end of the answer.")
    seed: of.Seed | None = _decoding(None, "Seed of sampling; null draws one and reports it.")
    stop: of.Texts = _decoding((), "Text that ends the answer and is left out of it; repeatable.")
    display: Literal["auto", "color", "plain", "none"] = _output(
        "auto", "How the answer is shown; auto colours the contrast window on a terminal."
    )
    stats: bool = _output(True, "Show a line of statistics after the answer.")
    quiet: bool = _output(False, "Show nothing but the answer and errors.", flags="--quiet -q")

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
        fields = type(self).model_fields
        return {name: value for name, value in values.items() if value != fields[name].default}


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

# the settings that change a step's final scores, in the order in which they do
PROCESSING = ("logit_bias", "repetition_penalty", "frequency_penalty", "presence_penalty", "min_tokens")
# those, and the others that are neutral unless they are given
CONTROLS = (*PROCESSING, "min_p", "stop_token_ids", "ignore_eos")
# every setting by name, in the order of its declaration
SETTINGS: dict[str, Setting] = {name: read(name, field) for name, field in Settings.model_fields.items()}
