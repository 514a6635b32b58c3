"""The second stream beside transformers' own decoding: a logits processor, and the callable that puts it first. The
scores that it is given are the base stream's. The second stream is a sequence of the torch backend for each row,
which is fed the tokens that transformers chose, and is closed where the contrast window ends."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from inspect import Parameter, signature
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoTokenizer, LogitsProcessor
from transformers.generation.utils import is_deepspeed_zero3_enabled, is_fsdp_managed_module

from adacd_cli.backends.torch.backend import TorchBackend
from adacd_cli.config import SETTINGS, Settings
from adacd_cli.config.methods import METHODS, Method
from adacd_cli.engine import LanguageModel, Request, validate
from adacd_cli.engine.answer import Phase
from adacd_cli.engine.backend import Extend, stacked
from adacd_cli.engine.state import RequestState
from adacd_cli.engine.step import StepOutcome
from adacd_cli.errors import ConfigurationError, ModelError, UsageError
from adacd_cli.events import Decision, Measures
from adacd_cli.hf.prompts import PANELS, prompts_of, read_rows, settings_of
from adacd_cli.loading.pretrained import context_length
from adacd_cli.prompts.build import streams_of


class AdacdLogitsProcessor(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Turns the model's scores into those of AdaCD, or of another method with a second prompt.

        processor = AdacdLogitsProcessor(model, **inputs_for(tokenizer, "How do I kill a process?"))
        model.generate(input_ids, attention_mask=…, logits_processor=[processor], streamer=…)

    Used directly, it comes after those that generate makes of its own arguments (penalties, minimum lengths,
    constraints), and takes their scores for the model's; `custom_generate=adacd` puts one in front of all.

    Args:
        model: the transformers model that decodes.
        input_ids, attention_mask: its prompts, as generate takes them, padded on the left.
        adacd_tokenizer: the model's tokenizer; by default the one beside the weights that it was loaded from.
        messages: the conversation behind `input_ids`, `{"role", "content"}` each; for a batch a list of them.
        prompted_input_ids, prompted_attention_mask: what the second stream reads, [rows, tokens] or lists of ids;
            by default, without `messages`, `input_ids` with the beginning, or end, that the template gives it.
        settings, **changes: settings of the panels Prompt and Method. `thinking` only says how `input_ids` were
            rendered; without it the first token tells whether the model thinks.

    Raises:
        ConfigurationError: a setting is out of its range, or comes too late for `prompted_input_ids`.
        PromptError: the second stream's prompt cannot be made, or a prompt leaves no room.
        ModelError: the model is in training mode, an encoder-decoder, or has no weights.
    """

    def __init__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        adacd_tokenizer: Any = None,
        messages: Any = None,
        prompted_input_ids: Any = None,
        prompted_attention_mask: Any = None,
        settings: Settings | None = None,
        **changes: Any,
    ) -> None:
        chosen = settings_of(settings, changes, "adacd()")
        method = METHODS[chosen.effective_method]
        _check(model, method, chosen)
        if isinstance(tokenizer := adacd_tokenizer, str):
            raise UsageError("adacd_tokenizer takes the tokenizer itself, not its name.")
        with suppress(Exception):  # missing files, unknown classes, JSON errors: each tokenizer its own
            tokenizer = tokenizer or _saved_tokenizer(model.name_or_path)
        # how long an answer gets, only generate knows
        chosen = chosen.model_copy(update={"max_new_tokens": 2**31})
        rows = read_rows(input_ids, attention_mask, "input_ids")
        prompted = None if method.window(chosen) > 0 else rows
        if prompted is None and prompted_input_ids is not None:
            made_for = settings or Settings(method=method.name)
            texts = [(streams_of(each), each.contrast_placement) for each in (made_for, chosen)]
            if texts[0] != texts[1]:
                what = "`prompted_input_ids` were made without the text that the second stream is to read."
                raise ConfigurationError(what, "Pass the method and its prompt to inputs_for() already.")
            prompted = read_rows(prompted_input_ids, prompted_attention_mask, "prompted_input_ids")
        prompts = prompts_of(rows, chosen, tokenizer, messages, prompted)
        tokenizer = tokenizer or SimpleNamespace(decode=lambda ids, **options: "")  # no text is of interest
        limit = context_length(model.config)
        self._model = LanguageModel(model, tokenizer, type(model).__name__, None, frozenset(), limit)
        self._backend = TorchBackend(self._model)
        self._requests = [Request(each, chosen) for each in prompts]
        for place, request in enumerate(self._requests):
            validate(request, self._model, self._backend.capabilities, f"Row {place} of input_ids")
        self._input_ids = self._seen = input_ids
        self._rows: list[RequestState] = []
        self._tops: dict[int, int] = {}

    @torch.no_grad()
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The method's scores of the rows in their contrast window, the others' as they are, float32 [rows, vocab].
        `input_ids`, int64 [rows, tokens], are the prompts, then one more token with each call, else UsageError;
        `scores` the base stream's, −inf for tokens that are forbidden already, LogitsError for NaN or ∞."""
        begins = input_ids.shape[1] == self._input_ids.shape[1]
        if not begins and not any(map(_is_followed, self._rows)):
            return scores
        self._follow(input_ids, begins)
        for row, plain in zip(self._rows, scores, strict=True):
            if row.phase is Phase.UNDECIDED:
                row.settle(int(plain.argmax()))
        places = [place for place, row in enumerate(self._rows) if _is_followed(row) and row.wants_contrast]
        if not places:
            return scores
        rows = [self._rows[place] for place in places]
        base, other = scores[places], self._feed(rows).to(scores.device)
        ends = torch.stack([base.amax(dim=-1), other.amax(dim=-1), other.amin(dim=-1)])
        finite = ends.isfinite().all(dim=0).tolist()
        if not all(finite):
            raise rows[finite.index(False)].not_finite()
        first, second = rows[0].streams
        # rules calculate with what is forbidden as well, so there it is far below everything else
        verdict = rows[0].rule({first: base.clamp(min=-1e30), second: other}, rows[0].settings)
        self._tops = dict(zip(places, verdict.measures["prompted_top_id"].tolist(), strict=True))
        scores = scores.clone()
        scores[places] = verdict.scores.masked_fill(base == -torch.inf, -torch.inf)
        return scores

    def _follow(self, input_ids: torch.Tensor, begins: bool) -> None:
        copies = len(input_ids) // max(1, len(self._requests))  # for num_return_sequences
        expected = self._seen
        if begins:
            expected = self._input_ids.repeat_interleave(copies, dim=0).to(input_ids.device)
        if not torch.equal(input_ids if begins else input_ids[:, :-1], expected):
            raise UsageError(
                "AdacdLogitsProcessor cannot follow input_ids: they are neither the prompts that it was made for, "
                "nor those of the last step and one more token.",
                "Make one for each batch, and decode greedily or by sampling, without beams or an assistant.",
            )
        self._seen = input_ids
        if begins:
            self._backend = TorchBackend(self._model)
            requests = enumerate(each for each in self._requests for _ in range(copies))
            self._rows = [
                RequestState(place, each, self._model, self._model.device) for place, each in requests
            ]
            return
        for place, (row, token) in enumerate(zip(self._rows, input_ids[:, -1].tolist(), strict=True)):
            if _is_followed(row):
                measures = Measures(0.0, prompted_top_id=self._tops.get(place))
                row.take(StepOutcome(True, token, token, Decision.PLAIN, measures))
            if not _is_followed(row):
                ended = [each.release() for each in row.streams.values()]
                self._backend.close([id for id in ended if id is not None])

    def _feed(self, rows: Sequence[RequestState]) -> torch.Tensor:
        work = []
        for row in rows:
            _, stream = row.wanted()
            tokens = row.tail(stream)
            stream.sequence = self._backend.open() if stream.sequence is None else stream.sequence
            stream.fed += len(tokens)
            work.append(Extend(stream.sequence, tokens))
        return stacked([logits for each in self._backend.forward(work) if (logits := each.result())])


_OWN = {*(p.name for p in signature(AdacdLogitsProcessor).parameters.values() if p.kind is p.KEYWORD_ONLY)}
_OWN |= {name for name, setting in SETTINGS.items() if setting.panel in PANELS}


@torch.no_grad()
def adacd(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    adacd_streamer: Any = None,
    **keywords: Any,
) -> Any:
    """Decodes with AdaCD what `generate` was given, and returns what it returns: `scores` are what tokens were
    chosen by, `logits` the base stream's.

        model.generate(**inputs, custom_generate=adacd, max_new_tokens=64)

    The decoding is transformers' own, with an AdacdLogitsProcessor in front of all other processors. Where those
    forbid every token that AdaCD allows, the step is plain decoding under them. `adacd_streamer` is what
    `streamer=` would be, which transformers does not pass on; `keywords` are those of AdacdLogitsProcessor, whose
    errors are raised, the model's inputs, and generate's own, a UsageError where one cannot be combined with AdaCD.
    """

    def processors(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        contrasted = processor(ids, logits)
        scores: torch.Tensor = logits_processor(ids, contrasted)
        forbidden = None if contrasted is logits else scores.amax(dim=-1, keepdim=True) == -torch.inf
        if forbidden is None or not bool(forbidden.any()):
            return scores
        return torch.where(forbidden, logits_processor(ids, logits), scores)

    own = {name: keywords.pop(name) for name in _OWN & keywords.keys()}
    copies, mask = generation_config.num_return_sequences or 1, keywords.get("attention_mask")
    try:
        _check_generate(model, generation_config, keywords)
        mask = None if mask is None else mask[::copies]
        processor = AdacdLogitsProcessor(model, input_ids[::copies], mask, **own)
        if adacd_streamer is not None:
            adacd_streamer.put(input_ids.cpu())
        decoded = input_ids, processors, stopping_criteria, generation_config
        return model._sample(*decoded, streamer=adacd_streamer, **keywords)
    except BaseException:
        if adacd_streamer is not None:  # whoever reads it would wait for ever
            adacd_streamer.end()
        raise


# generate passes on the keywords that the signature names
_NAMES = [*signature(adacd).parameters.values()]
_NAMES[-1:-1] = [Parameter(name, Parameter.KEYWORD_ONLY, default=None) for name in sorted(_OWN)]
adacd.__signature__ = signature(adacd).replace(parameters=_NAMES)  # type: ignore[attr-defined]


def _check_generate(model: Any, generation_config: Any, inputs: dict[str, Any]) -> None:
    mode = generation_config.get_generation_mode().value
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    sharded = is_deepspeed_zero3_enabled() or is_fsdp_managed_module(model)
    unread = {name for name, each in inputs.items() if isinstance(each, torch.Tensor) and bool(each.any())}
    unread -= {"attention_mask", "position_ids"}
    for wrong, what in (
        (mode not in ("greedy_search", "sample"), mode.replace("_", " ")),
        (processes > 1 and sharded, "a model sharded by FSDP or ZeRO-3 (synced_gpus)"),
        (unread, f"`{', '.join(sorted(unread))}`, which the second stream does not read"),
    ):
        if wrong:
            raise UsageError(f"AdaCD cannot be decoded with {what}.", "Leave it out of generate().")


def _check(model: Any, method: Method, settings: Settings) -> None:
    for wrong, reason in (
        (model.config.is_encoder_decoder, "is an encoder-decoder, and AdaCD decodes causal language models"),
        (model.training, "is in training mode, with dropout on; call model.eval() first"),
        (model.device.type == "meta", "has weights on the meta device; load it without offloading"),
    ):
        if wrong:
            raise ModelError(f"{type(model).__name__} {reason}.")
    base, *others = method.streams_for(settings)
    what = ""
    if settings.uses_profile:
        needs = "Method fitted and the switches mass and learned need a model's profile"
        what = f"{needs}, which transformers' generate does not know."
    elif len(others) > 1 or base.prompt or any(each.weights != "base" for each in (base, *others)):
        what = f"Method {method.name} needs more than a second prompt, all that it has in transformers' generate."
    if what:
        raise ConfigurationError(what, "Use adacd_cli.load and adacd_cli.generate for it.")


def _is_followed(row: RequestState) -> bool:
    return row.finish is None and (row.wants_contrast or row.phase is not Phase.ANSWERING)


@lru_cache(maxsize=4)
def _saved_tokenizer(folder: str) -> Any:
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
