"""The server behind a served model: what it is and serves, checked before anything is decoded, and the thread that
its requests run in. What it lacks is an error that says what to do; what is only worth knowing is a warning."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import anyio
from anyio.from_thread import BlockingPortal

from adacd_cli.backends.server.client import KEY_VARIABLES, START_IT, Client
from adacd_cli.backends.server.completions import Completions
from adacd_cli.backends.server.dialect import OWN_TOKENIZER, Dialect, ServerRefused, ServerUnavailable
from adacd_cli.backends.server.llamacpp import LlamaCpp
from adacd_cli.engine.backend import Sampling
from adacd_cli.errors import ModelError, UsageError

_LOG = "Its log may say more."
_FLAGS = {
    "llama.cpp": "llama-server needs no flag for it; a proxy in front of it may be the cause.",
    "vLLM": "Start vLLM with --max-logprobs -1 and without --skip-tokenizer-init.",
    "OpenAI": "adacd needs token ids both ways, as vLLM and llama.cpp's own server have them.",
}
_ONE_SLOT = (
    "The server has one slot, so the two streams evict each other from its cache, and each step processes a "
    "whole prompt again: start it with --parallel 2."
)
_NOT_COMPARED = (
    "The server does not say how it encodes text, so it could not be checked that --tokenizer is its own."
)
# how long the whole check may take: a server may load its model at the first request
LOOKED_OVER_SECONDS = 180.0
# what both tokenizers encode: words, digits and several scripts
_PIECES = (
    *("Hello", " world", " 12345", "ünïcödé", " Привет", "你好", "こんにちは", " 🙂"),
    *("\n\tdef f(x):", "Ω≈ç"),
)
_ASKED = 1000  # how many log-probabilities are requested: a server with a lower limit names it
_LEAVING_SECONDS = 2.0  # how long the end of its connections is waited for


@dataclass(frozen=True)
class Probe:
    """What a server can do; None is what it does not say."""

    dialect: Dialect
    model: str
    vocab: int  # tokens in its vocabulary
    context_length: int | None = None  # tokens that a request may have, prompt and answer
    slots: int | None = None  # how many requests it runs at once
    end_token: str | None = None  # the text of the token that ends its answers
    warnings: tuple[str, ...] = ()


class Server:
    """A server, checked by `inquiry`, and the `portal` to an event loop in a thread of its own that its requests
    run in, until the server is garbage or the process ends. Raises what `inquiry` does."""

    def __init__(self, client: Client, inquiry: Callable[[], Awaitable[Probe]]) -> None:
        self.address = client.address.base
        self.notices: deque[str] = deque()  # what the user should know, until somebody takes it
        self._noticed: set[str] = set()
        started: Future[BlockingPortal] = Future()
        thread = threading.Thread(target=anyio.run, args=(_loop, started), name="adacd-requests", daemon=True)
        thread.start()
        self.portal = started.result()
        self.close = weakref.finalize(self, _close, self.portal, thread, client)
        """Ends its connections; also called when nobody needs it any more."""
        try:
            self.probe = self.portal.call(inquiry)
        except BaseException:
            self.close()
            raise
        own = weakref.ref(self)  # the client is part of what closes it
        client.notify = lambda notice: None if (server := own()) is None else server._notice("slow", notice)

    @property
    def concurrency(self) -> int:
        """How many requests it is sent at once where nobody says: each has two streams."""
        return 16 if self.probe.slots is None else max(1, self.probe.slots // 2)

    def facts(self) -> dict[str, str]:
        """The server's dialect and the model that is requested there; no secret."""
        return {"server": self.probe.dialect.name, "served_model": self.probe.model}

    def found_inexact(self) -> None:
        """Notices that a token was chosen without all the values that it depends on."""
        most = self.probe.dialect.most
        self._notice(
            "inexact",
            "A token that could have been chosen was not among the "
            f"{'log-probabilities' if most is None else f'{most} log-probabilities'} that the server gives "
            "of a step, so not every token is certain (`exact` is false in its event). "
            "vLLM gives all of them with --max-logprobs -1.",
        )

    def _notice(self, about: str, text: str) -> None:
        if about not in self._noticed:  # once each
            self._noticed.add(about)
            self.notices.append(text)


async def _loop(started: Future[BlockingPortal]) -> None:
    async with BlockingPortal() as portal:
        started.set_result(portal)
        await portal.sleep_until_stopped()


def _close(portal: BlockingPortal, thread: threading.Thread, client: Client) -> None:
    async def end() -> None:
        await client.close()
        await portal.stop(cancel_remaining=True)

    if threading.current_thread() is thread:  # which may have collected the server as garbage
        threading.Thread(target=_close, args=(portal, thread, client), daemon=True).start()
    elif thread.is_alive():
        portal.start_task_soon(end)
        thread.join(_LEAVING_SECONDS)


async def examine(client: Client, served_model: str | None, tokenizer: Any) -> Probe:
    """Finds out what the server is, and tries one request of each kind. ModelError where it does not serve the
    model, gives too little, or has another tokenizer; UsageError where it serves several and none is named."""
    hint = _LOG
    try:
        with anyio.fail_after(LOOKED_OVER_SECONDS):
            return await _examine(client, served_model, tokenizer)
    except TimeoutError:
        what = f"cannot be used: it did not answer adacd's first requests within {LOOKED_OVER_SECONDS:g} s"
    except ServerUnavailable as failure:
        what = "cannot be used now" if failure.status else "cannot be reached"
        what = f"{what}: {failure.reason.rstrip('.')}"
        hint = failure.hint or (_LOG if failure.status else START_IT)
    raise ModelError(f"The server at {client.address.base} {what}.", hint)


async def _examine(client: Client, served_model: str | None, tokenizer: Any) -> Probe:
    address = client.address.base
    with _explained(
        address,
        f"There is no OpenAI-compatible server at {address}",
        "Name the address of vLLM or llama.cpp's server, like http://localhost:8000/v1.",
    ):
        data = (await client.ask(f"{address}/models")).get("data")
        if not isinstance(data, list):
            raise ServerRefused("it lists no models")
    listing = [each for each in data if isinstance(each, dict) and isinstance(each.get("id"), str)]
    entry = _choose(address, listing, served_model)
    model = str(entry["id"])
    props = await _props(client, entry, len(listing) > 1)
    dialect: Dialect = Completions(client, model, "vLLM" if entry.get("owned_by") == "vllm" else "OpenAI")
    if props:
        dialect = LlamaCpp(client, model, _whole_token(tokenizer))
    warning = await _compare_tokenizers(address, dialect, tokenizer)
    await _try(client, dialect, tokenizer)
    slots, end = _number(props, "total_slots"), props.get("eos_token")
    context = _number(props.get("default_generation_settings"), "n_ctx") or _number(entry, "max_model_len")
    end = end if isinstance(end, str) and end else None
    warnings = tuple(filter(None, (warning, _ONE_SLOT if slots == 1 else "")))
    vocab = _number(entry.get("meta"), "n_vocab") or 1 + max(tokenizer.get_vocab().values())
    return Probe(dialect, model, vocab, context, slots, end, warnings)


@contextmanager
def _explained(address: str, what: str, hint: str) -> Iterator[None]:
    """Makes an error of ours of a refusal: `what` it means, as the beginning of a sentence."""
    try:
        yield
    except ServerUnavailable:
        raise
    except ServerRefused as failure:
        if failure.status in (401, 403):
            what = f"The server at {address} does not accept the key"
            hint = f"Put its key into the environment variable {KEY_VARIABLES[0]}."
        raise ModelError(f"{what}: {failure.reason.rstrip('.')}.", failure.hint or hint) from None


def _choose(address: str, listing: Sequence[Mapping[str, Any]], wanted: str | None) -> Mapping[str, Any]:
    if not listing:
        raise ModelError(f"The server at {address} serves no model.", "Load one there first.")
    if wanted is None and len(listing) == 1:
        return listing[0]
    names = ", ".join(repr(each["id"]) for each in listing[:5])
    if len(listing) > 5:
        names += f" and {len(listing) - 5} more"
    if wanted is None:
        what = f"The server at {address} serves {len(listing)} models: {names}."
        raise UsageError(what, "Choose one with --served-model.")
    for entry in listing:
        aliases = entry.get("aliases")
        if wanted == entry["id"] or (isinstance(aliases, list) and wanted in aliases):
            return entry
    what = f"The server at {address} does not serve {wanted!r}; it serves {names}."
    raise ModelError(what, "Name one of these with --served-model.")


async def _props(client: Client, entry: Mapping[str, Any], several: bool) -> dict[str, Any]:
    """llama.cpp's own description of itself, of the model where it has several; empty where it is another."""
    owner = str(entry.get("owned_by", "")).lower()
    if owner == "vllm":
        return {}
    query = f"?model={quote(str(entry['id']), safe='')}" if several else ""
    with _explained(
        client.address.base,
        f"The llama.cpp server at {client.address.base} hides its own routes",
        "adacd needs /props, /tokenize and /completion beside /v1; let a proxy pass them on.",
    ):
        try:
            props = await client.ask(f"{client.address.root}/props{query}")
        except ServerRefused:
            if owner != "llamacpp":
                return {}
            raise
    return props if "default_generation_settings" in props else {}


async def _try(client: Client, dialect: Dialect, tokenizer: Any) -> None:
    """Makes one request of each kind; raises ModelError where one gives no log-probabilities by token ids."""
    prompt = [int(each) for each in tokenizer.encode("Hello", add_special_tokens=False)]
    wanted = min(_ASKED, len(tokenizer))
    what = f"The server at {client.address.base} ({dialect.name}) does not give what AdaCD needs"
    with _explained(client.address.base, what, _FLAGS[dialect.name]):
        await dialect.top([prompt], 5)
        (longer,) = await dialect.top([prompt], wanted)
        longer.check(len(tokenizer))
        async with aclosing(dialect.stream(prompt, Sampling(), 1)) as stream:
            if await anext(stream, None) is None:  # one that goes on past its one token is left
                raise ServerRefused("it gives no log-probabilities")
    if dialect.most is None and dialect.name == "OpenAI" and len(longer.ids) < wanted // 2:
        dialect.most = len(longer.ids)  # it gives fewer, and does not say so


def _number(values: Any, name: str) -> int | None:
    found = values.get(name) if isinstance(values, dict) else None
    return found if isinstance(found, int) and found > 0 else None


def _whole_token(tokenizer: Any) -> int:
    """A token whose text is whole characters; raises ModelError where there is none for a plain letter."""
    ids = tokenizer.encode("a", add_special_tokens=False)
    if not ids:
        raise ModelError('The tokenizer encodes "a" as nothing.', "Name the model's own with --tokenizer.")
    return int(ids[-1])


async def _compare_tokenizers(address: str, dialect: Dialect, tokenizer: Any) -> str:
    """A warning where they could not be compared, or some text is encoded in another way; ModelError where that is
    a control token of the tokenizer, or most of the text."""
    controls = _controls(tokenizer)
    different: list[str] = []
    found = ""
    for piece in (*controls, *_PIECES):  # one by one, so that one odd text does not make it another tokenizer
        mine = [int(each) for each in tokenizer.encode(piece, add_special_tokens=False)]
        theirs = None
        with suppress(ServerRefused):
            theirs = await dialect.tokenize(piece)
        if theirs is None:
            return _NOT_COMPARED
        if mine != theirs:  # controls come first
            different.append(piece)
            found = found or f"{piece!r} is {_ids(theirs)} there and {_ids(mine)} here."
    if not set(controls).isdisjoint(different) or len(different) > len(_PIECES) // 2:
        what = f"The server at {address} has another tokenizer than the one given: {found}"
        raise ModelError(what, OWN_TOKENIZER)
    return f"The server encodes some text in another way than the tokenizer: {found}" if different else ""


def _controls(tokenizer: Any) -> tuple[str, ...]:
    """The control tokens that prompts and ends are made of, as far as the tokenizer writes each as one."""
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    written = [token for token in added if token.strip() and token in template]
    found = [tokenizer.bos_token, tokenizer.eos_token, *written]
    return tuple(dict.fromkeys(token for token in found if isinstance(token, str) and token))[:16]


def _ids(ids: Sequence[int]) -> str:
    return "[" + ", ".join(str(each) for each in ids[:8]) + (", …]" if len(ids) > 8 else "]")
