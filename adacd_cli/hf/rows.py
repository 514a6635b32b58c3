"""The rows of a batch: prompts out of padded tensors, and where each answer stands.

A Row is what `engine.lanes` asks of a request: who reads it, what its streams are fed, and whether it still
wants them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from adacd_cli.engine.detokenize import decode_ids
from adacd_cli.errors import PromptError
from adacd_cli.prompts import ThinkingMarks

Ids = tuple[int, ...]

_CLOSING_TAG_TOKENS = 16
"""How many of the last tokens are searched for the closing tag of the thinking."""


class Row:
    """One row's answer so far.

    Args:
        model: what reads both streams.
        unprompted: the prompt.
        prompted: the prompt of the second stream.
        window: how many tokens of the answer are contrasted.
        follows_track: whether contrasting ends at the first token that is not the second stream's top.
        limit: positions of the model's context; None for no limit.
        marks: the tags around the thinking; None where the row answers at once.
        tokenizer: looks for the tags.

    Attributes:
        ids: the tokens so far.
        window: how many more are contrasted.
        finish: None while the row goes on.
        undecided: whether the next plain token decides if the row thinks.
    """

    def __init__(
        self,
        model: Any,
        unprompted: Ids,
        prompted: Ids,
        window: int,
        follows_track: bool,
        limit: int | None,
        marks: ThinkingMarks | None,
        tokenizer: Any,
    ) -> None:
        self.readers = model, model
        self.ids: list[int] = []
        self.window = window
        self.finish: str | None = None
        self.undecided = marks is not None and not marks.opened
        self._thinking = marks is not None
        self._prompts, self._follows_track, self._limit = (unprompted, prompted), follows_track, limit
        self._marks, self._tokenizer = marks, tokenizer

    @property
    def wants_contrast(self) -> bool:
        """Whether the next token is one of the contrast window."""
        return not self._thinking and self.window > 0

    def prompt_ids(self, prompted: bool) -> Ids:
        """What one of the streams has to be fed for the next token."""
        return (*self._prompts[prompted], *self.ids)

    def settle(self, next_plain_id: int) -> None:
        """Decides, from the first plain token, whether the row begins to think."""
        assert self._marks is not None
        text = decode_ids(self._tokenizer, [next_plain_id], control=True).strip()
        self.undecided = False
        # a tag may be several tokens, but a lone "<" begins an answer in HTML as well
        self._thinking = len(text) > 1 and self._marks.open.startswith(text)

    def take(self, token: int, prompted_top: int | None) -> None:
        """Takes the chosen token.

        Args:
            token: its id.
            prompted_top: the second stream's top token at this step; None where it was not asked.
        """
        self.ids.append(token)
        if self.wants_contrast:
            self.window -= 1
            if self._follows_track and token != prompted_top:
                self.window = 0
        elif self._thinking and self._closes_thinking():
            self._thinking = False

    @property
    def is_full(self) -> bool:
        """Whether a stream that the next token needs has no position left in the model's context."""
        prompts = self._prompts if self.wants_contrast else self._prompts[:1]
        return self._limit is not None and max(map(len, prompts)) + len(self.ids) >= self._limit

    def _closes_thinking(self) -> bool:
        assert self._marks is not None
        tail = decode_ids(self._tokenizer, self.ids[-_CLOSING_TAG_TOKENS:], control=True)
        return self._marks.close in tail


def read_rows(ids: Any, mask: Any, name: str, pad: torch.Tensor | None = None) -> list[Ids]:
    """The token ids of each row without its padding, on whichever side that is.

    Args:
        ids: int [rows, tokens]; or a list of rows, as lists of ids, of any lengths.
        mask: [rows, tokens], 0 at padding; None where there is none.
        name: what the ids are called.
        pad: the token that may pad them where there is no mask; None to take all of each row.

    Raises:
        PromptError: the mask has another shape or is missing, or a row has no token.
    """
    if isinstance(ids, torch.Tensor) and ids.dim() == 1:
        ids = ids.unsqueeze(0)
    listed: list[Any] = list(ids.tolist() if isinstance(ids, torch.Tensor) else ids)
    if listed and isinstance(listed[0], int):
        listed = [listed]
    rows = [tuple(int(token) for token in row) for row in listed]
    if mask is not None:
        kept = torch.as_tensor(mask)
        seen = (kept.unsqueeze(0) if kept.dim() == 1 else kept).tolist()
        if [len(row) for row in seen] != [len(row) for row in rows]:
            raise PromptError(f"The attention mask of {name} has another shape than they have.")
        rows = [
            tuple(token for token, keep in zip(row, keeps, strict=True) if keep)
            for row, keeps in zip(rows, seen, strict=True)
        ]
    elif isinstance(ids, torch.Tensor) and pad is not None and _looks_padded(rows, int(pad)):
        raise PromptError(
            f"Some rows of {name} begin or end with the padding token, and no attention mask tells why.",
            f"Give {name.replace('input_ids', 'attention_mask')} as well.",
        )
    for place, row in enumerate(rows):
        if not row:
            raise PromptError(f"Row {place} of {name} is empty: it has no token.")
    return rows


def _looks_padded(rows: Sequence[Ids], pad: int) -> bool:
    """Whether some rows, and not all, have the padding token at an end: the longest has none."""
    return any(0 < sum(row[end : end + 1 or None] == (pad,) for row in rows) < len(rows) for end in (0, -1))


def check_room(prompts: Sequence[Ids], prompted: Sequence[Ids], limit: int | None) -> None:
    """Refuses prompts that leave no room for an answer.

    Raises:
        PromptError: a prompt is as long as the model's context.
    """
    for place, (plain, other) in enumerate(zip(prompts, prompted, strict=True)):
        longest = max(len(plain), len(other))
        if limit is not None and longest >= limit:
            extra = f" with its contrast prompt ({len(plain)} without)" if longest > len(plain) else ""
            raise PromptError(
                f"Row {place} of input_ids is {longest} tokens long{extra}, and the model's context is "
                f"{limit}, the answer included.",
                "Shorten the prompt, or use a model with a longer context.",
            )
