"""A served model decodes as one that is loaded here: the same events, whatever the server does meanwhile."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch

from adacd_cli.backends import backend_for
from adacd_cli.backends.server import batcher
from adacd_cli.backends.server.dialect import ReadTimeout, ServerRefused, ServerUnavailable
from adacd_cli.config import Settings
from adacd_cli.engine import Request, Scheduler, partial
from adacd_cli.engine.prefix_cache import PrefixCache
from adacd_cli.errors import ConfigurationError
from adacd_cli.events import Failed, Finished, FinishReason, Measures, Notice, Started, TokenStep
from adacd_cli.prompts.prompts import Prompt, Prompts, ThinkingMarks
from tests.fakes import BYTE_EOS, BYTE_VOCAB, END_THINK, THINK, saying, scripted
from tests.served import served

MARKS = ThinkingMarks("<think>", "</think>", opened=False)


def request(question="hi", thinking=None, *, seed=None, candidates=0, top_logprobs=None, **settings):
    """A request under p* = "refuse"; `settings` are its own."""
    settings = Settings(**settings)
    streams = {"unprompted": Prompt(tuple(f"{question}\n".encode()))}
    if settings.effective_method.startswith("adacd"):
        prompted = tuple(f"refuse {question}\n".encode())
        streams["prompted"] = Prompt(prompted, contrast="refuse")
    return Request(Prompts(streams, thinking), settings, seed, candidates, top_logprobs)


def decode(model, *requests, places=None, cancelled=lambda number: False):
    """The events of some requests."""
    scheduler = Scheduler(
        backend_for(model), max_concurrency=places or (model.server and model.server.concurrency)
    )
    scheduler.submit_all(requests)
    return list(scheduler.run(cancelled))


def polite(*answers, sharp=8.0):
    refusals = [(f"refuse {question}", "Sorry, no.") for question, _ in answers]
    return saying(*refusals, *answers, sharp=sharp)


def noisy(ids):
    """Logits that look like a language model's: different after every prefix, and alike in both streams."""
    near = sum((place + 1) * token for place, token in enumerate(ids[-3:]))
    refusing = bytes(token for token in ids[:6] if token < 256) == b"refuse"
    generator = torch.Generator().manual_seed(near)
    logits = 3.0 * torch.randn(BYTE_VOCAB, generator=generator)
    if refusing:
        logits += torch.randn(BYTE_VOCAB, generator=torch.Generator().manual_seed(near + 1))
    logits[THINK] = logits[END_THINK] = -10.0
    return logits.tolist()


def thinking(ids):
    """Thinks "hm", closes its thinking, and says " Yo"."""
    said = [*b"", THINK, *b"hm", END_THINK, *b" Yo", BYTE_EOS]
    start = ids.index(10) + 1
    logits = [0.0] * BYTE_VOCAB
    logits[said[min(len(ids) - start, len(said) - 1)]] = 8.0
    return logits


def steps(events, request=0):
    return [event for event in events if isinstance(event, TokenStep) and event.request == request]


def about(event):
    """Equal to the event and to those whose numbers are rounded otherwise, as log-probabilities are."""
    if isinstance(event, Started):
        return replace(event, engine="server")
    if not isinstance(event, TokenStep):
        return event
    numbers = {
        name: pytest.approx(value, abs=1e-5) if isinstance(value, float) else value
        for name, value in vars(event.measures).items()
    }
    return replace(event, measures=Measures(**numbers))


def both(script, *requests, **served_as):
    """The events over a server and those of the torch backend."""
    model, _ = served(script, **served_as)
    over = decode(model, *requests)
    here = [about(event) for event in decode(scripted(script, context=served_as.get("context")), *requests)]
    order = lambda event: (event.request, isinstance(event, Finished), getattr(event, "index", -1))  # noqa: E731
    return sorted(over, key=order), sorted(here, key=order)


@pytest.mark.parametrize("method", ["default", "prompt", "adacd", "adacd-gated"])
@pytest.mark.parametrize("script", [polite(("hi", "Yo there"), ("héé", "Öäß"), sharp=3.0), noisy])
def test_the_events_are_those_of_the_torch_backend(method, script):
    settings = {"method": method, "max_new_tokens": 24}
    over, here = both(script, request(**settings), request("héé", **settings))
    assert over == here
    assert len(steps(over)) > 1


@pytest.mark.parametrize(
    "settings",
    [
        {"stop": ("er",)},
        {"max_new_tokens": 3},
        {"max_new_tokens": 0},
        {"contrast_steps": 0},
        {"contrast_steps": 3, "plausibility": 0.0, "alpha": 0.5},
        {"agreement_threshold": 0.05, "plausibility": 0.3},
        {"contrast_steps": 24, "presence_penalty": 1.5, "frequency_penalty": 0.5, "logit_bias": ("101:3",)},
        {"contrast_steps": 24, "temperature": 0.9, "seed": 4, "min_p": 0.2},
        {"contrast_steps": 24, "stop_token_ids": (101, 111)},
    ],
)
@pytest.mark.parametrize("script", [polite(("hi", "Yo there"), sharp=3.0), noisy])
def test_the_settings_mean_the_same(script, settings):
    over, here = both(script, request(**{"max_new_tokens": 24, **settings}))
    assert over == here


def test_the_rest_is_sampled_by_the_server_with_what_was_given():
    model, dialect = served(noisy)
    controls = {"presence_penalty": 1.5, "min_p": 0.2, "logit_bias": ("101:3",), "stop_token_ids": (259,)}
    decode(model, request(max_new_tokens=12, ignore_eos=True, **controls))
    ((_, sampling, _),) = dialect.opened
    assert sampling.controls == {**controls, "logit_bias": {101: 3.0}, "ignore_eos": True}


@pytest.mark.parametrize(
    ("values", "name"),
    [({"min_tokens": 3}, "min_tokens"), ({"repetition_penalty": 1.1}, "repetition_penalty")],
)
def test_what_a_server_cannot_do_is_refused_by_name(values, name):
    model, _ = served(noisy)
    with pytest.raises(ConfigurationError, match=f"`{name}`"):
        decode(model, request(**values))


@pytest.mark.parametrize("method", ["default", "adacd", "adacd-gated"])
@pytest.mark.parametrize("places", [1, 2, 5])
def test_any_number_at_once_gives_each_its_own(method, places):
    requests = [
        request(question, method=method, max_new_tokens=18) for question in ("hi", "yo", "héé", "a", "hi")
    ]
    over = decode(served(noisy)[0], *requests, places=places)
    for number, each in enumerate(requests):
        alone = decode(served(noisy)[0], each)
        assert [step.token_id for step in steps(over, number)] == [step.token_id for step in steps(alone)]


def test_what_is_parked_is_taken_up():
    model, _ = served(noisy)
    scheduler = Scheduler(backend_for(model), prefix_cache=PrefixCache(10**6), max_concurrency=2)
    texts = []
    for _ in range(3):
        scheduler.submit_all([request(max_new_tokens=12), request("yo", max_new_tokens=12)])
        events = scheduler.run(lambda number: False)
        texts.append({event.request: event.text for event in events if isinstance(event, Finished)})
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize("method", ["default", "adacd"])
def test_the_window_opens_after_the_thinking(method):
    over, here = both(thinking, request(thinking=MARKS, method=method, contrast_steps=2, max_new_tokens=24))
    assert over == here
    assert [step.thinking for step in steps(over)] == [True] * 4 + [False] * 4


@pytest.mark.parametrize("method", ["default", "adacd"])
def test_a_model_that_may_think_and_does_not(method):
    over, here = both(polite(("hi", "Yo")), request(thinking=MARKS, method=method, max_new_tokens=24))
    assert over == here
    assert not any(step.thinking for step in steps(over))


@pytest.mark.parametrize("method", ["adacd", "adacd-gated"])
def test_a_draw_inside_the_window_is_the_torch_backends(method):
    """The seed's noise is drawn here, over the whole vocabulary; after the window the server draws."""
    settings = {"method": method, "temperature": 1.3, "contrast_steps": 24, "max_new_tokens": 12}
    over, here = both(noisy, request(seed=11, **settings))
    window = next((n for n, step in enumerate(steps(here)) if step.measures.agreement is None), 12)
    assert window > 0
    assert steps(over)[:window] == steps(here)[:window]


def test_candidates_and_logprobs_are_filled_in_and_outside_the_window():
    asked = request(candidates=3, top_logprobs=2, max_new_tokens=6, contrast_steps=3)
    model, dialect = served(noisy)
    over, here = (steps(decode(each, asked)) for each in (model, scripted(noisy)))
    for mine, theirs in zip(over, here, strict=True):
        assert [each.token_id for each in mine.candidates] == [each.token_id for each in theirs.candidates]
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-4)
        assert [each.token_id for each in mine.top_logprobs] == [
            each.token_id for each in theirs.top_logprobs
        ]
        assert [each.logprob for each in mine.top_logprobs] == pytest.approx(
            [each.logprob for each in theirs.top_logprobs], abs=1e-4
        )
    assert dialect.opened[0][1].top == 3


def test_only_tokens_that_the_server_gave_are_candidates(monkeypatch):
    monkeypatch.setattr(partial, "FIRST_COUNTS", (2, 2))
    asked = request(candidates=6, top_logprobs=5, max_new_tokens=4, contrast_steps=3)
    whole, here = (steps(decode(each, asked)) for each in (served(noisy)[0], scripted(noisy)))
    few = steps(decode(served(noisy, most=3)[0], asked))
    for mine, theirs in zip(whole, here, strict=True):
        assert [each.token_id for each in mine.candidates] == [each.token_id for each in theirs.candidates]
        assert len(mine.top_logprobs) == 5
    assert [len(step.top_logprobs) for step in few] == [3] * len(few)
    assert all(3 <= len(step.candidates) <= 6 for step in few)


def test_a_list_that_is_too_short_is_asked_for_again_and_longer(monkeypatch):
    monkeypatch.setattr(partial, "FIRST_COUNTS", (2, 4))
    model, dialect = served(noisy)
    over, here = (steps(decode(each, request(max_new_tokens=10))) for each in (model, scripted(noisy)))
    assert [step.token_id for step in over] == [step.token_id for step in here]
    assert all(step.exact for step in over)
    assert {count for _, count in dialect.asked} >= {4, 32}


def test_both_streams_of_a_step_are_one_request(monkeypatch):
    monkeypatch.setattr(batcher, "GATHER_SECONDS", 5.0)  # however busy the machine is
    model, dialect = served(polite(("hi", "Yo there"), sharp=9.0))
    events = decode(model, request(max_new_tokens=8))
    assert all(step.exact for step in steps(events))
    assert [len(prompts) for prompts, _ in dialect.asked] == [2] * 8


def test_a_server_that_gives_too_few_is_noticed_once():
    model, _ = served(noisy, most=5)
    events = decode(model, request(max_new_tokens=12), request("yo", max_new_tokens=12))
    inside = [step.exact for number in (0, 1) for step in steps(events, number)[:10]]
    after = [step.exact for number in (0, 1) for step in steps(events, number)[10:]]
    assert not all(inside)
    assert all(after)
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert "not among the 5 log-probabilities" in notice.text
    assert not any(isinstance(event, Notice) for event in decode(model, request(max_new_tokens=12)))


def test_a_value_that_the_longest_list_lacks_is_asked_for_by_its_id():
    asked = request(max_new_tokens=10, plausibility=0.02)
    model, dialect = served(noisy, most=40)
    without = steps(decode(model, asked))
    dialect.scores_ids = True
    named, here = (steps(decode(each, asked)) for each in (model, scripted(noisy)))
    assert not all(step.exact for step in without)
    assert all(step.exact for step in named)
    assert [step.token_id for step in named] == [step.token_id for step in here]


def test_the_rest_is_one_request_that_passes_the_sampling_on():
    model, dialect = served(polite(("hi", "Yo there, you"), sharp=3.0))
    sampled = {"temperature": 0.7, "top_p": 0.9, "top_k": 30, "seed": 5}
    asked = request(max_new_tokens=9, contrast_steps=2, **sampled)
    events = decode(model, asked)
    ((ids, sampling, length),) = dialect.opened
    said = tuple(step.token_id for step in steps(events)[:2])
    assert ids == (*asked.prompts.base.ids, *said)
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (0.7, 0.9, 30, 7)
    assert (length, sampling.top) == (7, 1)


def test_no_more_run_at_once_than_may():
    model, dialect = served(polite(("hi", "Yo")), concurrency=3)
    dialect.pause = 0.002
    requests = [request(method="default") for _ in range(6)]
    events = decode(model, *requests, places=2)
    assert dialect.most_at_once == 2
    assert {event.text for event in events if isinstance(event, Finished)} == {"Yo"}
    assert backend_for(model).capabilities.max_sequences == 3


def test_a_stream_that_ends_early_is_taken_up_again():
    model, dialect = served(polite(("hi", "Yo there, you")))
    dialect.cut = 3
    assert decode(model, request(method="default"))[-1].text == "Yo there, you"
    assert len(dialect.opened) > 2


def test_a_stream_without_a_token_is_answered_token_by_token():
    model, dialect = served(polite(("hi", "Yo")))
    dialect.cut = 0
    assert decode(model, request(method="default"))[-1].text == "Yo"
    assert len(dialect.asked) == 3


def test_a_stream_that_breaks_is_taken_up_again_where_it_was():
    model, dialect = served(polite(("hi", "Yo there, you")))
    broken = []

    def break_once(number):
        if number == 4 and not broken:
            broken.append(number)
            raise ServerUnavailable("the connection broke")

    dialect.before_token = break_once
    asked = request(method="default")
    assert decode(model, asked)[-1].text == "Yo there, you"
    assert dialect.opened[1][0] == (*asked.prompts.base.ids, *b"Yo t")


def test_a_stream_that_falls_silent_again_and_again_is_given_up():
    model, dialect = served(polite(("hi", "Yo there, you")))

    def silent(number):
        if number == 2:
            raise ReadTimeout("it gave no token for 60 s")

    dialect.before_token = silent
    events = decode(model, request(method="default"))
    assert "".join(step.text for step in steps(events)) == "Yo t"
    assert isinstance(events[-1], Failed)
    assert events[-1].error == "ServerError"
    assert "it gave no token for 60 s" in events[-1].message
    assert len(dialect.opened) == 2


@pytest.mark.parametrize("method", ["default", "adacd"])
def test_a_request_that_fails_by_itself_leaves_the_others_alone(method):
    model, dialect = served(polite(("hi", "Yo there"), ("yo", "Hi")))
    stream = dialect.stream

    def fails(prompts):
        if any(ids[-4:] == tuple(b"hi\nY") for ids in prompts):
            raise ServerRefused("no memory left")

    async def failing(prompt, sampling, max_tokens):
        async for token in stream(prompt, sampling, max_tokens):
            yield token
            fails([(*prompt, token.token_id)])

    dialect.stream, dialect.before = failing, fails
    events = decode(model, request(method=method), request("yo", method=method))
    ends = {event.request: event for event in events if isinstance(event, Finished | Failed)}
    assert ends[0] == Failed(
        0,
        "ServerError",
        "The server at http://scripted/v1 failed: no memory left.",
        "The answer so far is kept; the server's log may say more.",
    )
    assert "".join(step.text for step in steps(events)) == "Y"
    assert (ends[1].finish_reason, ends[1].text) == (FinishReason.STOP, "Hi")


def test_a_server_that_fails_before_a_model_may_think_is_an_error():
    model, dialect = served(thinking)

    def fails(prompts):
        raise ServerRefused("no memory left")

    dialect.before = fails
    events = decode(model, request(thinking=MARKS))
    assert isinstance(events[-1], Failed)


def test_cancelling_one_ends_it_and_leaves_the_others():
    model, dialect = served(polite(("hi", "Yo there" * 40), ("yo", "Hi")))
    dialect.pause = 0.002
    scheduler = Scheduler(backend_for(model), max_concurrency=2)
    scheduler.submit_all([request(question, method="default") for question in ("hi", "yo", "yo")])
    scheduler.cancel(2)
    events = []
    while scheduler.busy:
        events += scheduler.step()
        if len(steps(events)) > 3:
            scheduler.cancel(0)
    ends = {event.request: event for event in events if isinstance(event, Finished)}
    assert ends[0].finish_reason is FinishReason.CANCELLED
    assert 3 < ends[0].tokens < 200
    assert ends[0].text == "".join(step.text for step in steps(events))
    assert (ends[1].text, ends[2].tokens) == ("Hi", 0)
    assert ends[2].finish_reason is FinishReason.CANCELLED


def wait_until(what):
    until = time.monotonic() + 5
    while not what() and time.monotonic() < until:
        time.sleep(0.002)
    return what()


def test_close_ends_everything():
    model, dialect = served(polite(("hi", "Yo there" * 40)))
    dialect.pause = 0.002
    scheduler = Scheduler(backend_for(model), max_concurrency=1)
    scheduler.submit_all([request(method="default"), request(method="default")])
    events = []
    while not steps(events):
        events += scheduler.step()
    assert (len(scheduler.running), len(scheduler.waiting)) == (1, 1)
    events += scheduler.close()
    ends = {event.request: event for event in events if isinstance(event, Finished)}
    assert ends[0].text == "".join(step.text for step in steps(events))
    assert ends[1].tokens == 0
    assert not scheduler.busy
    assert wait_until(lambda: dialect.running == 0)


@pytest.mark.parametrize("method", ["default", "adacd"])
def test_a_consumer_that_stops_iterating_leaves_nothing_running_at_the_server(method):
    model, dialect = served(polite(("hi", "Yo there" * 40)))
    dialect.pause = 0.05
    scheduler = Scheduler(backend_for(model))
    scheduler.submit_all([request(method=method)])
    events = scheduler.run(lambda number: False)
    next(event for event in events if isinstance(event, TokenStep))
    next(events, None)
    events.close()
    assert wait_until(lambda: dialect.running == 0)


@pytest.mark.parametrize("method", ["selfcd", "ssd"])
def test_methods_that_need_more_than_a_server_gives_are_refused(method):
    model, _ = served(noisy)
    streams = {"plain": Prompt((1,)), "safe": Prompt((1,)), "target": Prompt((1,)), "draft": Prompt((1,))}
    settings = Settings(method=method, draft="d" if method == "ssd" else None)
    with pytest.raises(ConfigurationError):
        decode(model, Request(Prompts(streams), settings))


def test_the_context_ends_an_answer():
    over, here = both(noisy, request(max_new_tokens=50), context=20)
    assert over[-1] == here[-1]
    assert over[-1].context_full


def test_the_confidence_of_a_streamed_token_is_the_best_ones():
    model, _ = served(polite(("hi", "Yo"), sharp=2.0))
    (first, *_) = steps(decode(model, request(method="default")))
    assert first.measures.confidence == pytest.approx(math.exp(2) / (math.exp(2) + BYTE_VOCAB - 1), rel=1e-4)
