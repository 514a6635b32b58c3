"""The steps of a batch under `generate`: the method's scores, then transformers' processors and criteria."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from adacd_cli.engine.groups import Groups
from adacd_cli.engine.model import LanguageModel
from adacd_cli.engine.rules.base import Rule, StepLogits
from adacd_cli.errors import LogitsError
from adacd_cli.hf.rows import Row

if TYPE_CHECKING:
    from adacd_cli.config import Settings


class Steps:
    """Decodes rows side by side until all have ended.

    Args:
        model: a transformers causal LM in eval mode.
        rows: their prompts; each is moved on as its tokens are chosen.
        rule: the method's.
        settings: the method's numbers.
        generation_config: sampling, the padding token, and what is to be returned.
        streamer: is given each step's tokens; None for none.

    Attributes:
        scores: what each step's tokens were chosen by, [rows, vocab] each; None where not asked for.
        logits: those of the unprompted stream; None where not asked for.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[Row],
        rule: Rule,
        settings: Settings,
        generation_config: Any,
        streamer: Any,
    ) -> None:
        self._model, self._rows, self._rule, self._settings = model, list(rows), rule, settings
        self._config, self._streamer = generation_config, streamer
        kept = generation_config.return_dict_in_generate
        self.scores: tuple[torch.Tensor, ...] | None = (
            () if kept and generation_config.output_scores else None
        )
        self.logits: tuple[torch.Tensor, ...] | None = (
            () if kept and generation_config.output_logits else None
        )
        name = type(model).__name__
        self._groups: Any = Groups(LanguageModel(model, None, name, None, frozenset(), None), None)

    def run(self, input_ids: torch.Tensor, processors: Any, criteria: Any) -> torch.Tensor:
        """All steps.

        Args:
            input_ids: int64 [rows, prompt], padded as the caller has them.
            processors: what `generate` applies to scores, sampling's own included.
            criteria: when a row ends.

        Returns:
            int64 [rows, prompt + new]; what follows a row's end is padding.
        """
        if not self._rows:
            return input_ids
        pads = any(hasattr(each, "eos_token_id") for each in criteria)
        unfinished = torch.ones(len(self._rows), dtype=torch.bool, device=input_ids.device)
        self._groups.open(self._rows)
        while self._groups.reading:
            self._groups.read()
        while True:
            tokens, tops = self._choose(input_ids, processors)
            input_ids = torch.cat([input_ids, tokens.unsqueeze(-1)], dim=-1)
            for row, token, top in zip(self._rows, tokens.tolist(), tops, strict=True):
                if row.finish is None:
                    row.take(token, top)
            unfinished = unfinished & ~criteria(input_ids, self.scores)
            for place, row in enumerate(self._rows):
                if row.is_full:
                    unfinished[place] = False
                # without an end-of-text token nothing may follow a row's end but more of it
                if not unfinished[place] and (pads or row.is_full):
                    row.finish = "ended"
            if self._streamer is not None:
                self._streamer.put(tokens.cpu())
            if not unfinished.any():
                return input_ids
            self._groups.narrow(lambda lane: lane.wanted)
            self._groups.advance()

    def _choose(self, input_ids: torch.Tensor, processors: Any) -> tuple[torch.Tensor, list[int | None]]:
        """The next token of each row, int64 [rows], and the prompted stream's top where it was asked."""
        running = [place for place, row in enumerate(self._rows) if row.finish is None]
        plain, scores, tops = self._score([self._rows[place] for place in running])
        whole = self._whole(scores, running, input_ids.device)
        raw = self._whole(plain, running, input_ids.device)
        processed = processors(input_ids, whole)
        # constraints may forbid every plausible token: then the step is plain decoding under them
        forbidden = (processed.amax(dim=-1) == -torch.inf).nonzero().flatten().tolist()
        if any(place in forbidden for place in running):
            processed = processed.clone()
            processed[forbidden] = processors(input_ids, raw.clone())[forbidden]
        if self.scores is not None:
            self.scores += (processed,)
        if self.logits is not None:
            self.logits += (raw,)
        tokens = torch.full_like(input_ids[:, 0], self._pad())
        if self._config.do_sample:
            ended = [place for place, row in enumerate(self._rows) if row.finish is not None]
            probabilities = processed.softmax(dim=-1)
            probabilities[ended] = 1.0  # drawn for nothing, so that the others draw what they would
            drawn = torch.multinomial(probabilities, num_samples=1).squeeze(1)
        else:
            drawn = processed.argmax(dim=-1)
        tokens[running] = drawn[running]
        found: list[int | None] = [None] * len(self._rows)
        for place, top in zip(running, tops, strict=True):
            found[place] = top
        return tokens, found

    def _score(self, rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor, list[int | None]]:
        """z, the method's scores, float32 [rows, vocab] each, and the prompted stream's top of each row."""
        plain = self._groups.logits(rows, prompted=False).clone()
        for place, row in enumerate(rows):
            if row.undecided:
                row.settle(int(plain[place].argmax()))
        contrasted = [place for place, row in enumerate(rows) if row.wants_contrast]
        tops: list[int | None] = [None] * len(rows)
        self._refuse_broken(plain, rows)
        if not contrasted:
            return plain, plain.clone(), tops
        wanting = [rows[place] for place in contrasted]
        # an answer that begins after thinking: the prompted stream catches up
        self._groups.open_late(self._groups.without_prompted(wanting))
        prompted = self._groups.logits(wanting, prompted=True)
        self._refuse_broken(prompted, wanting)
        verdict = self._rule(StepLogits(prompted, plain[contrasted]), self._settings)
        scores = plain.clone()
        scores[contrasted] = verdict.scores
        if verdict.measures is not None:
            for place, top in zip(contrasted, verdict.measures.prompted_top_id.tolist(), strict=True):
                tops[place] = top
        return plain, scores, tops

    def _refuse_broken(self, logits: torch.Tensor, rows: Sequence[Row]) -> None:
        finite = logits.amax(dim=-1).isfinite() & logits.amin(dim=-1).isfinite()
        if not bool(finite.all()):
            row = rows[finite.tolist().index(False)]
            dtype = str(self._model.dtype).removeprefix("torch.")
            raise LogitsError(
                f"The logits of step {len(row.ids)} of row {self._rows.index(row)} are not finite (NaN or "
                f"infinity), in {dtype}.",
                "Load the model in another dtype (bfloat16 or float32); if it stays so, the checkpoint is "
                "damaged.",
            )

    def _whole(self, scores: torch.Tensor, running: list[int], device: torch.device) -> torch.Tensor:
        """The scores of all rows, 0 for those that have ended, where the prompts are."""
        if len(running) == len(self._rows):
            return scores.to(device)
        whole = scores.new_zeros((len(self._rows), scores.shape[-1]))
        whole[running] = scores
        return whole.to(device)

    def _pad(self) -> int:
        pad = getattr(self._config, "_pad_token_tensor", None)
        return 0 if pad is None else int(pad)
