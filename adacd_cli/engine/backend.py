"""The seam between what to decode next and who computes it: a backend of sequences.

A sequence is token ids with a KV cache. The scheduler opens, extends, forks, trims and closes sequences; how
they are batched, where their keys and values lie and what a forward costs is the backend's own business.
Every backend passes `tests/backend_contract.py`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from adacd_cli.engine.model import LanguageModel

SequenceId = int

Weights = Hashable
"""Which weights read a sequence: `BASE`, or the key of an extra that is loaded beside them, such as
("draft", "path/to/model")."""

BASE: Weights = "base"


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do.

    Attributes:
        device: where logits arrive, and where the rules therefore run.
        vocab_size: tokens in the vocabulary; None where only the logits tell.
        context_length: positions of the base weights; None where the model names none.
        full_logits: whether every token's logit is always there; False where only the most probable ones are
            told, and `Need` says how many.
        fork: whether `open(like=…)` takes over what is computed; otherwise a prefix is prefilled again.
        trim: whether a sequence can go back; a running state (Mamba) cannot.
        free_run: whether it can decode a stretch by itself (a server).
        run_ahead: whether `Extend.tokens` may be a tensor on the device that the host has not seen.
        prefill_chunk: how many prompt tokens are worth one forward; None where prompts are read whole.
        max_sequences: how many requests run at once where nobody says; None where memory decides.
    """

    device: torch.device
    vocab_size: int | None = None
    context_length: int | None = None
    full_logits: bool = True
    fork: bool = True
    trim: bool = True
    free_run: bool = False
    run_ahead: bool = False
    prefill_chunk: int | None = None
    max_sequences: int | None = None


@dataclass(frozen=True)
class Need:
    """What is asked of the logits of an `Extend`; a backend with full logits gives everything anyway.

    Attributes:
        positions: how many of the last positions; 0 for none, as for a prompt's chunk that is not the last.
        top: at least this many of the most probable tokens, where not all are given.
        floor: besides, every token whose log-probability is at least the most probable one's plus this many
            nats (β of a plausibility mask is log β); None for no such bound.
        ids: besides, these tokens.
    """

    positions: int = 1
    top: int = 1
    floor: float | None = None
    ids: tuple[int, ...] = ()


NOTHING = Need(positions=0)
NEXT = Need()


@dataclass(frozen=True)
class Extend:
    """Tokens to be fed to a sequence, and what is asked of the logits after them.

    Attributes:
        sequence: an open sequence.
        tokens: a prompt's chunk, or one token; int64 [n] on the device where the backend can `run_ahead`.
            Nothing is fed where it is empty: more is asked of the position that was fed last (only where
            logits are not full).
        need: what is asked.
    """

    sequence: SequenceId
    tokens: Sequence[int] | torch.Tensor
    need: Need = NEXT


@dataclass(frozen=True, eq=False)
class Logits:
    """The logits of the last positions of one `Extend`.

    Attributes:
        batch: float32 [rows, positions, vocab]; log-probabilities where a server gives those. A token whose
            value is not told stands at its share of what is left, so that a softmax gives the told ones
            their probabilities.
        row: which row is the sequence's. Rows of one forward share `batch`, so that a step over all of them
            needs no copy.
        told: the tokens of the last position whose values were told, the most probable first, then those of
            `Need.ids`; None where all were.
        listed: how many of `told` are the most probable ones: every token that is not told is at most as
            probable as the last of them.
        exhausted: whether asking for more would give nothing more.
    """

    batch: torch.Tensor
    row: int
    told: tuple[int, ...] | None = None
    listed: int = 0
    exhausted: bool = True

    def at(self, position: int = -1) -> torch.Tensor:
        """The logits of one position, float32 [1, vocab]."""
        return self.batch[self.row : self.row + 1, position]


class Pending(Protocol):
    """What `forward` gives for an `Extend`: done at once where the model runs in this process."""

    def done(self) -> bool:
        """Whether `result` would not have to wait."""

    def result(self) -> Logits | None:
        """The logits; None where none were asked for.

        Raises:
            AdacdError: this sequence's request failed (ServerError); others may go on.
        """

    def cancel(self) -> None:
        """Nobody waits for it any more."""


@dataclass(frozen=True)
class SampledToken:
    """A token that a backend chose by itself.

    Attributes:
        token_id: id in the vocabulary.
        logprob: its log-probability in nats.
        top: (id, log-probability) of the most probable tokens of its position, the most probable first; at
            least one.
        last: whether the backend ends the answer with it, though its id may not say so.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    last: bool = False


@dataclass(frozen=True)
class Sampling:
    """How a backend chooses tokens by itself.

    Attributes:
        temperature: 0 is greedy.
        top_p: 1 is off.
        top_k: 0 is off.
        seed: of the backend's own generator; None where it is greedy.
        top: how many of the most probable tokens of each position are told, at least 1.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    top: int = 1


class FreeRun(Protocol):
    """A stretch that a backend decodes by itself."""

    def take(self) -> list[SampledToken]:
        """The tokens that have come since; does not wait.

        Raises:
            AdacdError: it broke off, after everything that came was taken.
        """

    def done(self) -> bool:
        """Whether nothing more will come, and all was taken."""

    def close(self) -> None:
        """Ends it; what was taken belongs to the sequence from now on."""


class Backend(Protocol):
    """Who computes: torch in this process, llama.cpp, or somebody's server."""

    model: LanguageModel
    capabilities: Capabilities

    def open(self, weights: Weights = BASE, *, like: SequenceId | None = None, length: int = 0) -> SequenceId:
        """A new sequence: empty, or a fork of the first `length` tokens of another with the same weights.

        Raises:
            ModelError: no such weights are loaded.
        """

    def alike(self, weights: Weights, first: int, second: int) -> bool:
        """Whether texts of these lengths have the same keys as far as they begin alike; so also whether one
        can be forked for the other. Not so where RoPE depends on the length.

        Raises:
            ModelError: no such weights are loaded.
        """

    def tokens(self, sequence: SequenceId) -> Sequence[int]:
        """What a sequence was fed."""

    def trim(self, sequence: SequenceId, length: int) -> None:
        """Takes back all but the first `length` tokens; only where `capabilities.trim`."""

    def close(self, sequences: Sequence[SequenceId]) -> None:
        """Lets sequences go; those that are closed already, or never were open, are passed over."""

    def forward(self, work: Sequence[Extend]) -> Sequence[Pending]:
        """ONE step over all the work: a forward where the model runs here.

        Raises:
            OutOfMemoryError: memory is short; every sequence that was open is closed. Its message is what the
                device said.
            Exception: the backend as a whole failed, in its own words; likewise.
            KeyboardInterrupt: during a forward; likewise.
        """

    def free_run(self, sequence: SequenceId, sampling: Sampling, max_tokens: int) -> FreeRun:
        """Lets the backend decode by itself; only where `capabilities.free_run`."""

    def wait(self, seconds: float) -> None:
        """Returns as soon as something pending may have become done, or a free run has tokens."""

    def bytes_for(self, tokens: int) -> int:
        """About how many bytes a sequence of so many tokens holds; 0 where they are not held here."""

    def found_inexact(self) -> None:
        """A token was chosen without all the values that it depends on; never where logits are full."""

    def notices(self) -> Sequence[str]:
        """What the user should know and was not told yet, a sentence or two each."""


def stacked(logits: Sequence[Logits]) -> torch.Tensor:
    """The last positions of several sequences, float32 [sequences, vocab]; rows in order are not copied."""
    first = logits[0]
    if all(each.batch is first.batch for each in logits):
        rows = [each.row for each in logits]
        if rows == list(range(first.row, first.row + len(rows))):
            return first.batch[first.row : first.row + len(rows), -1]
        return first.batch[rows, -1]
    return torch.cat([each.at() for each in logits])
