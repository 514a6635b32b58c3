"""A served model whose distributions are a script: the remote decoder without a server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence

import torch

from adacd_cli.remote.background import Background
from adacd_cli.remote.dialects.base import Said, Sampling, TopList
from adacd_cli.remote.model import RemoteModel, Server
from adacd_cli.remote.probe import Probe
from tests.fakes import BYTE_EOS, BYTE_VOCAB, ByteTokenizer, Script


class ScriptedDialect:
    """Answers with what `script(ids)` gives as logits, like a server over HTTP would.

    Args:
        script: logits of the token after these ids.
        most: how many log-probabilities it gives; None for all.

    Attributes:
        asked: (number of ids, count) of each question.
        opened: what each stream was opened with.
        running: how many questions and streams are under way, and `most_at_once` there ever were.
        before_token: called before each token of a stream with the number of the token; may raise.
        pause: seconds before each token.
        tells_values: whether it tells the log-probabilities of tokens that are named.
        cut: a stream ends without a word after so many tokens; None for never.
    """

    name = "scripted"

    def __init__(self, script: Script, most: int | None = None) -> None:
        self._script, self.most = script, most
        self.asked: list[tuple[int, int]] = []
        self.opened: list[tuple[tuple[int, ...], Sampling, int, int]] = []
        self.running = self.most_at_once = 0
        self.before_token: Callable[[int], None] = lambda number: None
        self.cut: int | None = None
        self.pause, self.tells_values = 0.0, False
        self._lock = threading.Lock()

    async def ask(self, ids: Sequence[int], count: int) -> TopList:
        self.asked.append((len(ids), count))
        with _Counted(self):
            await asyncio.sleep(self.pause)
            return self._list(ids, count)

    async def values(self, ids: Sequence[int], tokens: Sequence[int]) -> dict[int, float]:
        if not self.tells_values:
            return {}
        logprobs = torch.tensor(list(self._script(tuple(ids)))).log_softmax(dim=-1)
        return {token: float(logprobs[token]) for token in tokens}

    async def stream(
        self, ids: Sequence[int], sampling: Sampling, length: int, count: int
    ) -> AsyncGenerator[Said, None]:
        self.opened.append((tuple(ids), sampling, length, count))
        given = list(ids)
        with _Counted(self):
            for number in range(length):
                if number == self.cut:
                    return
                await asyncio.sleep(self.pause)
                self.before_token(number)
                top = self._list(given, BYTE_VOCAB)
                token = top.ids[0]
                given.append(token)
                yield Said(token, top.logprobs[0], self._list(given[:-1], count), last=token == BYTE_EOS)
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
    async def close(self) -> None:
        pass


def served(
    script: Script, *, most: int | None = None, context: int | None = None, concurrency: int = 16
) -> tuple[RemoteModel, ScriptedDialect]:
    """A RemoteModel over a script, with byte tokens, and the dialect that it asks."""
    dialect = ScriptedDialect(script, most)
    probe = Probe("http://scripted/v1", "scripted", "m", ("m",), most, context, BYTE_VOCAB, None, None, True)
    server = Server(Background(), _NoClient(), dialect, probe, BYTE_VOCAB)
    server.concurrency = concurrency
    model = RemoteModel(
        model=None,
        tokenizer=ByteTokenizer(),
        name="scripted",
        revision=None,
        eos_ids=frozenset({BYTE_EOS}),
        context_length=context,
        server=server,
    )
    return model, dialect
