"""What transformers' `generate` is given and keeps from a custom callable.

It hands neither its streamer nor an assistant model on, and says nothing: a streamer would get the prompt
and wait for ever. They stand in its frame while it calls, and are read from there.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from typing import Any

from transformers.generation.utils import GenerationMixin

_GENERATE = inspect.unwrap(GenerationMixin.generate).__code__
_FRAMES = 8
"""How many callers are looked at: there may be a wrapper or two in between."""


@dataclass(frozen=True)
class Withheld:
    """What `generate` did not say.

    Attributes:
        streamer: where tokens go; None for nowhere.
        prompt_is_due: whether the streamer has not been given the prompt yet.
        assistant_model: the model that was to draft; None for none.
        synced_gpus: whether processes were to run in step.
    """

    streamer: Any = None
    prompt_is_due: bool = False
    assistant_model: Any = None
    synced_gpus: bool = False

    @classmethod
    def by_generate(cls, streamer: Any) -> Withheld:
        """What the calling `generate` keeps; `streamer` is one that came by another way."""
        frame, looked_at = sys._getframe(1), 0
        while frame.f_code is not _GENERATE and frame.f_back is not None and looked_at < _FRAMES:
            frame, looked_at = frame.f_back, looked_at + 1
        kept = dict(frame.f_locals) if frame.f_code is _GENERATE else {}
        own = kept.get("streamer")
        return cls(
            streamer=own if streamer is None else streamer,
            prompt_is_due=streamer is not None and streamer is not own,
            assistant_model=kept.get("assistant_model"),
            synced_gpus=bool(kept.get("synced_gpus")),
        )
