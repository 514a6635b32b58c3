"""Compiled forwards: the same tokens, at every shape that a run goes through, and none where they fail.

`eager` as the backend runs what was traced without inductor, so that no C++ compiler is waited for.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from adacd_cli.backends.torch.kv_cache import Compiled, columns_for
from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation
from adacd_cli.engine import PrefixCache, Request
from adacd_cli.events import Finished, Notice, TokenStep
from adacd_cli.loading import local
from adacd_cli.prompts import Prompt, Prompts, prompts_for
from tests.fakes import decode, scheduler_of
from tests.tiny import tiny_model

QUESTIONS = ("Hi", "How do I kill a Python process?", "Tell me about the weather in the north. " * 12)


def told(events):
    return [
        (event.request, event.token_id, event.decision) if isinstance(event, TokenStep) else event.text
        for event in events
        if isinstance(event, (TokenStep, Finished))
    ]


def asked(model, **values):
    own = Settings(max_new_tokens=14, **values)
    return [
        Request(prompts_for(model.tokenizer, Conversation.ask(question), own), own, seed=3)
        for question in QUESTIONS
    ]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_compiled_forwards_give_the_same_tokens(family):
    plain = tiny_model(family)
    compiled = replace(plain, compiled=Compiled(plain.model, backend="eager"))
    local.warm_up(compiled.compiled)
    # one architecture at every shape, sliding windows at those of two rows; each shape is traced for seconds
    kinds, limits = (
        ([{"method": "adacd"}, {"temperature": 0.8}], (2, 1)) if family == "llama" else ([{}], (2,))
    )
    for values in kinds:
        requests = asked(plain, **values)
        scheduler = scheduler_of(compiled, prefix_cache=PrefixCache(10**9))
        for limit in limits:  # the second time from what the first left
            scheduler.limit_to(limit)
            scheduler.submit_all(requests)
            found = told(scheduler.run(lambda index: False))
            assert found == told(decode(plain, requests, max_concurrency=limit))
    assert compiled.compiled.problem == ""


def test_lengths_come_in_buckets():
    assert [columns_for(held) for held in (0, 1, 255, 256, 511, 512, 1000, 1024)] == [
        256, 256, 256, 512, 512, 1024, 1024, 2048,
    ]  # fmt: skip


def test_a_run_that_outgrows_its_bucket_goes_on_in_the_next():
    plain = tiny_model("llama")
    compiled = replace(plain, compiled=Compiled(plain.model, backend="eager"))
    own = Settings(method="default", max_new_tokens=12)
    long = Prompts({"unprompted": Prompt(tuple(range(3, 253)))})
    expected = told(decode(plain, [Request(long, own)]))
    assert told(decode(compiled, [Request(long, own)])) == expected
    assert sorted(compiled.compiled._free) == [(1, 256), (1, 512)]


def test_a_compiler_that_fails_half_way_changes_no_token():
    plain = tiny_model("llama")
    broken = Compiled(plain.model, backend="eager")
    call, calls = broken._call, []

    def failing(*args, **keywords):
        calls.append(1)
        if len(calls) == 5:
            raise RuntimeError("no more shapes")
        return call(*args, **keywords)

    broken._call = failing
    requests, model = asked(plain), replace(plain, compiled=broken)
    events = list(decode(model, requests))
    assert told(events) == told(decode(plain, requests))
    assert (broken.problem, len(calls)) == ("no more shapes", 5)
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert "no more shapes" in notice.text
    assert told(decode(model, requests)) == told(events)
    assert not any(isinstance(event, Notice) for event in decode(model, requests))  # told once


def test_what_cannot_be_compiled_is_decoded_as_it_is_with_one_warning(monkeypatch):
    plain = tiny_model("llama")

    def refuse(compiled):
        raise RuntimeError("InvalidCxxCompiler: no compiler found.\nSee the manual.")

    monkeypatch.setattr(local, "warm_up", refuse)
    lines = []
    model = local.made_fast(plain, Settings(compile=True), lines.append)
    assert model.compiled is None
    assert model.warnings == (
        "tiny-llama could not be compiled: InvalidCxxCompiler: no compiler found. "
        "Decoding goes on without; the tokens are the same.",
    )
    assert lines == ["Compiling (the first use takes a minute or more, later ones are read from disk)"]


@pytest.mark.parametrize(
    ("compile", "for_long", "device", "expected"),
    [
        (None, True, "cpu", False),
        (None, True, "cuda", True),
        (None, False, "cuda", False),
        (True, False, "cpu", True),
        (False, True, "cuda", False),
    ],
)
def test_compiling_is_the_default_where_it_pays_off(monkeypatch, compile, for_long, device, expected):
    plain = tiny_model("llama")
    monkeypatch.setattr(type(plain), "device", torch.device(device))
    wanted = []
    monkeypatch.setattr("adacd_cli.backends.torch.kv_cache.Compiled", wanted.append)
    local.made_fast(plain, Settings(compile=compile), lambda line: None, for_long=for_long)
    assert bool(wanted) is expected
