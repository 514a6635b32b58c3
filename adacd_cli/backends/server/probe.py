"""Looks a server over before anything is decoded: what it is, what it serves, and whether that is enough.

Everything that is missing is an error that says what to do; what is only worth knowing is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import anyio

from adacd_cli.backends.server.address import KEY_VARIABLES
from adacd_cli.backends.server.client import Client
from adacd_cli.backends.server.completions import Completions
from adacd_cli.backends.server.dialect import Dialect
from adacd_cli.backends.server.errors import START_IT, ServerRefused, ServerUnavailable
from adacd_cli.backends.server.llamacpp import LlamaCpp
from adacd_cli.backends.server.tokenizers import compare_tokenizers, whole_token
from adacd_cli.engine.backend import Sampling
from adacd_cli.errors import ModelError, UsageError

_LOG = "Its log may say more."
_KEY = f"Put its key into the environment variable {KEY_VARIABLES[0]}."
_FLAGS = {
    "llama.cpp": "llama-server needs no flag for it; a proxy in front of it may be the cause.",
    "vLLM": "Start vLLM with --max-logprobs -1 and without --skip-tokenizer-init.",
    "OpenAI": "adacd needs token ids both ways, as vLLM and llama.cpp's own server have them.",
}
LOOKED_OVER_SECONDS = 180.0
"""How long the whole check may take: a server may load its model at the first request."""

_ASKED = 1000
"""How many log-probabilities are requested: a server with a lower limit names it."""


@dataclass(frozen=True)
class Probe:
    """What a server can do; None is what it does not say.

    Attributes:
        address: where it is; no key in it.
        dialect: `llama.cpp`, `vLLM` or `OpenAI`.
        model: the served model.
        most_logprobs: how many log-probabilities of a position it gives; None for no known limit.
        context_length: tokens that a request may have, prompt and answer.
        vocab: tokens in its vocabulary.
        slots: how many requests it runs at once.
        end_token: the text of the token that ends its answers.
        tokenizer_compared: whether its token ids were compared with the tokenizer's.
        warnings: what the user should know, one sentence each.
    """

    address: str
    dialect: str
    model: str
    most_logprobs: int | None
    context_length: int | None
    vocab: int | None
    slots: int | None
    end_token: str | None
    tokenizer_compared: bool
    warnings: tuple[str, ...] = ()

    @property
    def concurrency(self) -> int:
        """How many requests it is asked at once where nobody says: each has two streams."""
        return 16 if self.slots is None else max(1, self.slots // 2)


async def examine(client: Client, served_model: str | None, tokenizer: Any) -> tuple[Dialect, Probe]:
    """Finds out what the server is, and tries one request of each kind.

    Args:
        client: its routes.
        served_model: the model to use; None where it serves exactly one.
        tokenizer: what the prompts are encoded with.

    Raises:
        ModelError: it is no such server, does not serve the model, gives too little, or has another
            tokenizer.
        UsageError: it serves several models and none is named.
    """
    address = client.address.base
    try:
        with anyio.fail_after(LOOKED_OVER_SECONDS):
            return await _examine(client, served_model, tokenizer)
    except TimeoutError:
        raise ModelError(
            f"The server at {address} cannot be used: it did not answer adacd's first requests "
            f"within {LOOKED_OVER_SECONDS:g} s.",
            _LOG,
        ) from None
    except ServerUnavailable as failure:
        what = "cannot be used now" if failure.status else "cannot be reached"
        raise ModelError(
            f"The server at {address} {what}: {failure.reason.rstrip('.')}.",
            failure.hint or (_LOG if failure.status else START_IT),
        ) from None


async def _examine(client: Client, served_model: str | None, tokenizer: Any) -> tuple[Dialect, Probe]:
    address = client.address.base
    listing = await _models(client)
    entry = _choose(address, listing, served_model)
    model = str(entry["id"])
    props = await _props(client, entry, len(listing) > 1)
    dialect: Dialect
    if props is not None:
        dialect = LlamaCpp(client, model, whole_token(tokenizer))
    else:
        dialect = Completions(client, model, "vLLM" if entry.get("owned_by") == "vllm" else "OpenAI")
    warnings: list[str] = []
    compared = await compare_tokenizers(address, dialect, tokenizer, warnings)
    await _try(client, dialect, tokenizer)
    slots = _number((props or {}).get("total_slots"))
    if slots == 1:
        warnings.append(
            "The server has one slot, so the two streams evict each other from its cache, and each step "
            "processes a whole prompt again: start it with --parallel 2."
        )
    if not compared:
        warnings.append(
            "The server does not say how it encodes text, so it could not be checked that --tokenizer is its "
            "own."
        )
    defaults, meta = _object(props, "default_generation_settings"), _object(entry, "meta")
    probe = Probe(
        address=address,
        dialect=dialect.name,
        model=model,
        most_logprobs=dialect.most,
        context_length=_number(defaults.get("n_ctx")) or _number(entry.get("max_model_len")),
        vocab=_number(meta.get("n_vocab")),
        slots=slots,
        end_token=end if isinstance(end := (props or {}).get("eos_token"), str) and end else None,
        tokenizer_compared=compared,
        warnings=tuple(warnings),
    )
    return dialect, probe


async def _models(client: Client) -> list[dict[str, Any]]:
    address = client.address.base
    with _explained(
        address,
        f"There is no OpenAI-compatible server at {address}",
        "Name the address of vLLM or llama.cpp's server, like http://localhost:8000/v1.",
    ):
        data = (await client.get(f"{address}/models")).get("data")
        if not isinstance(data, list):
            raise ServerRefused("it lists no models")
    entries = [each for each in data if isinstance(each, dict) and isinstance(each.get("id"), str)]
    if not entries:
        raise ModelError(f"The server at {address} serves no model.", "Load one there first.")
    return entries


@contextmanager
def _explained(address: str, what: str, hint: str) -> Iterator[None]:
    """Makes an error of ours of a refusal: `what` it means, as the beginning of a sentence."""
    try:
        yield
    except ServerUnavailable:
        raise
    except ServerRefused as failure:
        if failure.status in (401, 403):
            what, hint = f"The server at {address} does not accept the key", _KEY
        raise ModelError(f"{what}: {failure.reason.rstrip('.')}.", failure.hint or hint) from None


def _choose(address: str, listing: Sequence[Mapping[str, Any]], wanted: str | None) -> Mapping[str, Any]:
    names = [str(each["id"]) for each in listing]
    if wanted is None:
        if len(listing) == 1:
            return listing[0]
        raise UsageError(
            f"The server at {address} serves {len(names)} models: {_named(names)}.",
            "Choose one with --served-model.",
        )
    for entry in listing:
        aliases = entry.get("aliases")
        if wanted == entry["id"] or (isinstance(aliases, list) and wanted in aliases):
            return entry
    raise ModelError(
        f"The server at {address} does not serve {wanted!r}; it serves {_named(names)}.",
        "Name one of these with --served-model.",
    )


def _named(names: Sequence[str]) -> str:
    shown = [repr(name) for name in names[:5]]
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


async def _props(client: Client, entry: Mapping[str, Any], several: bool) -> dict[str, Any] | None:
    """llama.cpp's own description of itself, of the model where it has several; None where it is another."""
    owner = str(entry.get("owned_by", "")).lower()
    if owner == "vllm":
        return None
    query = f"?model={quote(str(entry['id']), safe='')}" if several else ""
    with _explained(
        client.address.base,
        f"The llama.cpp server at {client.address.base} hides its own routes",
        "adacd needs /props, /tokenize and /completion beside /v1; let a proxy pass them on.",
    ):
        try:
            props = await client.get(f"{client.address.root}/props{query}")
        except ServerRefused:
            if owner != "llamacpp":
                return None
            raise
    return props if "default_generation_settings" in props else None


async def _try(client: Client, dialect: Dialect, tokenizer: Any) -> None:
    """Makes one request of each kind.

    Raises:
        ModelError: it takes no token ids, gives no log-probabilities, or not the model's own.
    """
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


def _object(values: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    found = (values or {}).get(name)
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
