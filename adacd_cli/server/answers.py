"""The routes that answer: /v1/chat/completions and /v1/completions."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from adacd_cli.server.answering import Answering
from adacd_cli.server.asked import wanted
from adacd_cli.server.chat import ChatShape
from adacd_cli.server.completions import TextShape
from adacd_cli.server.description import described
from adacd_cli.server.reading import read
from adacd_cli.server.said import check_size, checked, conversation_of
from adacd_cli.server.schema import ChatRequest, CompletionRequest
from adacd_cli.server.served import Served
from adacd_cli.server.worker import Worker


def add_answers(app: FastAPI, served: Served, worker: Worker, answering: Answering) -> None:
    """Adds the routes to the application."""
    from adacd_cli.prompts import prompts_for, text_prompts_for

    limits = served.limits

    @app.post("/v1/chat/completions", **described(ChatRequest))
    async def chat(request: Request) -> Response:
        """Answers a conversation."""
        worker.check()  # before a body is read for nothing
        asked = await read(request, ChatRequest)
        model, param = served.named(asked.model), "messages"
        want = wanted(asked, served.settings, limits)
        conversation = conversation_of(asked, served.settings.system)
        texts = [each.text for each in asked.messages]
        check_size(model, texts, limits, served.longest_token, param, want.own_prompts)
        make = partial(prompts_for, model.tokenizer, conversation, want.settings)
        make = partial(checked, model, make, want.settings, limits, param, own=bool(want.own_prompts))
        shape = ChatShape(served.model_id, want, served.spelling)
        _log(served, shape.id, prompt=[{"role": each.role, "content": each.text} for each in asked.messages])
        return await answering.answer(request, make, shape, lambda text: _log(served, shape.id, answer=text))

    @app.post("/v1/completions", **described(CompletionRequest))
    async def completions(request: Request) -> Response:
        """Goes on with a text."""
        worker.check()
        asked = await read(request, CompletionRequest)
        model, param = served.named(asked.model), "prompt"
        want = wanted(asked, served.settings, limits)
        texts = [asked.prompt] if isinstance(asked.prompt, str) else [""] * len(asked.prompt)
        check_size(model, texts, limits, served.longest_token, param, want.own_prompts)
        make = partial(text_prompts_for, model.tokenizer, asked.prompt, want.settings)
        make = partial(checked, model, make, want.settings, limits, param, own=bool(want.own_prompts))
        shape = TextShape(served.model_id, want, served.spelling)
        _log(served, shape.id, prompt=asked.prompt)
        return await answering.answer(request, make, shape, lambda text: _log(served, shape.id, answer=text))


def _log(served: Served, number: str, **said: Any) -> None:
    """A line with what was said, where that is wanted; control characters are escaped."""
    if served.log_prompts:
        print(json.dumps({"id": number, **said}), file=sys.stderr, flush=True)
