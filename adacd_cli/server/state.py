"""The state of the server that every route reads: its settings, its limits and its model."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from adacd_cli.config import Settings
from adacd_cli.server.errors import ApiError
from adacd_cli.server.openai_format import TokenBytes

if TYPE_CHECKING:
    from adacd_cli.engine import LanguageModel


@dataclass
class ServerState:
    """What the server was started with, and its model once it is loaded.

    Attributes:
        settings: the server's own, which requests change for themselves.
        model_id: the model's name for clients.
        max_prompt_tokens: longest prompt; None for what the model's context takes.
        max_answer_tokens: longest answer that may be asked for; None for any.
        max_body_bytes: largest body of an HTTP request.
        key: required on every route but /health; None for none.
        local: the address, where requests under other host names are refused; None for any host name.
        origins: the web pages that may send requests from a browser.
        log_prompts: whether prompts and answers are written to stderr.
        quiet: whether no line is written for each request.
        debug: whether tracebacks are written.
        model: the model, once it is loaded.
        longest_token: characters of the vocabulary's longest token, once it is loaded.
        token_bytes: how its tokens are written.
        created: when the server was started, in seconds since 1970.
    """

    settings: Settings
    model_id: str = "demo"
    max_prompt_tokens: int | None = None
    max_answer_tokens: int | None = None
    max_body_bytes: int = 4 * 2**20
    key: str | None = None
    local: str | None = None
    origins: tuple[str, ...] = ()
    log_prompts: bool = False
    quiet: bool = False
    debug: bool = False
    model: LanguageModel | None = None
    longest_token: int = 1
    token_bytes: TokenBytes = field(default_factory=lambda: TokenBytes(None, frozenset()))
    created: int = field(default_factory=lambda: int(time.time()))

    def set_model(self, model: LanguageModel) -> None:
        """The model is loaded."""
        self.longest_token = max(map(len, model.tokenizer.get_vocab()), default=1)
        self.token_bytes = TokenBytes(model.tokenizer, model.eos_ids)
        self.model = model

    def check_model(self, name: str | None) -> None:
        """Refuses any model but the one that is served; None stands for it too.

        Raises:
            ApiError: 404.
        """
        if name not in (None, self.model_id):
            message = f"This server has no such model; it serves `{self.model_id}`."
            raise ApiError(404, message, param="model", code="model_not_found")
