"""The seam between what to decode next and who computes it: a backend of sequences.

A sequence is token ids with a KV cache. The scheduler opens, extends, forks, trims and closes sequences; how they
are batched, where their keys and values lie and what a forward costs is the backend's own business. Every backend
passes `tests/backend_contract.py`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from adacd_cli.config.settings import CONTROLS
from adacd_cli.engine.model import LanguageModel

SequenceId = int
# which weights read a sequence: `BASE`, or the key of an extra that is loaded beside them, such as ("draft",
# "path/to/model")
Weights = Hashable
BASE: Weights = "base"


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do."""

    device: torch.device  # where logits arrive, and where the rules therefore run
    vocab_size: int | None = None  # None where only the logits tell
    context_length: int | None = None  # positions of the base weights; None where the model names none
    full_logits: bool = True  # False where only the most probable ones are told, and `Need` says how many
    fork: bool = True  # whether `open(like=…)` takes over what is computed; else it is prefilled again
    trim: bool = True  # whether a sequence can go back; a running state (Mamba) cannot
    free_run: bool = False  # whether it can decode a stretch by itself (a server)
    controls: frozenset[str] = frozenset(CONTROLS)  # which of these settings it can heed
    run_ahead: bool = False  # whether `Extend.tokens` may be a tensor that the host has not seen
    prefill_chunk: int | None = None  # prompt tokens worth one forward; None where prompts are read whole
    max_sequences: int | None = None  # requests at once where nobody says; None where memory decides


@dataclass(frozen=True)
class Need:
    """What is asked of the logits of an `Extend`; a backend with full logits gives everything anyway."""

    # how many of the last positions; 0 for none, as for a prompt's chunk that is not the last
    positions: int = 1
    top: int = 1  # at least this many of the most probable tokens
    # besides, every token whose log-probability is at least the most probable one's plus this many nats (a
    # plausibility mask's log β)
    floor: float | None = None
    ids: tuple[int, ...] = ()  # besides, these tokens


NOTHING = Need(positions=0)
NEXT = Need()


@dataclass(frozen=True)
class Extend:
    """Tokens to be fed to an open sequence, and what is asked of the logits after them: a prompt's chunk or one
    token, int64 [n] on the device where the backend can `run_ahead`. Where there are none, more is asked of the
    position that was fed last (only where logits are not full)."""

    sequence: SequenceId
    tokens: Sequence[int] | torch.Tensor
    need: Need = NEXT


@dataclass(frozen=True, eq=False)
class Logits:
    """The logits of the last positions of one `Extend`."""

    # float32 [rows, positions, vocab]; log-probabilities where a server gives those. A token whose value is not
    # told stands at its share of what is left, so that a softmax gives the told ones their probabilities. Rows of
    # one forward share it, so that a step over all of them needs no copy
    batch: torch.Tensor
    row: int  # which row is the sequence's
    # the tokens of the last position whose values were told, the most probable first, then those of `Need.ids`;
    # None where all were
    told: tuple[int, ...] | None = None
    # how many of `told` are the most probable ones: every token that is not told is at most as probable as the last
    # of them
    listed: int = 0
    exhausted: bool = True  # whether asking for more would give nothing more

    def at(self, position: int = -1) -> torch.Tensor:
        """The logits of one position, float32 [1, vocab]."""
        return self.batch[self.row : self.row + 1, position]


class Pending(Protocol):
    """What `forward` gives for an `Extend`: done at once where the model runs in this process."""

    def done(self) -> bool:
        """Whether `result` would not have to wait."""

    def result(self) -> Logits | None:
        """The logits; None where none were asked for. Raises what this sequence's request alone failed with."""

    def cancel(self) -> None:
        """Nobody waits for it any more."""


@dataclass(frozen=True)
class SampledToken:
    """A token that a backend chose by itself; log-probabilities are in nats."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]  # the position's most probable tokens, best first, at least one
    last: bool = False  # whether the backend ends the answer with it, though its id may not say so


@dataclass(frozen=True)
class Sampling:
    """How a backend chooses tokens by itself."""

    temperature: float = 0.0  # greedy
    top_p: float = 1.0  # off
    top_k: int = 0  # off
    seed: int | None = None
    top: int = 1  # how many of each position's most probable tokens are told, at least 1
    controls: Mapping[str, Any] = field(default_factory=dict)  # as `Settings.controls`, biases by id


class FreeRun(Protocol):
    """A stretch that a backend decodes by itself."""

    def take(self) -> list[SampledToken]:
        """The tokens that have come since, without waiting; raises what it broke off with after the last."""

    def done(self) -> bool:
        """Whether nothing more will come, and all was taken."""

    def close(self) -> None:
        """Ends it; what was taken belongs to the sequence from now on."""


class Backend(Protocol):
    """Who computes: torch in this process, llama.cpp, or somebody's server."""

    model: LanguageModel
    capabilities: Capabilities

    def open(self, weights: Weights = BASE, *, like: SequenceId | None = None, length: int = 0) -> SequenceId:
        """A new sequence: empty, or a fork of the first `length` tokens of another with the same weights. Raises
        ModelError where no such weights are loaded."""

    def alike(self, weights: Weights, first: int, second: int) -> bool:
        """Whether texts of these lengths have the same keys as far as they begin alike, so that one can be
        forked for the other; not so where RoPE depends on the length. Raises as `open`."""

    def tokens(self, sequence: SequenceId) -> Sequence[int]:
        """What a sequence was fed."""

    def trim(self, sequence: SequenceId, length: int) -> None:
        """Takes back all but the first `length` tokens; only where `capabilities.trim`."""

    def close(self, sequences: Sequence[SequenceId]) -> None:
        """Lets sequences go; those that are closed already, or never were open, are passed over."""

    def forward(self, work: Sequence[Extend]) -> Sequence[Pending]:
        """ONE step over all the work: a forward where the model runs here. Raises, with every sequence closed:
        OutOfMemoryError with what the device said; KeyboardInterrupt; or what the backend as a whole failed with,
        in its own words."""

    def free_run(self, sequence: SequenceId, sampling: Sampling, max_tokens: int) -> FreeRun:
        """Lets the backend decode by itself; only where `capabilities.free_run`."""

    def wait(self, seconds: float) -> None:
        """Returns as soon as something pending may have become done, or a free run has tokens."""
        return

    def bytes_for(self, tokens: int) -> int:
        """About how many bytes a sequence of so many tokens holds; 0 where they are not held here."""

    def found_inexact(self) -> None:
        """A token was chosen without all the values that it depends on; never where logits are full."""
        return

    def notices(self) -> Sequence[str]:
        """What the user should know and was not told yet, a sentence or two each."""
        return []


def stacked(logits: Sequence[Logits]) -> torch.Tensor:
    """The last positions of several sequences, float32 [sequences, vocab]; rows in order are not copied."""
    first, rows = logits[0], [each.row for each in logits]
    if any(each.batch is not first.batch for each in logits):
        return torch.cat([each.at() for each in logits])
    if rows == list(range(first.row, first.row + len(rows))):
        return first.batch[first.row : first.row + len(rows), -1]
    return first.batch[rows, -1]
