"""adacd: the callable for `custom_generate`. It settles what is asked for and what each stream reads.

The steps themselves are in `loop`. What transformers hands over and AdaCD cannot honour is refused by name in
`refusals`, never ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from transformers.generation.utils import GenerateDecoderOnlyOutput

from adacd_cli.config.methods import METHODS
from adacd_cli.engine.rules import rule_of
from adacd_cli.errors import UsageError
from adacd_cli.hf.loop import Steps
from adacd_cli.hf.prompted import Given, prompted_rows
from adacd_cli.hf.refusals import refuse, refuse_method, refuse_other_text
from adacd_cli.hf.rows import Ids, Row, check_room, read_rows
from adacd_cli.hf.settings import settings_of
from adacd_cli.hf.tokenizer import tokenizer_of
from adacd_cli.hf.withheld import Withheld
from adacd_cli.loading.tokenizer import context_length
from adacd_cli.prompts import ThinkingMarks

if TYPE_CHECKING:
    from adacd_cli.config import Settings


@torch.no_grad()
def adacd(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    synced_gpus: bool = False,
    streamer: Any = None,
    *,
    adacd_tokenizer: Any = None,
    messages: Any = None,
    prompted_input_ids: Any = None,
    prompted_attention_mask: Any = None,
    settings: Settings | None = None,
    method: str | None = None,
    gate: bool | None = None,
    alpha: float | None = None,
    agreement_threshold: float | None = None,
    plausibility: float | None = None,
    contrast_steps: int | None = None,
    contrast_prompt: str | None = None,
    thinking: bool | None = None,
    **model_kwargs: Any,
) -> Any:
    """Decodes with AdaCD what `generate` was given.

        model.generate(**inputs, custom_generate=adacd, max_new_tokens=64)

    The keywords up to `streamer` and `model_kwargs` come from `generate`, whose own settings apply:
    processors to the scores that the method gives, stopping criteria to each row. The prompted stream reads,
    in this order: `prompted_input_ids`; what `messages` give; `input_ids` with the beginning that the chat
    template gives under the contrast prompt, where they begin as it does without.

    Args:
        streamer: `streamer=` of `generate` is found as well, though transformers does not hand it on.
        adacd_tokenizer: the model's tokenizer (`tokenizer=` is not handed on); None takes the one beside the
            weights that the model was loaded from. Needed for all but `prompted_input_ids`, and there for a
            model that may think.
        messages: the conversation behind `input_ids`, a list of `{"role", "content"}`; for a batch a list of
            them.
        prompted_input_ids: [rows, tokens], or a list of lists of ids; `inputs_for` makes them.
        prompted_attention_mask: [rows, tokens], 0 at padding.
        settings: the settings of the panels Prompt and Method are read.
        method, gate, alpha, agreement_threshold, plausibility, contrast_steps, contrast_prompt, thinking:
            settings that differ from `settings`. `thinking` only says how `input_ids` were rendered; None
            finds out.

    Returns:
        What `generate` returns: int64 [rows, prompt + new], padded after a row's end; or with
        return_dict_in_generate a GenerateDecoderOnlyOutput, whose `scores` are those that tokens were chosen
        by and whose `logits` are the unprompted stream's.

    Raises:
        UsageError: something that is asked for cannot be done together with AdaCD.
        ConfigurationError: a setting is out of its range, or comes too late for `prompted_input_ids`.
        PromptError: the prompted stream's prompt cannot be made, or a prompt leaves no room.
        ModelError: the model is in training mode, an encoder-decoder, or has no weights.
        LogitsError: a logit is NaN or infinite.
    """
    changes = {
        "method": method,
        "gate": gate,
        "alpha": alpha,
        "agreement_threshold": agreement_threshold,
        "plausibility": plausibility,
        "contrast_steps": contrast_steps,
        "contrast_prompt": contrast_prompt,
        "thinking": thinking,
    }
    withheld = Withheld.by_generate(streamer)
    try:
        refuse(model, input_ids, generation_config, model_kwargs, withheld, synced_gpus)
        longest = max(getattr(stopping_criteria, "max_length", None) or 2**31, input_ids.shape[1])
        chosen = settings_of(settings, changes, longest - input_ids.shape[1])
        refuse_method(chosen)
        ready = None
        if prompted_input_ids is not None:
            refuse_other_text(settings, chosen, contrast_prompt)
            pad = getattr(generation_config, "_pad_token_tensor", None)
            ready = read_rows(prompted_input_ids, prompted_attention_mask, "prompted_input_ids", pad)
        copies = generation_config.num_return_sequences or 1
        tokenizer = adacd_tokenizer if adacd_tokenizer is not None else tokenizer_of(model)
        if isinstance(tokenizer, (str, PathLike)):
            raise UsageError(
                f"adacd_tokenizer takes the tokenizer itself; got {type(tokenizer).__name__}.",
                "Write adacd_tokenizer=AutoTokenizer.from_pretrained(…).",
            )
        given = Given(ready, messages, tokenizer, copies)
        prompts = read_rows(input_ids, model_kwargs.get("attention_mask"), "input_ids")
        rows = _rows(model, prompts, given, chosen)
        if withheld.prompt_is_due:
            withheld.streamer.put(input_ids.cpu())
        rule = rule_of(METHODS[chosen.effective_method])
        steps = Steps(model, rows, rule, chosen, generation_config, withheld.streamer)
        sequences = steps.run(input_ids, logits_processor, stopping_criteria)
    finally:
        if withheld.streamer is not None:  # whoever reads it would wait for ever
            withheld.streamer.end()
    if not generation_config.return_dict_in_generate:
        return sequences
    return GenerateDecoderOnlyOutput(sequences=sequences, scores=steps.scores, logits=steps.logits)


def _rows(model: Any, prompts: Sequence[Ids], given: Given, settings: Settings) -> list[Row]:
    """The rows with what each stream reads; without a second one both are the same.

    Raises:
        PromptError: the second stream's prompt cannot be made, or a prompt leaves no room.
    """
    method = METHODS[settings.effective_method]
    window = method.window(settings)
    prompted = list(prompts)
    marks: list[ThinkingMarks | None] = [None] * len(prompts)
    if window > 0:
        known = "thinking" in settings.model_fields_set
        prompted, marks = prompted_rows(prompts, given, settings, rendering_known=known)
    limit = context_length(model.config)
    check_room(prompts, prompted, limit)
    return [
        Row(model, plain, other, window, method.follows_track, limit, thoughts, given.tokenizer)
        for plain, other, thoughts in zip(prompts, prompted, marks, strict=True)
    ]
