"""The routes that answer: /v1/chat/completions and /v1/completions."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import anyio.to_thread
from fastapi import Depends, FastAPI, Request
from starlette.responses import Response

from adacd_cli.server.description import describes
from adacd_cli.server.errors import ApiError
from adacd_cli.server.openai_format import AnswerFormat, ChatFormat, TextFormat
from adacd_cli.server.params import Params, read_params
from adacd_cli.server.prompt_input import check_size, conversation_of, render_within_limits
from adacd_cli.server.schema import ChatRequest, CommonRequest, CompletionRequest
from adacd_cli.server.state import ServerState
from adacd_cli.server.streaming import Responder
from adacd_cli.server.worker import Worker

if TYPE_CHECKING:
    from adacd_cli.prompts import Prompts

_SMALL_BODY = 32 * 1024
"""Bytes of a body that is parsed at once; larger ones are parsed beside the event loop."""

Body = TypeVar("Body", bound=CommonRequest)


def _json_body(model: type[Body]) -> Any:
    """The dependency that reads a request's body; pydantic's ValidationError is for the error handler."""

    async def read(request: Request) -> Body:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
        # a page of another site can send anything but JSON without a preflight; it always names its origin
        if "origin" in request.headers and not is_json:
            message = "Send the request as JSON, with the header Content-Type: application/json."
            raise ApiError(415, message, code="not_json")
        body = await request.body()
        if len(body) <= _SMALL_BODY:
            return model.model_validate_json(body)
        return await anyio.to_thread.run_sync(model.model_validate_json, body)

    return Depends(read)


ChatBody = Annotated[ChatRequest, _json_body(ChatRequest)]
CompletionBody = Annotated[CompletionRequest, _json_body(CompletionRequest)]


def add_routes(app: FastAPI, state: ServerState, worker: Worker, responder: Responder) -> None:
    """Adds the routes to the application."""
    from adacd_cli.prompts import prompts_for, text_prompts_for

    async def check() -> None:
        worker.check()  # before a body is read for nothing

    def params_of(body: CommonRequest) -> tuple[Any, Params]:
        state.check_model(body.model)
        assert state.model is not None
        return state.model.tokenizer, read_params(body, state.settings, state.max_answer_tokens)

    async def respond(
        request: Request,
        form: AnswerFormat,
        render: Callable[[], Prompts],
        param: str,
        texts: Sequence[str],
        prompt: Any,
    ) -> Response:
        check_size(state, texts, param, form.params)

        def log(**values: Any) -> None:
            if state.log_prompts:  # as JSON, which escapes control characters
                print(json.dumps({"id": form.id, **values}), file=sys.stderr, flush=True)

        log(prompt=prompt)
        checked = partial(render_within_limits, state, render, param, form.params)
        return await responder.respond(request, checked, param, form, lambda text: log(answer=text))

    @app.post("/v1/chat/completions", dependencies=[Depends(check)], **describes(ChatRequest))
    async def chat(request: Request, body: ChatBody) -> Response:
        """Answers a conversation."""
        tokenizer, params = params_of(body)
        conversation = conversation_of(body, state.settings.system)
        form = ChatFormat(state.model_id, params, state.token_bytes)
        render = partial(prompts_for, tokenizer, conversation, params.settings)
        messages = [{"role": each.role, "content": each.text} for each in body.messages]
        texts = [each["content"] for each in messages]
        return await respond(request, form, render, "messages", texts, messages)

    @app.post("/v1/completions", dependencies=[Depends(check)], **describes(CompletionRequest))
    async def completions(request: Request, body: CompletionBody) -> Response:
        """Continues a text."""
        tokenizer, params = params_of(body)
        form = TextFormat(state.model_id, params, state.token_bytes)
        render = partial(text_prompts_for, tokenizer, body.prompt, params.settings)
        texts = [body.prompt] if isinstance(body.prompt, str) else [""] * len(body.prompt)
        return await respond(request, form, render, "prompt", texts, body.prompt)
