"""Requests that come and go side by side: each answers as it does alone, whoever runs beside it."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation
from adacd_cli.engine import Decoder, Places, Prefixes, Request, decode, fitting, groups
from adacd_cli.engine.prefixes import shared_length
from adacd_cli.errors import OutOfMemoryError
from adacd_cli.events import Finished, FinishReason, Started, TokenStep
from adacd_cli.prompts import build_prompts
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


def request_of(family, question, method, steps, tokens, temperature, system):
    tokenizer = MODELS[family].tokenizer
    conversation = Conversation.ask(QUESTIONS[question], SYSTEM if system else None)
    own = Settings(
        method=method,
        contrast_steps=steps,
        max_new_tokens=tokens,
        temperature=temperature,
        draft=None,
    )
    return Request(build_prompts(tokenizer, conversation, contrasted(own.contrast_prompt)), seed=question, settings=own)


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
    known=st.booleans(),
    ahead=st.booleans(),
    portion=st.sampled_from([5, 30, 512]),
)
def test_any_order_of_arrivals_gives_each_request_its_own_tokens(
    family, arrivals, places, known, ahead, portion
):
    decoder = Decoder(
        MODELS[family], places=Places(places), known=Prefixes(renew=places is None) if known else None
    )
    decoder._ahead = ahead
    decoder._groups._portion = portion
    coming = sorted(((step, kind) for kind, step in arrivals), key=lambda each: each[0])
    events: list = [[] for _ in coming]
    step = 0
    while step <= 6 or decoder.busy:
        for _, kind in [each for each in coming if each[0] == step]:
            started = decoder.submit(request_of(family, *kind))
            assert isinstance(started, Started)
        for event in decoder.step():
            events[event.request].append(event)
        assert places is None or decoder.running <= places
        step += 1
    for own, (_, kind) in zip(events, coming, strict=True):
        assert said(own) == alone(family, kind)


def asked(model, questions=QUESTIONS, **values):
    own = Settings(max_new_tokens=12, **values)
    return [
        Request(build_prompts(model.tokenizer, Conversation.ask(question, SYSTEM), contrasted(own.contrast_prompt)), seed=7)
        for question in questions
    ], own


class Cramped:
    """A model that has memory for so many rows and no more."""

    def __init__(self, model, rows):
        self._model, self.rows, self.seen = model, rows, []
        self.forward = model.forward

    def __getattr__(self, name):
        return getattr(self._model, name)

    def __call__(self, ids, **arguments):
        self.seen.append(len(ids))
        if len(ids) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self._model(ids, **arguments)


def test_who_leaves_while_a_prompt_is_read_keeps_nobody():
    tiny = MODELS["llama"]
    requests, own = asked(tiny)
    alone_says = said(list(decode(tiny, requests[:1])))
    gone: set[int] = set()
    decoder = Decoder(tiny, cancelled=gone.__contains__)
    decoder._groups._portion = 4
    decoder.submit(requests[2])
    assert (list(decoder.step()), decoder.running) == ([], 1)
    gone.add(0)
    decoder.submit(requests[0])
    (end,) = [event for event in decoder.step() if event.request == 0]
    assert (end.finish_reason, end.tokens, decoder.running) == (FinishReason.CANCELLED, 0, 1)
    events = []
    while decoder.busy:
        events += decoder.step()
    assert said(events) == alone_says


@pytest.mark.parametrize("values", [{"temperature": 0.9}, {"method": "adacd"}, {"method": "selfcd"}])
@pytest.mark.parametrize("portion", [45, 10_000])
def test_too_many_at_once_are_halved_and_nothing_is_lost(monkeypatch, values, portion):
    monkeypatch.setattr(groups, "_PORTION", {"cpu": portion})
    tiny = MODELS["llama"]
    requests, own = asked(tiny, QUESTIONS * 3, **values)
    expected = list(decode(tiny, requests))
    cramped = copy.copy(tiny)
    object.__setattr__(cramped, "model", Cramped(tiny.model, 4))
    places = Places()
    events = list(decode(cramped, requests, places=places))
    assert [said([e for e in events if e.request == n]) for n in range(9)] == [
        said([e for e in expected if e.request == n]) for n in range(9)
    ]
    assert places.limit == (2 if values.get("temperature") is None else 4 if own.method == "default" else 2)
    assert max(cramped.model.seen) > 4


def test_all_places_are_there_again_when_what_was_short_of_memory_has_ended(monkeypatch):
    monkeypatch.setattr(groups, "_PORTION", {"cpu": 10_000})
    tiny = MODELS["llama"]
    requests, own = asked(tiny, QUESTIONS * 3)
    cramped = copy.copy(tiny)
    object.__setattr__(cramped, "model", Cramped(tiny.model, 4))
    places = Places(9)
    decoder = Decoder(cramped, places=places)
    limits = []
    for _ in range(2):
        for request in requests:
            decoder.submit(request)
            limits.append(places.limit)
        while decoder.busy:
            list(decoder.step())
        limits.append(places.limit)
    assert limits == [*[9] * 9, 2] * 2


def test_a_single_request_that_does_not_fit_is_an_error_that_says_so():
    tiny = MODELS["llama"]
    cramped = copy.copy(tiny)
    object.__setattr__(cramped, "model", Cramped(tiny.model, 0))
    requests, own = asked(tiny)
    with pytest.raises(OutOfMemoryError) as caught:
        list(decode(cramped, requests))
    assert str(caught.value) == (
        "The memory of cpu is not enough for a single request: CUDA out of memory. "
        "Tried to allocate 2.00 GiB."
    )


def test_another_error_is_not_taken_for_a_shortage_of_memory():
    tiny = MODELS["llama"]
    broken = copy.copy(tiny)
    model = Cramped(tiny.model, 9)
    model._model = lambda ids, **arguments: (_ for _ in ()).throw(RuntimeError("shapes do not fit"))
    object.__setattr__(broken, "model", model)
    model.device, model.config = tiny.model.device, tiny.model.config
    requests, own = asked(tiny)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(decode(broken, requests))


def test_a_place_that_falls_free_is_taken_and_one_that_leaves_frees_it():
    tiny = MODELS["llama"]
    requests, own = asked(tiny, QUESTIONS * 2, method="default")
    gone = {1}
    decoder = Decoder(tiny, places=Places(2), cancelled=lambda request: request in gone and bool(seen))
    for request in requests:
        decoder.submit(request)
    seen: list = []
    while decoder.busy:
        seen += decoder.step()
    ends = [event for event in seen if isinstance(event, Finished)]
    assert ends[0].request == 1 and ends[0].finish_reason is FinishReason.CANCELLED
    assert sorted(end.request for end in ends) == list(range(6))
    # request 2 begins with the step after request 1 left
    order = [event.request for event in seen if isinstance(event, TokenStep)]
    assert order[:4] == [0, 1, 0, 2]


def test_a_shared_beginning_is_fed_once():
    tiny = MODELS["llama"]
    requests, own = asked(tiny, method="default")
    fed = []

    def count(module, args, kwargs):
        fed.append(args[0].shape)

    expected = [said(list(decode(tiny, [request]))) for request in requests]
    hook = tiny.model.register_forward_pre_hook(count, with_kwargs=True)
    known = Prefixes(renew=False)
    events = [said(list(decode(tiny, [request], known=known))) for request in requests]
    hook.remove()
    prefills = [tokens for _, tokens in fed if tokens > 1]
    lengths = [len(request.prompts.base.ids) for request in requests]
    held = [*requests[0].prompts.base.ids, *(token_id for token_id, *_ in expected[0][:-1])]
    shared = [shared_length(held, request.prompts.base.ids) for request in requests]
    assert events == expected
    assert prefills == [lengths[0], *(lengths[place] - shared[place] for place in (1, 2))]
    assert min(shared[1:]) > len(SYSTEM) // 8  # the system text is a good part of each prompt


def test_places_are_found_from_free_memory():
    tiny = MODELS["llama"]
    requests, own = asked(tiny)
    tokens = max(len(second(request.prompts).ids) for request in requests) + own.max_new_tokens
    cache = 3 * 2 * 2 * 16 * 4  # layers, keys and values, heads, dim, bytes
    row = 2 * (tokens * cache + 12 * 4 * len(tiny.tokenizer))
    assert fitting(tiny, requests, own, 2 * 10 * row) == Places(10)
    assert fitting(tiny, requests, own, 2 * 10 * row - 1) == Places(9)
    assert fitting(tiny, requests, own, 1) == Places(1)
    assert fitting(tiny, requests, own, 10**12) == Places(64)
    assert fitting(tiny, requests, own, None) == Places(64)
