"""How probable a model finds the tokens of a prompt: one pass over it, outside the decoding loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from adacd_cli.engine.answer import decode_ids
from adacd_cli.engine.backend import BASE, Backend, Extend, Need
from adacd_cli.events import ScoredToken, TokenLogprob

_CHUNK = 128  # tokens in one forward: the logits of a large vocabulary take half a megabyte each


@torch.inference_mode()
def score(backend: Backend, tokenizer: Any, ids: Sequence[int], top: int) -> list[ScoredToken]:
    """Every token of a prompt with its log-probability by the base weights, which the first one has not, and the
    `top` most probable tokens at each position. The backend has full logits, and holds no more sequences afterwards
    than before; raises as `Backend.forward`."""

    def spell(token_id: int) -> str:
        return decode_ids(tokenizer, [token_id], control=True)

    sequence, scored = backend.open(), [ScoredToken(ids[0], spell(ids[0]))]
    pieces = backend.capabilities.prefill_chunk is not None and backend.alike(BASE, 1, len(ids))
    size = _CHUNK if pieces else len(ids)
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        (pending,) = backend.forward([Extend(sequence, part, Need(positions=len(part)))])
        logits = pending.result()
        assert logits is not None
        after = ids[start + 1 : start + size + 1]
        logprobs = logits.batch[logits.row, -len(part) :][: len(after)].float().log_softmax(dim=-1)
        own = logprobs.gather(-1, torch.tensor(after, device=logprobs.device).unsqueeze(-1)).flatten()
        best = logprobs.topk(min(top, logprobs.shape[-1]), dim=-1)
        rows = zip(after, own.tolist(), best.indices.tolist(), best.values.tolist(), strict=True)
        for token_id, logprob, others, values in rows:
            listed = tuple(TokenLogprob(each, spell(each), p) for each, p in zip(others, values, strict=True))
            scored.append(ScoredToken(token_id, spell(token_id), logprob, listed))
    backend.close([sequence])
    return scored
