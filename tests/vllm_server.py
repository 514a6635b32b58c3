"""A stand-in for vLLM over loopback: its routes and the shapes of its responses, with the demo behind it.

The shapes are those of vLLM 0.32's OpenAI-compatible server (`/v1/models`, `/v1/completions` with
`return_tokens_as_token_ids`, `/tokenize`, errors), and so are what was found by running it (`make test-vllm`):
at most 128 `logprob_token_ids`, lists that are cut by such a request in the same batch, several prompts in one
request, and a dead engine as an error event of code 500 in a stream of status 200.
"""

from __future__ import annotations

import functools
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

NAME = "org/demo"

MOST_IDS = 128

DEAD = {
    "error": {
        "message": "EngineCore encountered an issue. See stack trace (above) for the root cause.",
        "type": "InternalServerError",
        "param": None,
        "code": 500,
    }
}
"""What a stream ends with, before [DONE], where the engine dies."""


def prompts_of(body: dict[str, Any]) -> list[list[int]]:
    """The prompts of a completion, one or several."""
    prompt = body["prompt"]
    return prompt if prompt and isinstance(prompt[0], list) else [prompt]


class Breaks(Exception):
    """The server hangs up without a word."""


@functools.cache
def _demo() -> tuple[Any, Any]:
    """The bundled model and its tokenizer, loaded once; float32, as the engine compares with."""
    from adacd_cli.config import Settings
    from adacd_cli.loading import load

    model = load(Settings(dtype="float32", threads=1))
    return model.model, model.tokenizer


@functools.lru_cache(maxsize=2000)
@torch.inference_mode()
def _distribution(ids: tuple[int, ...]) -> torch.Tensor:
    model, _ = _demo()
    return model(torch.tensor([list(ids)])).logits[0, -1].float().log_softmax(dim=-1)


class VllmServer:
    """The server.

    Attributes:
        most: --max-logprobs; -1 for no limit.
        key: --api-key; None for none.
        asked: (path, body, authorization) of each request, in their order.
        before: called with the body of each completion and, in a stream, with the number of the token that is
            to come (None before anything is sent); it may raise `Breaks`, or give (status, body, headers).
        edit: called with a request's body and a token's log-probabilities, which it may change.
        logprobs, by_id: whether completions have log-probabilities, and name tokens by their ids.
        endless: whether its streams go on past max_tokens and the end.
        scores_ids: whether it knows `logprob_token_ids`; one that does not ignores it.
        cut_next: how many lists are cut next, as by somebody else's `logprob_token_ids` in the same batch; those
            of one's own cut those that are computed meanwhile.
        owner: who serves, by its own word.
        tokenizes, repeats_ids: whether it has /tokenize, and whether a completion repeats its prompt's ids.
    """

    def __init__(self) -> None:
        self.most = 20
        self.key: str | None = None
        self.models = [NAME]
        self.asked: list[tuple[str, Any, str | None]] = []
        self.before: Callable[[dict[str, Any], int | None], tuple[int, Any, dict[str, str]] | None] = (
            lambda body, number: None
        )
        self.edit: Callable[[dict[str, Any], dict[str, Any]], None] = lambda body, choice: None
        self.logprobs = self.by_id = True
        self.scores_ids = self.endless = False
        self.cut_next = self._scoring = 0
        self.owner, self.tokenizes, self.repeats_ids = "vllm", True, False
        self.most_at_once = self._now = 0
        self._lock, self._model_lock = threading.Lock(), threading.Lock()
        self._http = _Quiet(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    @contextmanager
    def running(self) -> Iterator[VllmServer]:
        thread = threading.Thread(target=lambda: self._http.serve_forever(0.01), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()

    def completions(self) -> list[dict[str, Any]]:
        """The bodies of the completions that were asked for."""
        return [body for path, body, _ in self.asked if path == "/v1/completions"]

    def distribution(self, ids: tuple[int, ...]) -> torch.Tensor:
        """Log-probabilities of the token after these ids."""
        with self._model_lock:
            return _distribution(ids)

    def tokens(self, body: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any] | None, str | None]]:
        """Each token of a greedy completion, its log-probabilities and its finish_reason."""
        _, tokenizer = _demo()
        ids = tuple(body["prompt"])
        scored = body.get("logprob_token_ids") if self.scores_ids else None
        endless = self.endless and body.get("stream")
        for number in itertools.count() if endless else range(body["max_tokens"]):
            with self._step(scored is not None) as is_cut:
                logprobs = self.distribution(ids)
            token = int(logprobs.argmax())
            ids = (*ids, token)[-100:] if endless else (*ids, token)
            names = self._name
            top = logprobs.topk(min(body["logprobs"], len(logprobs)))
            listed = {names(int(each)): float(v) for each, v in zip(top.indices, top.values, strict=True)}
            if scored is not None:
                listed = {names(each): float(logprobs[each]) for each in (token, *scored)}
            elif is_cut:
                listed = {names(0): -9999.0, names(token): float(logprobs[token])}
            choice = {
                "text_offset": [number],
                "token_logprobs": [float(logprobs[token])],
                "tokens": [names(token)],
                "top_logprobs": [listed],
            }
            self.edit(body, choice)
            ended = token == tokenizer.eos_token_id
            last = "stop" if ended else "length" if number + 1 == body["max_tokens"] else None
            yield token, choice if self.logprobs else None, last
            if ended and not endless:
                return

    @contextmanager
    def _step(self, scores: bool) -> Iterator[bool]:
        """A step of the engine; gives whether another request in its batch scores ids."""
        with self._lock:
            self._scoring += scores
            is_cut = not scores and (self._scoring > 0 or self.cut_next > 0)
            self.cut_next -= not scores and self.cut_next > 0
        try:
            yield is_cut
        finally:
            with self._lock:
                self._scoring -= scores

    def _name(self, token: int) -> str:
        return f"token_id:{token}" if self.by_id else _demo()[1].decode([token])


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none."""


def _handler(server: VllmServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _do(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(content) if content else None
            server.asked.append((self.path, body, self.headers.get("Authorization")))
            try:
                if server.key is not None and self.headers.get("Authorization") != f"Bearer {server.key}":
                    self._say(401, {"error": "Unauthorized"})
                elif self.path == "/v1/models":
                    self._say(200, {"object": "list", "data": [self._card(name) for name in server.models]})
                elif self.path == "/tokenize" and server.tokenizes:
                    ids = _demo()[1].encode(body["prompt"], add_special_tokens=body["add_special_tokens"])
                    said = {"count": len(ids), "max_model_len": 512, "tokens": ids, "token_strs": None}
                    self._say(200, said)
                elif self.path == "/v1/completions":
                    with server._lock:
                        server._now += 1
                        server.most_at_once = max(server.most_at_once, server._now)
                    try:
                        self._complete(body)
                    finally:
                        with server._lock:
                            server._now -= 1
                else:
                    self._say(404, {"detail": "Not Found"})
            except (Breaks, OSError):
                self.close_connection = True

        def _card(self, name: str) -> dict[str, Any]:
            card = {"id": name, "object": "model", "created": 1, "owned_by": server.owner, "root": name}
            return card | {"parent": None, "max_model_len": 512, "permission": []}

        def _complete(self, body: dict[str, Any]) -> None:
            said = server.before(body, None)
            if said is not None:
                self._say(*said)
            elif isinstance(body["prompt"], str):
                ids = _demo()[1].encode(body["prompt"], add_special_tokens=body["add_special_tokens"])
                choice = {"text": "?"} | ({"prompt_token_ids": ids} if server.repeats_ids else {})
                self._say(200, {"choices": [choice]})
            elif body["model"] not in server.models:
                self._error(404, f"The model `{body['model']}` does not exist.", "NotFoundError")
            elif body["logprobs"] > server.most > -1:
                asked = f"Requested sample logprobs of {body['logprobs']}"
                self._error(400, f"{asked}, which is greater than max allowed: {server.most}")
            elif server.scores_ids and len(body.get("logprob_token_ids", ())) > MOST_IDS:
                asked = f"Requested logprob_token_ids of length {len(body['logprob_token_ids'])}"
                self._error(400, f"{asked}, which is greater than max allowed: {MOST_IDS}")
            elif body.get("stream"):
                self._stream(body)
            else:
                choices = []
                for index, prompt in enumerate(prompts_of(body)):
                    _, choice, last = next(server.tokens({**body, "prompt": prompt}))
                    choices.append(self._choice(choice, last, index))
                self._say(200, self._response(body, choices[::-1]))  # in any order, by `index`

        def _stream(self, body: dict[str, Any]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number, (_, choice, last) in enumerate(server.tokens(body)):
                said = server.before(body, number)
                if said is not None:
                    self._chunk(f"data: {json.dumps(said[1])}\n\n")
                    break
                response = self._response(body, [self._choice(choice, last)])
                self._chunk(f"data: {json.dumps(response)}\n\n")
            self._chunk("data: [DONE]\n\n")
            self._chunk("")

        def _chunk(self, text: str) -> None:
            content = text.encode()
            self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")

        def _choice(self, logprobs: Any, last: str | None, index: int = 0) -> dict[str, Any]:
            shown = {"text": "?", "logprobs": logprobs, "finish_reason": last, "stop_reason": None}
            return {"index": index, **shown}

        def _response(self, body: dict[str, Any], choices: list[dict[str, Any]]) -> dict[str, Any]:
            whole = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}
            return whole | {"choices": choices}

        def _error(self, status: int, message: str, kind: str = "BadRequestError") -> None:
            error = {"message": message, "type": kind, "param": None, "code": status}
            self._say(status, {"error": error})

        def _say(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _do

    return Handler
