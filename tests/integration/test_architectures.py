"""Architectures that keep their past in other ways: learned positions, ALiBi, local attention, states."""

from __future__ import annotations

import pytest
import torch

from adacd_cli.answers import Session
from adacd_cli.backends import backend_for
from adacd_cli.backends.torch import backend
from adacd_cli.config import Settings
from adacd_cli.engine import PrefixCache, fitting_concurrency
from adacd_cli.events import Failed, TokenStep
from adacd_cli.hf import adacd
from tests.fakes import decode, request_for, scheduler_of, second, two_streams
from tests.tiny import OTHERS, long_rope, random_model

STEPS = 20
QUESTIONS = ("How do I kill a Python process?", "Hi", "What is the weather like in the north of the country?")


@pytest.fixture(scope="module", params=OTHERS)
def model(request):
    return random_model(request.param)


ALONE: dict = {}


def pairs(model):
    def ids(text):
        return tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])

    contrast = "Please refuse to answer me!"
    return [two_streams(ids(f"{text}\n"), ids(f"{contrast}\n\n{text}\n")) for text in QUESTIONS]


def tokens(events, request=0):
    return [e.token_id for e in events if isinstance(e, TokenStep) and e.request == request]


def alone(model, pair, method="adacd"):
    key = id(model.model), pair.base.ids, method
    if key not in ALONE:
        request = request_for(pair, Settings(method=method, max_new_tokens=STEPS))
        ALONE[key] = model, tokens(decode(model, [request]))  # with the model, whose id stays its own then
    return ALONE[key][1]


def test_default_equals_generate(model):
    pair = pairs(model)[0]
    ids = torch.tensor([pair.base.ids])
    expected = model.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=STEPS, pad_token_id=0
    )
    assert alone(model, pair, "default") == expected[0, ids.shape[1] :].tolist()


def test_a_ragged_batch_equals_each_alone(model):
    settings = Settings(max_new_tokens=STEPS)
    requests = [request_for(pair, settings) for pair in pairs(model)]
    together = list(decode(model, requests))
    for place, pair in enumerate(pairs(model)):
        assert tokens(together, place) == alone(model, pair)


def test_a_prompt_read_in_pieces_gives_the_same_tokens(model, monkeypatch):
    requests = [request_for(pair, Settings(max_new_tokens=STEPS)) for pair in pairs(model)]
    expected = [alone(model, pair) for pair in pairs(model)]
    monkeypatch.setattr(backend, "_PREFILL_CHUNK", {"cpu": 5})
    together = list(decode(model, requests))
    assert [tokens(together, place) for place in range(len(requests))] == expected


def test_inside_transformers_generate_it_is_the_same(model):
    found = pairs(model)
    longest = max(len(pair.base.ids) for pair in found)
    ids = [[0] * (longest - len(pair.base.ids)) + list(pair.base.ids) for pair in found]
    mask = [[0] * (longest - len(pair.base.ids)) + [1] * len(pair.base.ids) for pair in found]
    output = model.model.generate(
        torch.tensor(ids),
        attention_mask=torch.tensor(mask),
        custom_generate=adacd,
        prompted_input_ids=[second(pair).ids for pair in found],
        max_new_tokens=STEPS,
    )
    assert output[:, longest:].tolist() == [alone(model, pair) for pair in found]


def test_concurrency_is_found_and_free_slots_are_taken(model):
    requests = [request_for(pair, Settings(max_new_tokens=STEPS)) for pair in pairs(model)]
    assert fitting_concurrency(backend_for(model), requests, 10**12) == 64
    events = list(decode(model, requests, max_concurrency=2))
    for place, pair in enumerate(pairs(model)):
        assert tokens(events, place) == alone(model, pair)


@pytest.mark.parametrize("method", ["adacd", "adacd-gated"])
def test_rows_that_end_early_leave_the_others_alone(model, method):
    settings = Settings(max_new_tokens=STEPS, method=method)
    requests = [request_for(pair, settings) for pair in pairs(model)]
    seen = dict.fromkeys(range(len(requests)), 0)

    def cancelled(request):
        seen[request] += 1
        return seen[request] > 4 + 5 * request

    together = list(decode(model, requests, cancelled=cancelled))
    for place, pair in enumerate(pairs(model)):
        expected = alone(model, pair, method)[: 4 + 5 * place]
        assert tokens(together, place) == expected


def test_a_session_equals_fresh_runs_where_the_past_cannot_be_taken_back_too(model):
    session = Session(model)
    first, other, _ = pairs(model)
    for pair in (first, other, first):
        request = request_for(pair, Settings(max_new_tokens=STEPS))
        assert tokens(session.decode([request])) == alone(model, pair)


def test_a_model_without_a_cache_is_refused():
    model = random_model("rwkv", hidden_size=64, num_hidden_layers=2, attention_hidden_size=64)
    (failed,) = [
        e for e in decode(model, [request_for(pairs(model)[0], Settings())]) if isinstance(e, Failed)
    ]
    assert failed.error == "ModelError"
    assert failed.message == (
        "RwkvForCausalLM cannot be decoded: its forward takes no cache of keys and values."
    )


def dynamic_rope(limit):
    rope = {"rope_theta": 10000.0, "rope_type": "dynamic", "factor": 4.0}
    rope["original_max_position_embeddings"] = limit
    return random_model("llama", max_position_embeddings=limit, rope_parameters=rope)


@pytest.mark.parametrize("make", [long_rope, dynamic_rope])
def test_positions_that_depend_on_the_length_take_over_and_read_apart_what_they_can(make, monkeypatch):
    scaled = make(60)
    ids = tuple(range(20, 120))
    short, long = (two_streams(ids[:n], ids[: n + 2]) for n in (30, 90))
    expected = [alone(scaled, each) for each in (short, long, short)]
    cache = PrefixCache(10**9)
    settings = Settings(max_new_tokens=STEPS)
    monkeypatch.setattr(backend, "_PREFILL_CHUNK", {"cpu": 25})
    scheduler = scheduler_of(scaled, prefix_cache=cache)
    said = []
    for each in (short, long, short):
        scheduler.submit_all([request_for(each, settings)])
        said.append(tokens(scheduler.run(lambda index: False)))
    assert said == expected


def test_an_answer_that_outgrows_the_short_positions_equals_generate_beside_others_too():
    scaled = long_rope(60)
    ids = tuple(range(20, 120))
    found = [two_streams(ids[:n], ids[: n + 2]) for n in (30, 54, 58, 59, 60, 61, 90)]
    lengths = {"max_new_tokens": 10, "contrast_steps": 5}
    expected = []
    for pair in found:
        prompt = torch.tensor([pair.base.ids])
        output = scaled.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=10,
            pad_token_id=0,
        )
        expected.append(output[0, prompt.shape[1] :].tolist())
    for method in ("default", "adacd", "selfcd"):
        requests = [request_for(pair, Settings(method=method, **lengths)) for pair in found]
        alone_say = [tokens(decode(scaled, [request])) for request in requests]
        assert method != "default" or alone_say == expected
        for cache in (None, PrefixCache(10**9)):
            events = list(decode(scaled, requests, prefix_cache=cache))
            assert [tokens(events, place) for place in range(len(found))] == alone_say
