"""What is served, and how: the values that every route looks at."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from adacd_cli.config import Settings
from adacd_cli.server.asked import Limits
from adacd_cli.server.errors import ApiError
from adacd_cli.server.spelling import Spelling

if TYPE_CHECKING:
    from adacd_cli.engine import LanguageModel


@dataclass
class Served:
    """What is served, and how.

    Attributes:
        settings: the server's own, which requests change for themselves.
        model_id: the model's name for clients.
        limits: what a request may take.
        key: asked on every route but /health; None for none.
        local: the address, where only this machine is to be answered; None for any host name.
        origins: the web pages that may ask from a browser.
        log_prompts: whether prompts and answers are written to stderr.
        quiet: whether no line a request is written.
        debug: whether tracebacks are written.
        model: the model, once it is loaded.
        longest_token: characters of the vocabulary's longest token, once it is loaded.
        spelling: how its tokens are written.
        created: when it was started, in seconds since 1970.
    """

    settings: Settings
    model_id: str = "demo"
    limits: Limits = field(default_factory=Limits)
    key: str | None = None
    local: str | None = None
    origins: tuple[str, ...] = ()
    log_prompts: bool = False
    quiet: bool = False
    debug: bool = False
    model: LanguageModel | None = None
    longest_token: int = 1
    spelling: Spelling = field(default_factory=lambda: Spelling(None, frozenset()))
    created: int = field(default_factory=lambda: int(time.time()))

    def take(self, model: LanguageModel) -> None:
        """The model is loaded."""
        self.longest_token = max(map(len, model.tokenizer.get_vocab()), default=1)
        self.spelling = Spelling(model.tokenizer, model.eos_ids)
        self.model = model

    def named(self, name: str | None) -> LanguageModel:
        """The model of that id; None stands for the one there is.

        Raises:
            ApiError: 404, another one is served.
        """
        if name not in (None, self.model_id):
            raise ApiError(
                404,
                f"There is no such model here; `{self.model_id}` is served.",
                param="model",
                code="model_not_found",
            )
        assert self.model is not None
        return self.model
