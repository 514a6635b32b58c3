"""The routes that answer: from a request's body to its prompts, which are submitted for decoding, and what
OpenAPI's description says of them. A client that leaves, at whichever point, frees its slot before the scheduler's
next step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio
import anyio.to_thread
from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.responses import Response

from adacd_cli.profiles.store import applied
from adacd_cli.server.errors import ApiError, refused
from adacd_cli.server.fields import JSON
from adacd_cli.server.openai_format import ChatFormat, TextFormat
from adacd_cli.server.params import Params, conversation_of, read_params
from adacd_cli.server.schema import MAX_CHOICES, ChatRequest, CommonRequest, CompletionRequest
from adacd_cli.server.state import ServerState
from adacd_cli.server.streaming import Reply
from adacd_cli.server.translation import ChunkWriter, Translation
from adacd_cli.server.worker import Worker

if TYPE_CHECKING:
    from adacd_cli.prompts import Prompts

_RENDERED_AT_ONCE = 4
_COMPILED_AT_ONCE = 2
_SMALL_BODY = 32 * 1024  # bytes of a body that is parsed at once; larger ones beside the event loop

Body = TypeVar("Body", bound=BaseModel)
Form = TypeVar("Form", bound=ChatFormat)


async def read_body(request: Request, model: type[Body]) -> Body:
    """A request's body; pydantic's ValidationError is for the error handler."""
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


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    error: ErrorDetail


class Completion(BaseModel):
    """An answer in OpenAI's format, and in `adacd` what adacd did; `seed` and `trace` only on request."""

    id: str
    object: Literal["chat.completion", "text_completion"]
    created: int
    model: str
    choices: list[JSON]
    usage: JSON
    adacd: JSON


ERRORS: dict[int | str, JSON] = {
    "4XX": {"model": ErrorResponse, "description": "The request is refused"},
    "5XX": {"model": ErrorResponse, "description": "The request failed"},
}


class Responder:
    """Answers requests through a worker; raises ApiError where one is refused, or fails before its first byte.
    `bodies` are those of the routes, in the mode of their description."""

    def __init__(self, state: ServerState, worker: Worker) -> None:
        self.worker, self.state = worker, state
        self.bodies: dict[type[BaseModel], Literal["validation"]] = {}
        self._rendering = anyio.CapacityLimiter(_RENDERED_AT_ONCE)
        self._compiling = anyio.CapacityLimiter(_COMPILED_AT_ONCE)

    def add_routes(self, app: FastAPI) -> None:

        @app.post("/v1/chat/completions", **self.describes(ChatRequest, Completion))
        async def chat(request: Request) -> Response:
            """Answers a conversation."""
            return await self._chat(request, await read_body(request, ChatRequest), ChunkWriter())

        @app.post("/v1/completions", **self.describes(CompletionRequest, Completion))
        async def completions(request: Request) -> Response:
            """Continues texts."""
            return await self._continue(request, await read_body(request, CompletionRequest))

    def add_translated(
        self,
        app: FastAPI,
        path: str,
        kind: type[Body],
        chat_of: Callable[[Body], Translation],
        writer: type[ChunkWriter],
        unasked: Callable[[Body], JSON | None] = lambda body: None,
    ) -> None:
        """Adds a route of another format: its body, the same as a chat's, and how its answer is written. `unasked`
        gives the response to a body that asks nothing."""

        @app.post(path, **self.describes(kind, stream=writer.media_type))
        async def answer(request: Request) -> Response:
            body = await read_body(request, kind)
            if (response := unasked(body)) is not None:
                return Response(to_json(response), media_type="application/json")
            translation = chat_of(body)
            with translation.errors():
                return await self._chat(request, translation.request(), writer(body), translation)

    def describes(
        self,
        body: type[BaseModel],
        answer: type[BaseModel] | None = None,
        stream: str = ChunkWriter.media_type,
    ) -> JSON:
        """Keywords of a route that answers a request with such a body: with an answer in JSON, or by a stream.
        Where no `answer` is given, both and the errors are in the words of another's format. A request that cannot
        be answered now is refused before its body is read for nothing."""

        async def check() -> None:
            self.worker.check()

        told: JSON = {"description": "The answer", "content": {stream: {}, "application/json": {}}}
        errors = {status: {"description": each["description"]} for status, each in ERRORS.items()}
        if answer is not None:
            told, errors = {"model": answer, "description": "The answer", "content": {stream: {}}}, ERRORS
        self.bodies[body] = "validation"
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}}
        return {
            "dependencies": [Depends(check)],
            "response_model": None,
            "responses": {200: told, **errors},
            "openapi_extra": {"requestBody": {"required": True, "content": content}},
        }

    async def count_tokens(self, translation: Translation) -> tuple[int, Sequence[str]]:
        """How long the prompt of such a request is, and the warnings of the request."""
        with translation.errors():
            render, params = self._prepare(translation.request(), translation)
            prompts = await self._render(render, "messages", params)
            return len(prompts.base.ids), (*params.warnings, *prompts.warnings)

    async def _chat(
        self, request: Request, body: ChatRequest, writer: ChunkWriter, origin: Translation | None = None
    ) -> Response:
        render, params = self._prepare(body, origin)
        forms = self._forms(ChatFormat, params, body.n or 1)
        told = [{"role": each.role, "content": each.text} for each in body.messages]
        self.state.log(forms[0].id, prompt=told)
        return await self._respond(request, [render], "messages", forms, writer)

    def _prepare(self, body: ChatRequest, origin: Translation | None) -> tuple[Callable[[], Prompts], Params]:
        from adacd_cli.prompts import prompts_for
        from adacd_cli.prompts.build import strings_in

        tokenizer, params = self._params_of(body, origin)
        conversation = conversation_of(body, self.state.settings.system)
        if params.json_schema is not None and conversation.messages[-1].role == "assistant":
            name = params.json_schema[1]
            raise refused(f"`{name}` cannot hold an answer to JSON that has begun already.", name)
        texts = ["".join((each.content, *strings_in(each.extra))) for each in conversation.messages]
        self.state.check_size([conversation.system or "", *texts], "messages", params)
        return partial(prompts_for, tokenizer, conversation, params.settings), params

    def _params_of(self, body: CommonRequest, origin: Translation | None = None) -> tuple[Any, Params]:
        self.state.check_model(body.model)
        assert self.state.model is not None
        params = read_params(body, self.state.settings, self.state.max_answer_tokens, origin)
        params = replace(params, settings=applied(params.settings, self.state.model.profile))
        self.state.warn(params.warnings)
        return self.state.model.tokenizer, params

    def _forms(self, kind: type[Form], params: Params, answers: int) -> list[Form]:
        own = self.state.model_id, params, self.state.token_bytes
        first = kind(*own)
        return [first, *(kind(*own, first.head, index) for index in range(1, answers))]

    async def _continue(self, request: Request, body: CompletionRequest) -> Response:
        from adacd_cli.prompts import text_prompts_for

        tokenizer, params = self._params_of(body)
        given, answers = body.prompts, body.n or 1
        if answers * len(given) > MAX_CHOICES:
            raise refused(f"`n` answers to every prompt are at most {MAX_CHOICES} together.", "n")
        for each in given:
            self.state.check_size([each] if isinstance(each, str) else [""] * len(each), "prompt", params)
        forms = self._forms(TextFormat, params, answers * len(given))
        self.state.log(forms[0].id, prompt=body.prompt)
        renders = [partial(text_prompts_for, tokenizer, each, params.settings) for each in given]
        if body.echo:
            self._echo(given, forms, answers)
        score = params.top_logprobs if body.echo else None
        return await self._respond(request, renders, "prompt", forms, ChunkWriter(), score)

    def _echo(self, given: Sequence[str | list[int]], forms: Sequence[TextFormat], answers: int) -> None:
        """Has every answer begin with its prompt; what a tokenizer begins texts with is shown if it was given."""
        from adacd_cli.engine.answer import decode_ids
        from adacd_cli.prompts.encode import beginning

        model = self.state.model
        assert model is not None
        if model.server is not None and forms[0].params.top_logprobs is not None:
            reason = "this model runs at a server, which does not tell the log-probabilities of a prompt"
            raise refused(f"`echo` cannot be used with `logprobs`: {reason}.", "echo")
        begin = beginning(model.tokenizer)
        for place, form in enumerate(forms):
            prompt = given[place // answers]
            if isinstance(prompt, str):
                form.repeat(prompt, len(begin))
            else:  # ids that there are not are refused where the prompt is made
                known = [each for each in prompt if each < len(model.tokenizer)]
                text = decode_ids(model.tokenizer, known, control=True)
                form.repeat(text, 0 if tuple(prompt[: len(begin)]) == begin else len(begin))

    async def _render(self, render: Callable[[], Prompts], param: str, params: Params) -> Prompts:
        checked = partial(self.state.render, render, param, params)
        return await anyio.to_thread.run_sync(checked, limiter=self._rendering)

    async def _respond(
        self,
        request: Request,
        renders: Sequence[Callable[[], Prompts]],
        param: str,
        forms: Sequence[ChatFormat],
        writer: ChunkWriter,
        score: int | None = None,
    ) -> Response:
        """Answers each of the prompts, from the field `param`, as often as there are forms for it. `score`: how
        many log-probabilities to tell of each token of the prompts besides its own; None for none."""
        from adacd_cli.engine import Request as DecodingRequest

        params, grammar = forms[0].params, None
        if params.json_schema is not None:
            compile = partial(self.state.grammar, *params.json_schema)
            grammar = await anyio.to_thread.run_sync(compile, limiter=self._compiling)
        jobs, answers = self.worker.open(len(forms)), len(forms) // len(renders)
        reply = Reply(self.state, self.worker, jobs, forms, answers, writer)
        seed = params.settings.seed
        try:
            for place, (job, form) in enumerate(zip(jobs, forms, strict=True)):
                number = place % answers
                if number == 0:
                    prompts = await self._render(renders[place // answers], param, params)
                form.warnings = (*params.warnings, *prompts.warnings)
                decoding = DecodingRequest(
                    prompts,
                    params.settings,
                    seed=None if seed is None else (seed + number) % 2**63,
                    candidates=params.candidates,
                    top_logprobs=params.top_logprobs,
                    grammar=grammar,
                )
                self.worker.submit(job, decoding, param, score)
            return await reply.respond(request)
        except BaseException:
            reply.leave()
            raise
