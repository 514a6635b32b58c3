"""The routes that answer, from the request to its response: prompts made, decoding submitted, events sent on.

A client that leaves, at whichever point, frees its slot before the scheduler's next step.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
from fastapi import Depends, FastAPI, Request
from pydantic_core import to_json
from starlette.responses import Response

from adacd_cli.events import Finished, Started, TokenStep
from adacd_cli.profiles.store import applied
from adacd_cli.server.description import Body, Completion, describes, read_body
from adacd_cli.server.errors import ApiError, refused
from adacd_cli.server.metrics import Metrics
from adacd_cli.server.openai_format import ChatFormat, TextFormat
from adacd_cli.server.params import Params, conversation_of, read_params
from adacd_cli.server.schema import MAX_CHOICES, ChatRequest, CommonRequest, CompletionRequest
from adacd_cli.server.state import ServerState
from adacd_cli.server.streaming import (
    ChoiceEvent,
    ChunkWriter,
    EventStream,
    Told,
    events_of,
    merged,
    total_usage,
)
from adacd_cli.server.translation import Translation
from adacd_cli.server.worker import Job, Worker

if TYPE_CHECKING:
    from adacd_cli.prompts import Prompts

_RENDERED_AT_ONCE = 4
_COMPILED_AT_ONCE = 2

Form = TypeVar("Form", bound=ChatFormat)


class Responder:
    """Answers requests through a worker; raises ApiError where one is refused, or fails before its first byte."""

    def __init__(self, state: ServerState, worker: Worker, metrics: Metrics) -> None:
        self.worker, self.state, self._metrics = worker, state, metrics
        self._rendering = anyio.CapacityLimiter(_RENDERED_AT_ONCE)
        self._compiling = anyio.CapacityLimiter(_COMPILED_AT_ONCE)

    def add_routes(self, app: FastAPI) -> None:
        """Adds the routes to the application."""
        from adacd_cli.prompts import text_prompts_for

        @app.post(
            "/v1/chat/completions", dependencies=[Depends(self.check)], **describes(ChatRequest, Completion)
        )
        async def chat(request: Request) -> Response:
            """Answers a conversation."""
            return await self.chat(request, await read_body(request, ChatRequest), ChunkWriter())

        @app.post(
            "/v1/completions", dependencies=[Depends(self.check)], **describes(CompletionRequest, Completion)
        )
        async def completions(request: Request) -> Response:
            """Continues texts."""
            body = await read_body(request, CompletionRequest)
            tokenizer, params = self._params_of(body)
            given, answers = body.prompts, body.n or 1
            if answers * len(given) > MAX_CHOICES:
                raise refused(f"`n` answers to every prompt are at most {MAX_CHOICES} together.", "n")
            texts = [[each] if isinstance(each, str) else [""] * len(each) for each in given]
            for each in texts:
                self.state.check_size(each, "prompt", params)
            forms = self._forms(TextFormat, params, answers * len(given))
            self.state.log(forms[0].id, prompt=body.prompt)
            renders = [partial(text_prompts_for, tokenizer, each, params.settings) for each in given]
            if body.echo:
                self._echo(given, forms, answers)
            score = params.top_logprobs if body.echo else None
            return await self._respond(request, renders, "prompt", forms, ChunkWriter(), score)

    async def check(self) -> None:
        """Refuses a request that cannot be answered now, before its body is read for nothing."""
        self.worker.check()

    async def chat(self, request: Request, body: ChatRequest, writer: ChunkWriter) -> Response:
        """Answers a conversation in the writer's format."""
        render, params = self._prepare(body)
        forms = self._forms(ChatFormat, params, body.n or 1)
        self.state.log(
            forms[0].id, prompt=[{"role": each.role, "content": each.text} for each in body.messages]
        )
        return await self._respond(request, [render], "messages", forms, writer)

    def _prepare(self, body: ChatRequest) -> tuple[Callable[[], Prompts], Params]:
        from adacd_cli.prompts import prompts_for
        from adacd_cli.prompts.build import strings_in

        tokenizer, params = self._params_of(body)
        conversation = conversation_of(body, self.state.settings.system)
        if params.json_schema is not None and conversation.messages[-1].role == "assistant":
            name = params.json_schema[1]
            raise refused(f"`{name}` cannot hold an answer to JSON that has begun already.", name)
        texts = ["".join((each.content, *strings_in(each.extra))) for each in conversation.messages]
        self.state.check_size([conversation.system or "", *texts], "messages", params)
        return partial(prompts_for, tokenizer, conversation, params.settings), params

    def add_translated(
        self,
        app: FastAPI,
        path: str,
        kind: type[Body],
        chat_of: Callable[[Body], Translation],
        writer: Callable[[Body], ChunkWriter],
        *,
        stream: str = ChunkWriter.media_type,
        unasked: Callable[[Body], dict[str, Any] | None] = lambda body: None,
    ) -> None:
        """Adds a route of another format: its body, the same as a chat's, and how its answer is written. `unasked`
        gives the response to a body that asks nothing."""

        @app.post(path, dependencies=[Depends(self.check)], **describes(kind, stream=stream))
        async def answer(request: Request) -> Response:
            body = await read_body(request, kind)
            if (response := unasked(body)) is not None:
                return Response(to_json(response), media_type="application/json")
            translation = chat_of(body)
            with translation.errors():
                return await self.chat(request, translation.request(), writer(body))

    async def count_tokens(self, translation: Translation) -> tuple[int, Sequence[str]]:
        """How long the prompt of such a request is, and the warnings of the request."""
        with translation.errors():
            render, params = self._prepare(translation.request())
            checked = partial(self.state.render, render, "messages", params)
            prompts = await anyio.to_thread.run_sync(checked, limiter=self._rendering)
            return len(prompts.base.ids), (*params.warnings, *prompts.warnings)

    def _params_of(self, body: CommonRequest) -> tuple[Any, Params]:
        self.state.check_model(body.model)
        assert self.state.model is not None
        params = read_params(body, self.state.settings, self.state.max_answer_tokens)
        params = replace(params, settings=applied(params.settings, self.state.model.profile))
        self.state.warn(params.warnings)
        return self.state.model.tokenizer, params

    def _echo(self, given: Sequence[str | list[int]], forms: Sequence[TextFormat], answers: int) -> None:
        """Has every answer begin with its prompt; what a tokenizer begins texts with is shown if it was given."""
        from adacd_cli.engine.detokenize import decode_ids
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

    def _forms(self, kind: type[Form], params: Params, answers: int) -> list[Form]:
        first = kind(self.state.model_id, params, self.state.token_bytes)
        given = self.state.model_id, params, self.state.token_bytes, first
        return [first, *(kind(*given, index) for index in range(1, answers))]

    async def _respond(
        self,
        request: Request,
        renders: Sequence[Callable[[], Prompts]],
        param: str,
        forms: Sequence[ChatFormat],
        writer: ChunkWriter,
        score: int | None = None,
    ) -> Response:
        """Answers each of the prompts, from the field `param`, as often as there are forms for it.

        `score`: how many log-probabilities to tell of each token of the prompts besides its own; None for none.
        """
        from adacd_cli.engine import Request as DecodingRequest

        params = forms[0].params
        grammar = None
        if params.json_schema is not None:
            compile = partial(self.state.grammar, *params.json_schema)
            grammar = await anyio.to_thread.run_sync(compile, limiter=self._compiling)
        jobs = self.worker.open(len(forms))
        answers = len(forms) // len(renders)
        seed = params.settings.seed
        try:
            for place, (job, form) in enumerate(zip(jobs, forms, strict=True)):
                number = place % answers
                if number == 0:
                    checked = partial(self.state.render, renders[place // answers], param, params)
                    prompts = await anyio.to_thread.run_sync(checked, limiter=self._rendering)
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
            events = events_of(jobs)
            if params.stream:
                begun: list[ChoiceEvent] = []
                while sum(isinstance(event, Started) for _, event in begun) < len(jobs):
                    begun += await events.__anext__()  # what is refused is refused by its status
                chunks = self._chunks(begun, events, forms, writer, answers)
                return EventStream(chunks, partial(self._end, jobs), writer.media_type)
        except BaseException:
            self._leave(jobs)
            raise
        return await self._whole(request, jobs, forms, writer, answers)

    def _leave(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.worker.leave(job)

    def _end(self, jobs: Sequence[Job]) -> None:
        if not any(job.closed for job in jobs):  # they are where one fails
            self._metrics.left.inc()
        self._leave(jobs)

    async def _whole(
        self,
        request: Request,
        jobs: Sequence[Job],
        forms: Sequence[ChatFormat],
        writer: ChunkWriter,
        answers: int,
    ) -> Response:
        """The whole answer, unless the client leaves."""

        async def collect() -> dict[str, Any]:
            ends: dict[int, Finished] = {}
            async for events in events_of(jobs):
                for choice, event in events:
                    if isinstance(event, Finished):
                        self.state.log(forms[choice].id, answer=event.text)
                        ends[choice] = event
                    else:
                        forms[choice].add(event)
            return writer.whole(
                merged([form.response(ends[choice]) for choice, form in enumerate(forms)], answers)
            )

        async def disconnected() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        answer, left = asyncio.ensure_future(collect()), asyncio.ensure_future(disconnected())
        try:
            await asyncio.wait((answer, left), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return Response(to_json(answer.result()), media_type="application/json")
            return Response(status_code=499)  # nobody reads it
        finally:
            answer.cancel()
            left.cancel()
            self._end(jobs)

    async def _chunks(
        self,
        begun: Sequence[ChoiceEvent],
        events: AsyncIterator[list[ChoiceEvent]],
        forms: Sequence[ChatFormat],
        writer: ChunkWriter,
        answers: int,
    ) -> AsyncIterator[bytes]:
        starts = [event for _, event in begun if isinstance(event, Started)]
        yield writer.begin(forms[0].head, starts[0].unprompted_tokens)
        usages: dict[int, dict[str, Any]] = {}

        def written(choice: int, event: Told) -> bytes:
            form, chunk = forms[choice], None
            if isinstance(event, Finished):
                self.state.log(form.id, answer=event.text)
                usages[choice] = form.usage()
                return writer.chunk(form.final_chunk(event))
            form.add(event)
            if isinstance(event, Started):
                chunk = form.opening_chunk(event)
            elif isinstance(event, TokenStep):
                chunk = form.token_chunk(event)
            return b"" if chunk is None else writer.chunk(chunk)

        yield b"".join(written(*each) for each in begun)
        try:
            async for some in events:
                yield b"".join(written(*each) for each in some)
        except ApiError as error:
            yield writer.fail(error.body)
            return
        if forms[0].params.usage:
            usage = total_usage([usages[choice] for choice in range(len(forms))], answers)
            yield writer.chunk(forms[0].usage_chunk(usage))
        yield writer.end()
