"""What is measured: prompts of an exact length, each different, of real text or of ids drawn at random; and models
of a known architecture with random weights, made on the device.

The unprompted stream of Default has exactly the tokens asked for; every other stream has as many more as its
method's system text takes. No two requests of a batch begin alike, so that nothing can be read for two."""

from __future__ import annotations

import json
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adacd_cli.config.methods import METHODS
from adacd_cli.conversation import Conversation
from adacd_cli.counting import counted
from adacd_cli.errors import ModelError, UsageError, first_line
from adacd_cli.prompts import Prompt, Prompts, prompts_for
from adacd_cli.suggest import known_names_hint

if TYPE_CHECKING:
    import torch

    from adacd_cli.config import Settings
    from adacd_cli.engine import LanguageModel

SHAPES: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("shapes.json").read_text("utf-8"))
"""The architectures of the paper's models, as their config.json have them; stored in bfloat16."""

_STORED = {"bfloat16": "BF16", "float16": "F16", "float64": "F64"}
_BLOCK = 4_194_301  # random numbers that are repeated; a prime, so that no two rows of a matrix are the same

_SENTENCES = (
    "The harbour wakes before the town does, when the first boats come in with ice on their ropes.",
    "A woman counts crates of herring and writes the numbers on the back of an old envelope.",
    "Nobody remembers who built the lighthouse, but everyone has an opinion about its colour.",
    "In summer the road is full of bicycles, and in winter the wind has it to itself.",
    "The baker sells two kinds of bread, and will tell you which of them you ought to buy.",
    "Behind the school there is a garden where the children grow beans, pumpkins and a few arguments.",
    "Once a month a train stops here by mistake, and somebody always gets off to look around.",
    "What would you tell a visitor who has only one afternoon and no umbrella?",
)

_SYSTEM_TOKENS = 12  # about what the contrast prompt and what a template writes around it take


class TextPrompts:
    """Text in the model's chat template; TOKENS is the length of Default's prompt, the system message included."""

    def __init__(self, model: LanguageModel, tokens: int) -> None:
        self._tokenizer, self._tokens = model.tokenizer, tokens
        self._texts: list[str] = []

    def make(self, settings: Settings, count: int) -> list[Prompts]:
        """The prompts of that many requests; the same at every call. UsageError where the system message takes more
        tokens than the whole prompt may have."""
        default = settings.model_copy(update={"method": "default"})
        while len(self._texts) < count:
            self._texts.append(self._fitting(len(self._texts), default))
        made = []
        for text in self._texts[:count]:
            by = self._tokens - len(self._prompts(text, default).base.ids)
            prompts = self._prompts(text, settings)
            streams = {
                name: replace(each, ids=_stretched(each.ids, by)) for name, each in prompts.streams.items()
            }
            # without thinking, so that the contrast begins with the first token
            made.append(replace(prompts, streams=streams, thinking=None))
        return made

    def _prompts(self, text: str, settings: Settings) -> Prompts:
        return prompts_for(self._tokenizer, Conversation.ask(text, settings.system), settings)

    def _fitting(self, number: int, settings: Settings) -> str:
        """The text of a request: as many words of it as the tokens allow, at least one."""
        start = number % len(_SENTENCES)
        passage = cycle(" ".join((*_SENTENCES[start:], *_SENTENCES[:start])).split())
        words = [f"{number + 1}.", *islice(passage, self._tokens)]

        def length(count: int) -> int:
            return len(self._prompts(" ".join(words[:count]), settings).base.ids)

        least = length(1)
        if settings.system and least > self._tokens:
            alone = f"the system message alone makes a prompt of {counted(least, 'token')}"
            hint = f"Use --prompt-tokens {least} or more, or leave --system out."
            raise UsageError(f"--prompt-tokens is {self._tokens}, and {alone}.", hint)
        return " ".join(words[: max(1, bisect_right(range(len(words)), self._tokens, lo=1, key=length) - 1)])


def _stretched(ids: tuple[int, ...], by: int) -> tuple[int, ...]:
    """The ids with some more, or without some, at their beginning; at least one is left."""
    return ids[:1] * by + ids if by >= 0 else ids[min(-by, len(ids) - 1) :]


class RandomPrompts:
    """Ids below `vocabulary` drawn at random; streams with a prompt of their own have 12 more in front."""

    def __init__(self, vocabulary: int, tokens: int, seed: int) -> None:
        self._vocabulary, self._tokens, self._seed = vocabulary, tokens, seed

    def make(self, settings: Settings, count: int) -> list[Prompts]:
        specs = METHODS[settings.effective_method].streams_for(settings)
        generator = random.Random(self._seed)
        made = []
        for _ in range(count):
            system = tuple(generator.choices(range(self._vocabulary), k=_SYSTEM_TOKENS))
            ids = tuple(generator.choices(range(self._vocabulary), k=self._tokens))
            made.append(Prompts({spec.name: Prompt(system + ids if spec.prompt else ids) for spec in specs}))
        return made


PromptMaker = TextPrompts | RandomPrompts


def check_context(
    model: LanguageModel, settings: Settings, lengths: tuple[int, int], prompts: Prompts | None = None
) -> None:
    """UsageError where prompt and answer are more than the model's context has; PROMPTS are a request's under the
    settings' method, which may be longer than Default's."""
    (prompt_tokens, generation_tokens), method = lengths, METHODS[settings.effective_method]
    limit = model.context_for(method, settings)
    longest, extra = prompt_tokens + generation_tokens, ""
    if prompts is not None:
        fed = min(method.window(settings), generation_tokens)
        second = max((len(each.ids) for each in prompts.others.values()), default=0) + fed if fed else 0
        streams = max(len(prompts.base.ids) + generation_tokens, second)
        if streams > longest:
            longest, extra = streams, f" with method {method.name}"
    if limit is not None and longest > limit:
        asked = f"{counted(prompt_tokens, 'prompt token')} and {generation_tokens:,} to generate"
        take = f"{asked} take {counted(longest, 'token')}{extra}"
        hint = "Lower --prompt-tokens or --generation-tokens."
        raise UsageError(f"{take}, and the context of {model.name} is {limit}.", hint)


class IdsAsText:
    """In a tokenizer's place: ids decode to their numbers."""

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "".join(f" {each}" for each in ids)


def read_shape(name: str) -> dict[str, Any]:
    """The values of a shape's config.json (UsageError: there is no such shape or file, or it is no model's)."""
    if name in SHAPES:
        return SHAPES[name]
    path = Path(name).expanduser()
    if path.is_dir():
        path = path / "config.json"
    hint = "Name a model's config.json, or the folder that holds it."
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"Unknown shape {name!r}.", f"{known_names_hint(name, SHAPES)} {hint}") from error
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        why = f"cannot be read: {reason}" if isinstance(error, OSError) else f"is not valid JSON: {reason}"
        raise UsageError(f"The shape {name!r} {why}.", hint) from error
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise UsageError(f"The shape {name!r} names no model_type.", hint)
    return values


def build_shape(
    name: str, settings: Settings, seed: int, progress: Callable[[str], None] = lambda line: None
) -> LanguageModel:
    """A model of the shape (a name, or the path of a config.json), ready to decode, that no token ends. UsageError
    where there is no such shape; ModelError where transformers knows no such causal language model, or it does not
    run; DeviceError where there is no such device; OutOfMemoryError where the weights do not fit."""
    values = read_shape(name)
    progress("Starting PyTorch")
    import torch
    from transformers import AutoConfig

    from adacd_cli.engine.model import LanguageModel
    from adacd_cli.loading.files import Checkpoint
    from adacd_cli.loading.hardware import check_memory, choose_device, choose_dtype
    from adacd_cli.loading.local import made_fast
    from adacd_cli.loading.machine import Load
    from adacd_cli.loading.pretrained import causal_config, context_length, smoke_run
    from adacd_cli.loading.progress import quiet

    others = Load()
    device = choose_device(settings.device)
    with quiet(progress) as logged:
        if name in SHAPES:
            config = AutoConfig.for_model(**values)
        else:
            # a checkpoint without weights; transformers takes the path of the very file as well as its folder's
            found = Checkpoint(Path(name).expanduser(), values, dtype="", elements=0, stored_bytes=0)
            fix = "Fix that in it, or name a model's own config.json."
            config = causal_config(found, name, trust_remote_code=settings.trust_remote_code, fix=fix)
        stored = "bfloat16" if name in SHAPES else str(config.dtype or "float32").removeprefix("torch.")
        empty = construct(name, config, getattr(torch, stored), "meta")
        elements = sum(each.numel() for each in empty.parameters())
        chosen = choose_dtype(settings.dtype, _STORED.get(stored, "F32"), device, elements)
        dtype = getattr(torch, stored) if isinstance(chosen, str) else chosen
        hint = "Use --dtype bfloat16, a larger device, or a smaller shape."
        check_memory(f"The weights of {name} need", elements * dtype.itemsize, device, hint)

        progress(f"Making {elements / 1e9:.1f} billion random weights")
        model = construct(name, config, dtype, device)
        _randomize(model, seed)
        if device.type == "cpu" or settings.threads is not None:
            torch.set_num_threads(settings.threads or others.free_cores())
        progress("Trying one token")
        smoke_run(model, 0, name)
        _check_causal(model, name)
    length, warnings = context_length(model.config), tuple(logged)
    made = LanguageModel(model, IdsAsText(), name, None, frozenset(), length, warnings)
    return made_fast(made, settings, progress, for_long=True)


def construct(name: str, config: Any, dtype: torch.dtype, device: torch.device | str) -> Any:
    """The model with weights of no particular value, and the buffers that it computes for itself."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    capped = getattr(config.get_text_config(decoder=True), "attn_logit_softcapping", None) is not None
    # the fused kernels leave Gemma-2's soft-capping out
    options = {"attn_implementation": "eager"} if capped else {}
    try:
        with no_init_weights(), torch.device(device):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, **options).eval()
            model.tie_weights()  # which making no weights leaves out
            return model
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # each architecture refuses impossible sizes its own way
        message = f"The shape {name!r} cannot be built: {first_line(error).rstrip('.:')}."
        raise ModelError(message, "Name a model's own config.json.") from error


def _check_causal(model: Any, name: str) -> None:
    """Refuses an encoder: transformers makes a causal language model of one, which then looks ahead."""
    import torch

    if model.get_input_embeddings().weight.shape[0] < 3:
        return  # there are no two tokens to compare
    ids = [torch.tensor([[0] + [later] * 15], device=model.device) for later in (1, 2)]
    with torch.inference_mode():
        one, other = (model(input_ids=each, use_cache=False).logits[0, 0].float() for each in ids)
    # a decoder's first logits are the same to the last bit; an encoder's were seen 1 to 30 % of their spread apart
    if (one - other).abs().max() > 0.001 * one.std():
        kind = f"an encoder ({model.config.model_type}), not a causal language model"
        what = f"{name} is {kind}: it looks ahead."
        raise ModelError(what, "Name the config.json of a decoder-only model, such as Qwen/Qwen3-8B.")


def _randomize(model: Any, seed: int) -> None:
    """Matrices of small random numbers, scales of 1 and offsets of 0, so that all logits are finite."""
    import torch

    parameter = next(model.parameters())
    generator = torch.Generator(parameter.device).manual_seed(seed)
    block = torch.empty(_BLOCK, dtype=parameter.dtype, device=parameter.device)
    block.normal_(0, 0.02, generator=generator)
    with torch.no_grad():
        for label, weight in model.named_parameters():
            if weight.dim() < 2:
                weight.fill_(0.0 if label.endswith("bias") else 1.0)
                continue
            for piece in weight.view(-1).split(_BLOCK):
                piece.copy_(block[: piece.numel()])
