"""What the engine is given: a loaded model, and requests of it; `validate` is the one place that refuses one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from adacd_cli.config.methods import METHODS, Method, spoken
from adacd_cli.config.settings import Settings
from adacd_cli.engine.grammar import AT_A_SERVER
from adacd_cli.errors import ConfigurationError, ModelError, PromptError

if TYPE_CHECKING:
    import torch

    from adacd_cli.backends.torch.kv_cache import Compiled
    from adacd_cli.engine.backend import Capabilities, Weights
    from adacd_cli.engine.grammar import Grammar
    from adacd_cli.profiles.store import Profile
    from adacd_cli.prompts.prompts import Prompts


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model ready to decode."""

    # a `transformers` causal LM in eval mode, or anything called the same way; a
    # `backends.llamacpp.model.LlamaModel` for a GGUF file on llama.cpp; None at a server
    model: Any
    tokenizer: Any  # its tokenizer; the engine only calls `decode`
    name: str  # name, revision: see `events.Started`
    revision: str | None
    # every id that ends an answer: tokenizer's, model config's and generation config's together
    eos_ids: frozenset[int]
    context_length: int | None  # positions the model was built for; None where it names none
    warnings: tuple[str, ...] = ()  # what the user should know about how it was loaded, one sentence each
    # what methods need besides, by (setting, its value): ("expert", folder), ("draft", name) or ("direction",
    # folder) to a model that is called the same way; see `loading.load_extras`
    extras: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    # positions that a draft was built for, under its key in `extras`
    context_lengths: Mapping[tuple[str, str], int] = field(default_factory=dict)
    compiled: Compiled | None = None  # the model's compiled forwards; None where it is called as it is
    server: Any = None  # the server that runs it; None where it runs in this process
    # what `adacd fit` found for it; None where it was not fitted, or the profile is not wanted
    profile: Profile | None = None

    @property
    def engine(self) -> Literal["torch", "llamacpp", "server"]:
        if self.server is not None:
            return "server"
        return "llamacpp" if getattr(self.model, "engine", "") == "llamacpp" else "torch"

    @property
    def device(self) -> torch.device:
        if self.server is not None:
            import torch

            return torch.device("cpu")
        device: torch.device = self.model.device
        return device

    @property
    def dtype_name(self) -> str | None:
        """The number format of its weights, such as `bfloat16`; None where they are not here."""
        return None if self.server is not None else str(self.model.dtype).removeprefix("torch.")

    @property
    def threads(self) -> int | None:
        """CPU threads of llama.cpp; None where they are torch's, or a server's."""
        return getattr(self.model, "threads", None)

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods that it can be decoded with: a server tells enough only for some, and
        llama.cpp gives no activations and takes no second set of weights but a draft's."""
        if self.engine == "llamacpp":
            return tuple(name for name, method in METHODS.items() if method.resource in ("", "draft"))
        return tuple(name for name, method in METHODS.items() if self.server is None or method.sparse)

    def check_method(self, method: Method) -> None:
        """Refuses a method that needs what a server or llama.cpp does not give, as a ConfigurationError."""
        if method.name in self.methods:
            return
        what, hint = "every token's logit or the weights, which a server", "Over a server there are"
        if self.engine == "llamacpp":
            what = "the model's weights or activations, which llama.cpp"
            hint = "Use --engine torch, or one of"
        raise ConfigurationError(
            f"Method {method.name} needs {what} does not give.", f"{hint} {', '.join(self.methods)}."
        )

    def weights(self, key: Weights) -> Any:
        """What reads a sequence: `model`, or one of `extras`; ModelError where it is not loaded."""
        if key == "base":
            return self.model
        if not isinstance(key, tuple) or key not in self.extras:
            name = key[0] if isinstance(key, tuple) else key
            raise ModelError(
                f"The method needs `{name}`, which is not loaded.",
                "Name it in the settings and load it with adacd_cli.load_extras(model, settings).",
            )
        return self.extras[key]

    def context_for(self, method: Method, settings: Settings) -> int | None:
        """Positions that every model which the method runs was built for; None where none names any."""
        own = [] if self.context_length is None else [self.context_length]
        if method.resource == "draft":
            own += [n for key, n in self.context_lengths.items() if key == ("draft", settings.draft)]
        return min(own, default=None)


@dataclass(frozen=True)
class Request:
    """What one answer is asked with."""

    prompts: Prompts
    settings: Settings
    # the sampling seed; None takes `settings.seed`, and without that a fresh one, told in Started
    seed: int | None = None
    candidates: int = 0  # how many of the most probable tokens of either stream each step reports
    # how many of the most probable tokens of the base stream each step reports, besides the log-probability of its
    # own; None for neither
    top_logprobs: int | None = None
    # what the answer, without the thinking, is held to; see `grammar.Grammars`
    grammar: Grammar | None = None


def validate(request: Request, model: LanguageModel, can: Capabilities, which: str = "The prompt") -> None:
    """Refuses a request that cannot be answered, before anything is decoded; `which` names its prompt. PromptError
    where a prompt is empty, or leaves no room for an answer in the model's context; ConfigurationError where the
    method needs logits or weights that the backend cannot give, a setting names a token that there is not, or the
    shortest answer is longer than the longest."""
    settings, prompts = request.settings, request.prompts
    method = METHODS[settings.effective_method]
    model.check_method(method)
    if not (can.full_logits or method.sparse):
        raise ConfigurationError(f"Method {method.name} needs every token's logit, which is not told here.")
    if request.grammar is not None and not can.full_logits:
        raise ConfigurationError(*AT_A_SERVER)
    for name in settings.controls:
        if name not in can.controls:
            raise ConfigurationError(
                f"`{name}` is not known to the server that has the model.", "Leave it out."
            )
    if not can.full_logits and settings.repetition_penalty != 1 and method.window(settings):
        raise ConfigurationError(
            "`repetition_penalty` needs the logits of the contrast window, of which a server tells differences.",
            "Use presence_penalty or frequency_penalty.",
        )
    for name, ids in (("logit_bias", settings.biases), ("stop_token_ids", settings.stop_token_ids)):
        size = (can.vocab_size or len(model.tokenizer)) if ids else 0
        if ids and max(ids) >= size:
            raise ConfigurationError(
                f"`{name}` names token {max(ids)}, and the model has {size} tokens: 0 to {size - 1}.",
                "Look the ids up with the model's own tokenizer.",
            )
    base = len(prompts.base.ids)
    if base == 0:
        raise PromptError(f"{which} is empty: it has no token.", "Give a prompt with some text in it.")
    specs = method.streams_for(settings)
    read = [specs[0], *(spec for spec in specs[1:] if method.steps(spec, settings) > 0)]
    spec = max(read, key=lambda spec: len(prompts.streams[spec.name].ids))
    longest = len(prompts.streams[spec.name].ids)
    limit = model.context_for(method, settings)
    if limit is not None and longest >= limit:
        extra = f" with the {spoken(spec.prompt)} ({base} without)" if longest > base else ""
        raise PromptError(
            f"{which} is {longest} tokens long{extra}, and the model's context is {limit}, the answer "
            "included.",
            "Shorten the prompt, or use a model with a longer context.",
        )
    room = settings.max_new_tokens if limit is None else min(settings.max_new_tokens, limit - base)
    if settings.min_tokens > room:
        raise ConfigurationError(
            f"`min_tokens` is {settings.min_tokens}, and an answer has at most {room} tokens here.",
            "Ask for a longer answer, or for fewer tokens.",
        )
