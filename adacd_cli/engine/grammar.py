"""Answers that are JSON: which tokens may come next for the answer to fit a schema, told by llguidance.

A schema is compiled once a request, for the tokenizer in use, and each answer follows a fork of it. What that may
cost is bounded, here and at every token, because a schema may be anybody's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from adacd_cli.errors import ConfigurationError, MissingExtraError
from adacd_cli.http_util import one_line

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from adacd_cli.engine.model import LanguageModel

_LONGEST = 100_000
"""Characters of a schema at most."""

AT_A_SERVER = (
    "Answers cannot be held to JSON where a server has the model: its tokens are chosen there.",
    "Ask that server itself, or run the model in this process.",
)

_MAX_SYMBOLS, _MAX_STATES = 20_000, 50_000
"""Of a grammar and its lexer: a tenth of llguidance's own limits, which let a schema take half a minute."""

_BLANKS = r"\n? {0,20}"
"""Between two tokens of JSON: without a bound, a model that likes blanks writes nothing else."""


class Grammar:
    """Where one answer stands in its grammar.

    Attributes:
        allowed: which tokens may come next, bool [tokens] on the CPU; ends are among them where it may end.
        complete: whether nothing but an end may follow.
        error: why it cannot be followed any more; "" while it can.
    """

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher
        self._look()

    def fork(self) -> Grammar:
        """The same for another answer."""
        return Grammar(self._matcher.deep_copy())

    def take(self, token_id: int) -> None:
        """Goes on by a token of the answer."""
        self._matcher.consume_token(token_id)
        self._look()

    def _look(self) -> None:
        self.allowed = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8) > 0
        self.error = one_line(self._matcher.get_error())
        self.complete = self._matcher.is_stopped() and not self.error


class Grammars:
    """Makes the grammars of a model's answers; the first one waits until its vocabulary is read, a second or so."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    def of_json(self, schema: Mapping[str, Any] | str) -> Grammar:
        """The grammar of JSON that fits the schema, or its text; `oneOf` is read as `anyOf`.

        Raises:
            MissingExtraError: llguidance is not installed.
            ConfigurationError: the schema is wrong, too large, or uses what no grammar can hold an answer to; the
                tokenizer cannot be read; or a server chooses the tokens.
        """
        if self._model.server is not None:
            raise ConfigurationError(*AT_A_SERVER)
        try:
            from llguidance import LLMatcher, LLParserLimits
        except ImportError:
            raise MissingExtraError(
                "Answers in JSON need llguidance, which is not installed.", "pip install 'adacd[json]'"
            ) from None
        text = schema if isinstance(schema, str) else json.dumps(schema)
        if len(text) > _LONGEST:
            raise ConfigurationError(
                f"The JSON schema has {len(text):,} characters; at most {_LONGEST:,} are read."
            )
        options: Any = {"whitespace_pattern": _BLANKS, "coerce_one_of": True}
        try:
            compiled = LLMatcher.grammar_from_json_schema(text, defaults=options)
        except ValueError as error:
            raise ConfigurationError(f"The JSON schema cannot be read: {one_line(str(error))}.") from error
        limits = LLParserLimits(
            max_grammar_size=_MAX_SYMBOLS, max_lexer_states=_MAX_STATES, verbose_errors=False
        )
        found = Grammar(LLMatcher(self._tokens, compiled, log_level=0, limits=limits))
        if found.error:
            raise ConfigurationError(f"No answer can be held to the JSON schema: {found.error}.")
        return found

    @cached_property
    def _tokens(self) -> LLTokenizer:
        """The vocabulary as llguidance has it."""
        from llguidance import LLTokenizer, TokenizerWrapper
        from llguidance.hf import from_tokenizer

        tokenizer, ends = self._model.tokenizer, sorted(self._model.eos_ids) or None
        try:
            if self._model.engine == "llamacpp":
                return LLTokenizer(TokenizerWrapper(_Vocabulary(tokenizer)), eos_token=ends)
            return from_tokenizer(tokenizer, eos_token=ends)
        except Exception as error:  # of any kind, from Rust
            raise ConfigurationError(
                f"Answers cannot be held to JSON with this model's tokenizer: {one_line(str(error))}."
            ) from error


class _Vocabulary:
    """llama.cpp's tokenizer as llguidance reads one."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokens, self._encode = tokenizer.pieces, tokenizer.encode
        self.eos_token_id, self.bos_token_id = tokenizer.eos_token_id or 0, tokenizer.bos_token_id
        added = tokenizer.added_tokens_decoder
        self.special_token_ids = [index for index, token in added.items() if token.special]

    def __call__(self, text: str) -> list[int]:
        ids: list[int] = self._encode(text, False, control=False)
        return ids
