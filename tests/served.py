"""A served model whose distributions are a script: the server backend without a server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence

import torch

from adacd_cli.backends.server.client import Address
from adacd_cli.backends.server.dialect import TopList
from adacd_cli.backends.server.server import Probe, Server
from adacd_cli.config import CONTROLS
from adacd_cli.engine import LanguageModel
from adacd_cli.engine.backend import SampledToken, Sampling
from tests.fakes import BYTE_EOS, BYTE_VOCAB, ByteTokenizer, Script


class ScriptedDialect:
    """Answers with what `script(ids)` gives as logits, like a server over HTTP would.

    Args:
        script: logits of the token after these ids.
        most: how many log-probabilities it gives; None for all.

    Attributes:
        asked: (prompts, count) of each request for lists.
        named: the tokens of each request for single values.
        opened: what each stream was opened with.
        running: how many requests and streams are under way, and `most_at_once` there ever were.
        before: called with the prompts of each request for lists; may raise.
        before_token: called before each token of a stream with the number of the token; may raise.
        pause: seconds before each answer and each token.
        scores_ids: whether it gives the log-probabilities of tokens that are named.
        left_in: the name of the thread in which its connections were closed; "" before.
        cut: a stream ends without a word after so many tokens; None for never.
    """

    name = "scripted"
    controls = frozenset(CONTROLS) - {"min_tokens"}

    def __init__(self, script: Script, most: int | None = None) -> None:
        self._script, self.most = script, most
        self.asked: list[tuple[list[tuple[int, ...]], int]] = []
        self.named: list[tuple[int, ...]] = []
        self.opened: list[tuple[tuple[int, ...], Sampling, int]] = []
        self.running = self.most_at_once = 0
        self.before: Callable[[list[tuple[int, ...]]], None] = lambda prompts: None
        self.before_token: Callable[[int], None] = lambda number: None
        self.cut: int | None = None
        self.pause, self.scores_ids, self.left_in = 0.0, False, ""
        self._lock = threading.Lock()

    async def top(self, prompts: Sequence[Sequence[int]], count: int) -> list[TopList]:
        given = [tuple(ids) for ids in prompts]
        self.asked.append((given, count))
        with _Counted(self):
            await asyncio.sleep(self.pause)
            self.before(given)
            return [self._list(ids, count) for ids in given]

    async def values(self, prompt: Sequence[int], tokens: Sequence[int]) -> dict[int, float]:
        self.named.append(tuple(tokens))
        logprobs = torch.tensor(list(self._script(tuple(prompt)))).log_softmax(dim=-1)
        return {token: float(logprobs[token]) for token in tokens}

    async def stream(
        self, prompt: Sequence[int], sampling: Sampling, max_tokens: int
    ) -> AsyncGenerator[SampledToken, None]:
        self.opened.append((tuple(prompt), sampling, max_tokens))
        given = list(prompt)
        with _Counted(self):
            for number in range(max_tokens):
                if number == self.cut:
                    return
                await asyncio.sleep(self.pause)
                self.before_token(number)
                best = self._list(given, BYTE_VOCAB)
                token = best.ids[0]
                top = self._list(given, sampling.top)
                given.append(token)
                pairs = tuple(zip(top.ids, top.logprobs, strict=True))
                yield SampledToken(token, best.logprobs[0], pairs, last=token == BYTE_EOS)
                if token == BYTE_EOS:
                    return

    async def tokenize(self, text: str) -> list[int] | None:
        return list(text.encode())

    def _list(self, ids: Sequence[int], count: int) -> TopList:
        logprobs = torch.tensor(list(self._script(tuple(ids)))).log_softmax(dim=-1).tolist()
        return TopList.of(list(enumerate(logprobs)), min(count, self.most or count))


class _Counted:
    def __init__(self, dialect: ScriptedDialect) -> None:
        self._dialect = dialect

    def __enter__(self) -> None:
        with self._dialect._lock:
            self._dialect.running += 1
            self._dialect.most_at_once = max(self._dialect.most_at_once, self._dialect.running)

    def __exit__(self, *error: object) -> None:
        with self._dialect._lock:
            self._dialect.running -= 1


class _NoClient:
    address = Address.parse("http://scripted/v1")

    def __init__(self, dialect: ScriptedDialect) -> None:
        self._dialect = dialect

    async def close(self) -> None:
        self._dialect.left_in = threading.current_thread().name


def served(
    script: Script, *, most: int | None = None, context: int | None = None, concurrency: int = 16
) -> tuple[LanguageModel, ScriptedDialect]:
    """A served model over a script, with byte tokens, and the dialect that it asks."""
    dialect = ScriptedDialect(script, most)

    async def inquiry() -> Probe:
        return Probe(dialect, "m", BYTE_VOCAB, context, slots=2 * concurrency)

    server = Server(_NoClient(dialect), inquiry)
    model = LanguageModel(
        model=None,
        tokenizer=ByteTokenizer(),
        name="scripted",
        revision=None,
        eos_ids=frozenset({BYTE_EOS}),
        context_length=context,
        server=server,
    )
    return model, dialect
