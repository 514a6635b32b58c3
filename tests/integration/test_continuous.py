"""Requests that come and go side by side: each answers as it does alone, whoever runs beside it."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adacd_cli.backends.torch import backend as torch_backend
from adacd_cli.backends.torch.backend import TorchBackend
from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation
from adacd_cli.engine import PrefixCache, Request, Scheduler, fitting_concurrency
from adacd_cli.events import Failed, Finished, FinishReason, Started, TokenStep
from adacd_cli.prompts import prompts_for
from adacd_cli.prompts.prompts import shared_length
from tests.fakes import decode, second
from tests.tiny import tiny_model

QUESTIONS = (
    "Hi",
    "How do I kill a Python process?",
    "Tell me about the weather in the north of the country when the winter begins, and what to wear then.",
)
SYSTEM = "You are a helpful assistant. Answer in a few words, and say so when you do not know."
FAMILIES = ("llama", "gemma2", "mistral", "gpt_neox")
MODELS = {family: tiny_model(family) for family in FAMILIES}
ALONE: dict = {}


def request_of(family, question, method, steps, tokens, temperature, system, placement):
    tokenizer = MODELS[family].tokenizer
    conversation = Conversation.ask(QUESTIONS[question], SYSTEM if system else None)
    own = Settings(
        method=method,
        contrast_steps=steps,
        max_new_tokens=tokens,
        temperature=temperature,
        contrast_placement=placement,
        draft=None,
    )
    return Request(prompts_for(tokenizer, conversation, own), own, seed=question)


def said(events):
    return [
        (step.token_id, step.decision, step.plain_token_id, step.text)
        for step in events
        if isinstance(step, TokenStep)
    ] + [(end.text, end.finish_reason, end.tokens) for end in events if isinstance(end, Finished)]


def alone(family, kind):
    key = family, kind
    if key not in ALONE:
        ALONE[key] = said(list(decode(MODELS[family], [request_of(family, *kind)])))
    return ALONE[key]


KINDS = st.tuples(
    st.integers(0, 2),
    st.sampled_from(["default", "adacd", "adacd-gated", "selfcd", "safedecoding", "prompt"]),
    st.sampled_from([0, 3, 10]),
    st.sampled_from([0, 1, 5, 14]),
    st.sampled_from([0.0, 0.9]),
    st.booleans(),
    st.sampled_from(["system", "user-start", "user-end"]),
)


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    family=st.sampled_from(FAMILIES),
    arrivals=st.lists(st.tuples(KINDS, st.integers(0, 6)), min_size=1, max_size=7),
    places=st.sampled_from([None, 1, 2, 5]),
    known=st.sampled_from([0, 60_000, 10**9]),
    ahead=st.booleans(),
    portion=st.sampled_from([5, 30, 512]),
)
def test_any_order_of_arrivals_gives_each_request_its_own_tokens(
    family, arrivals, places, known, ahead, portion
):
    backend = TorchBackend(MODELS[family])
    backend.capabilities = replace(backend.capabilities, run_ahead=ahead, prefill_chunk=portion)
    cache = PrefixCache(known) if known else None
    scheduler = Scheduler(backend, prefix_cache=cache, max_concurrency=places)
    coming = sorted(((step, kind) for kind, step in arrivals), key=lambda each: each[0])
    events: list = [[] for _ in coming]
    step = 0
    while step <= 6 or scheduler.busy:
        for _, kind in [each for each in coming if each[0] == step]:
            scheduler.submit(request_of(family, *kind))
        for event in scheduler.step():
            events[event.request].append(event)
        assert places is None or len(scheduler.running) <= places
        step += 1
    for own, (_, kind) in zip(events, coming, strict=True):
        assert isinstance(own[0], Started)
        assert said(own) == alone(family, kind)
    assert cache is None or cache.bytes_held <= known
    assert len(backend._sequences) == (0 if cache is None else len(cache))


def asked(model, questions=QUESTIONS, **values):
    own = Settings(max_new_tokens=12, **values)
    return [
        Request(prompts_for(model.tokenizer, Conversation.ask(question, SYSTEM), own), own, seed=7)
        for question in questions
    ]


class Cramped:
    """A model that has memory for so many rows and no more."""

    def __init__(self, model, rows):
        self._model, self.rows, self.seen = model, rows, []
        self.fail = self.breaks = 0
        self.forward = model.forward

    def __getattr__(self, name):
        return getattr(self._model, name)

    def __call__(self, ids, **arguments):
        self.seen.append(len(ids))
        self.breaks -= 1
        if self.breaks == 0:
            raise RuntimeError("shapes do not fit")
        self.fail -= 1
        if len(ids) > self.rows or self.fail == 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self._model(ids, **arguments)


def with_chunk(model, tokens):
    backend = TorchBackend(model)
    backend.capabilities = replace(backend.capabilities, prefill_chunk=tokens)
    return Scheduler(backend)


def test_who_leaves_while_a_prompt_is_read_keeps_nobody():
    tiny = MODELS["llama"]
    requests = asked(tiny)
    alone_says = said(list(decode(tiny, requests[:1])))
    scheduler = with_chunk(tiny, 4)
    scheduler.submit(requests[2])
    assert ([type(event) for event in scheduler.step()], len(scheduler.running)) == ([Started], 1)
    scheduler.cancel(0)
    scheduler.submit(requests[0])
    (end,) = [event for event in scheduler.step() if event.request == 0]
    assert (end.finish_reason, end.tokens, len(scheduler.running)) == (FinishReason.CANCELLED, 0, 1)
    events = []
    while scheduler.busy:
        events += scheduler.step()
    assert said(events) == alone_says


@pytest.mark.parametrize("values", [{"temperature": 0.9}, {"method": "adacd"}, {"method": "selfcd"}])
@pytest.mark.parametrize("portion", [45, 10_000])
def test_too_many_at_once_are_halved_and_nothing_is_lost(monkeypatch, values, portion):
    monkeypatch.setattr(torch_backend, "_PREFILL_CHUNK", {"cpu": portion})
    tiny = MODELS["llama"]
    requests = asked(tiny, QUESTIONS * 3, **values)
    expected = list(decode(tiny, requests))
    cramped = cramp(tiny, 4)
    scheduler = Scheduler(TorchBackend(cramped))
    scheduler.submit_all(requests)
    events, limits = [], []
    while scheduler.busy:
        events += scheduler.step()
        limits.append(scheduler.max_concurrency)
    assert [said([e for e in events if e.request == n]) for n in range(9)] == [
        said([e for e in expected if e.request == n]) for n in range(9)
    ]
    assert limits[-1] == (4 if values.get("method") == "default" else 2)
    assert max(cramped.model.seen) > 4


def cramp(model, rows):
    """The model with memory for so many rows."""
    cramped = copy.copy(model)
    object.__setattr__(cramped, "model", Cramped(model.model, rows))
    return cramped


def test_all_slots_are_there_again_when_what_was_short_of_memory_has_ended(monkeypatch):
    monkeypatch.setattr(torch_backend, "_PREFILL_CHUNK", {"cpu": 10_000})
    tiny = MODELS["llama"]
    requests = asked(tiny, QUESTIONS * 3)
    scheduler = Scheduler(TorchBackend(cramp(tiny, 4)), max_concurrency=9)
    limits = []
    for _ in range(2):
        for request in requests:
            scheduler.submit(request)
            limits.append(scheduler.max_concurrency)
        while scheduler.busy:
            list(scheduler.step())
        limits.append(scheduler.max_concurrency)
    assert limits == [*[9] * 9, 2] * 2


def test_what_is_parked_goes_before_anyone_has_to_wait():
    tiny = MODELS["llama"]
    requests = asked(tiny, QUESTIONS, method="default")
    cramped = cramp(tiny, 9)
    cache = PrefixCache(10**9)
    scheduler = Scheduler(TorchBackend(cramped), prefix_cache=cache)
    scheduler.submit_all(requests)
    list(scheduler.run(lambda index: False))
    assert len(cache) == 3
    cramped.model.fail = 1  # the next forward finds no memory, once
    scheduler.submit_all(requests)
    limits = []
    while scheduler.busy:
        list(scheduler.step())
        limits.append(scheduler.max_concurrency)
    assert set(limits) == {None}
    assert len(cache) == 3


def test_a_single_request_that_does_not_fit_is_an_error_that_says_so():
    tiny = MODELS["llama"]
    (failed,) = [event for event in decode(cramp(tiny, 0), asked(tiny)[:1]) if isinstance(event, Failed)]
    assert (failed.error, failed.message) == (
        "OutOfMemoryError",
        "The memory of cpu is not enough for a single request: CUDA out of memory. "
        "Tried to allocate 2.00 GiB.",
    )


def test_a_backend_that_dies_fails_each_request_that_runs_and_goes_on_with_the_rest():
    tiny = MODELS["llama"]
    cramped = cramp(tiny, 9)
    cramped.model.breaks = 3
    scheduler = Scheduler(TorchBackend(cramped), max_concurrency=2)
    requests = asked(tiny, QUESTIONS)
    scheduler.submit_all(requests)
    events = list(scheduler.run(lambda index: False))
    failed = [event for event in events if isinstance(event, Failed)]
    assert [(event.error, event.message) for event in failed] == [("RuntimeError", "shapes do not fit")] * 2
    (end,) = [event for event in events if isinstance(event, Finished)]
    expected = said(list(decode(tiny, [requests[end.request]])))
    assert said([event for event in events if event.request == end.request]) == expected


def test_a_slot_that_falls_free_is_taken_and_one_that_leaves_frees_it():
    tiny = MODELS["llama"]
    seen: list = []
    events = decode(
        tiny,
        asked(tiny, [QUESTIONS[0]] * 6, method="default"),
        max_concurrency=2,
        cancelled=lambda request: request == 1 and any(isinstance(event, TokenStep) for event in seen),
    )
    for event in events:
        seen.append(event)
    ends = [event for event in seen if isinstance(event, Finished)]
    assert ends[0].request == 1 and ends[0].finish_reason is FinishReason.CANCELLED
    assert sorted(end.request for end in ends) == list(range(6))
    # request 2 begins with the step after request 1 left
    order = [event.request for event in seen if isinstance(event, TokenStep)]
    assert order[:4] == [0, 1, 0, 2]


def test_requests_of_like_length_run_side_by_side_and_the_oldest_is_never_overtaken():
    tiny = MODELS["llama"]
    short, long = QUESTIONS[1], QUESTIONS[2]
    scheduler = Scheduler(TorchBackend(tiny), max_concurrency=2)
    for request in asked(tiny, [long, short, short, long], method="default"):
        scheduler.submit(request)
    list(scheduler.step())
    assert [state.index for state in scheduler.running] == [0, 3]
    assert [state.index for state in scheduler.waiting] == [1, 2]


def test_a_shared_beginning_is_fed_once():
    tiny = MODELS["llama"]
    requests = asked(tiny, method="default")
    fed = []

    def count(module, args, kwargs):
        fed.append(args[0].shape)

    expected = [said(list(decode(tiny, [request]))) for request in requests]
    cache = PrefixCache(10**9)
    scheduler = Scheduler(TorchBackend(tiny), prefix_cache=cache)
    hook = tiny.model.register_forward_pre_hook(count, with_kwargs=True)
    events = []
    for request in requests:
        scheduler.submit_all([request])
        events.append(said(list(scheduler.run(lambda index: False))))
    hook.remove()
    prefills = [tokens for _, tokens in fed if tokens > 1]
    prompts = [request.prompts.base.ids for request in requests]
    held: list = []
    shared = []
    for prompt, own in zip(prompts, expected, strict=True):
        shared.append(max((shared_length(each, prompt[:-1]) for each in held), default=0))
        held.append((*prompt, *(token_id for token_id, *_ in own[:-2])))
    assert events == expected
    assert prefills == [len(prompt) - length for prompt, length in zip(prompts, shared, strict=True)]
    assert min(shared[1:]) > len(SYSTEM) // 8  # the system text is a good part of each prompt


def test_concurrency_is_found_from_free_memory():
    tiny = MODELS["llama"]
    requests, backend = asked(tiny), TorchBackend(tiny)
    tokens = max(len(second(request.prompts).ids) for request in requests) + 12
    cache = 2 * 2 * 2 * 16 * 4  # layers, keys and values, heads, dim, bytes
    row = 2 * (tokens * cache + 12 * 4 * len(tiny.tokenizer))
    assert fitting_concurrency(backend, requests, 2 * 10 * row) == 10
    assert fitting_concurrency(backend, requests, 2 * 10 * row - 1) == 9
    assert fitting_concurrency(backend, requests, 1) == 1
    assert fitting_concurrency(backend, requests, 10**12) == 64
    assert fitting_concurrency(backend, requests, None) == 64
