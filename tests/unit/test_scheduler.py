"""The scheduler over a scripted backend: whole runs event by event, and every way in which a step can fail."""

from __future__ import annotations

import pytest

from adacd_cli.config import Settings
from adacd_cli.engine import PrefixCache, Scheduler
from adacd_cli.errors import ConfigurationError, ModelError, OutOfMemoryError, PromptError, ServerError
from adacd_cli.events import (
    Decision,
    Failed,
    Finished,
    FinishReason,
    Measures,
    Notice,
    Started,
    TokenStep,
    to_json,
)
from tests.fakes import BYTE_EOS, BYTE_VOCAB, Done, ScriptedBackend, request_for, saying, two_streams

QUESTIONS = ("hi", "ho", "ha")
SCRIPT = saying(
    *((f"refuse {each}", "No.") for each in QUESTIONS), ("hi", "Yo"), ("ho", "Hey"), ("ha", "Ah!")
)
DRAFT = ("draft", "d")


def asked(question, prompted="refuse ", **settings):
    values = {"max_new_tokens": 20, "method": "default"} | settings
    prompts = two_streams(f"{question}\n".encode(), f"{prompted}{question}\n".encode())
    return request_for(prompts, Settings(**values))


def run(scheduler, *requests):
    scheduler.submit_all(requests)
    return list(scheduler.run(lambda index: False))


def ends(events):
    return {event.request: event for event in events if isinstance(event, (Finished, Failed))}


def texts(events):
    return [end.text for _, end in sorted(ends(events).items())]


def test_a_whole_run_of_two_requests_event_by_event():
    backend = ScriptedBackend(SCRIPT)
    steered = asked("hi", method="adacd", contrast_steps=1)
    events = run(Scheduler(backend), steered, asked("ho", max_new_tokens=2))
    sure = pytest.approx(0.920, abs=1e-3)  # of a logit of 8 beside 259 of 0

    def step(request, index, text, decision=Decision.PLAIN, measures=None, top=None):
        measures = measures or Measures(sure)
        return TokenStep(
            request, index, ord(text), text, text, decision, measures, ord(text), text, prompted_top=top
        )

    other = Measures(sure, 1 / 2, ord("N"), 2, sure, plausible_count=1)
    settings = [request.settings.decoding() for request in (steered, asked("ho", max_new_tokens=2))]
    assert events == [
        Started(0, "scripted", None, "adacd", 10, 3, settings[0]),
        Started(1, "scripted", None, "default", 0, 3, settings[1]),
        step(0, 0, "Y", Decision.SUBTRACT, other, "N"),
        step(1, 0, "H"),
        step(0, 1, "o"),
        step(1, 1, "e"),
        Finished(1, "He", FinishReason.LENGTH, 2, 0, 0),
        TokenStep(0, 2, BYTE_EOS, "", "<|end|>", Decision.PLAIN, Measures(sure), BYTE_EOS, "<|end|>"),
        Finished(0, "Yo", FinishReason.STOP, 3, 0, 1),
    ]
    assert [to_json(event)["event"] for event in events[:3]] == ["started", "started", "token"]
    # both prompts of the first request and that of the second, then one token each
    assert backend.forwards == [[(1, 3), (2, 10), (3, 3)], [(1, 1), (3, 1)], [(1, 1)]]
    assert backend.sequences == {}


def test_a_slot_that_falls_free_is_taken():
    backend = ScriptedBackend(SCRIPT)
    scheduler = Scheduler(backend, max_concurrency=1)
    assert [scheduler.submit(asked(question)) for question in QUESTIONS] == [0, 1, 2]
    events = []
    while scheduler.busy:
        events += scheduler.step()
        assert len(scheduler.running) <= 1
        if len(ends(events)) == 1:
            scheduler.cancel(2)
    assert [(end.request, end.text, end.finish_reason.value) for end in ends(events).values()] == [
        (0, "Yo", "stop"),
        (2, "", "cancelled"),
        (1, "Hey", "stop"),
    ]
    assert backend.sequences == {}


def test_what_two_streams_begin_with_is_fed_once_and_the_rest_is_a_fork():
    backend = ScriptedBackend(saying(("hi, but refuse", "No."), ("hi", "Yo")), prefill_chunk=4)
    prompts = two_streams(b"a long one\nhi\n", b"a long one\nhi, but refuse\n")
    events = run(Scheduler(backend), request_for(prompts, Settings(max_new_tokens=20)))
    assert events[0].shared_tokens == len(b"a long one\nhi")
    assert texts(events) == ["Yo"]
    # chunks of four; the prompted stream begins where the two part
    assert backend.forwards[:6] == [[(1, 4)], [(1, 4)], [(1, 4)], [(1, 2)], [(2, 4)], [(2, 4)]]
    prompt_tokens = sum(count for work in backend.forwards[:8] for _, count in work if count > 1)
    assert prompt_tokens == len(b"a long one\nhi\n") + len(b", but refuse\n") - 1  # its last one comes alone


def test_a_model_that_cannot_be_forked_reads_each_prompt_whole_and_says_so_once():
    backend = ScriptedBackend(SCRIPT, fork=False, trim=False)
    scheduler = Scheduler(backend, prefix_cache=PrefixCache(10**6))
    requests = [asked(question, "", method="adacd") for question in QUESTIONS[:2]]
    for told in (1, 0):
        backend.forwards.clear()
        events = run(scheduler, *requests)
        assert [count for _, count in backend.forwards[0]] == [3, 3, 3, 3]
        assert [event.shared_tokens for event in events if isinstance(event, Started)] == [0, 0]
        assert len([event for event in events if isinstance(event, Notice)]) == told


def test_a_draft_goes_on_where_nothing_can_be_taken_back():
    draft = saying(("hi", "Yep"), ("ho", "Hey"))
    found = []
    for can in ({}, {"fork": False, "trim": False}):
        backend = ScriptedBackend(SCRIPT, {DRAFT: draft}, **can)
        settings = {"method": "ssd", "draft": "d", "draft_tokens": 4, "ssd_intersection": 0.0}
        events = run(Scheduler(backend), *(asked(question, "", **settings) for question in QUESTIONS[:2]))
        found.append([event for event in events if isinstance(event, (TokenStep, Finished))])
        assert texts(events) == ["Yo", "Hey"]
        assert backend.sequences == {}
    assert found[0] == found[1]


def test_a_backend_that_decodes_by_itself_gives_the_same_answers():
    requests = [asked("hi", method="adacd", contrast_steps=1), asked("ho"), asked("ha", max_new_tokens=2)]
    found = []
    for free in (False, True):
        backend = ScriptedBackend(SCRIPT, vocab_size=BYTE_VOCAB, free_run=free)
        events = run(Scheduler(backend), *requests)
        steps = [(each.request, each.token_id, each.text) for each in events if isinstance(each, TokenStep)]
        found.append((sorted(steps, key=lambda step: step[0]), texts(events)))
        assert backend.sequences == {}
    assert found[0] == found[1]


# --- failures ---


def failing_at(*numbers, error):
    def fail(number):
        if number in numbers:
            raise error

    return fail


def test_a_backend_that_dies_fails_what_runs_and_what_waits_goes_on():
    backend = ScriptedBackend(SCRIPT)
    backend.failing = failing_at(1, error=RuntimeError("the cable is out\nat line 3"))
    scheduler = Scheduler(backend, prefix_cache=PrefixCache(10**6), max_concurrency=2)
    events = run(scheduler, *map(asked, QUESTIONS))
    failures = [ends(events)[index] for index in (0, 1)]
    assert [(each.error, each.message) for each in failures] == [("RuntimeError", "the cable is out")] * 2
    assert isinstance(failures[0].exception(), RuntimeError)
    assert [event.request for event in events if isinstance(event, TokenStep)][:2] == [0, 1]
    assert ends(events)[2].text == "Ah!"
    assert not scheduler.busy
    assert texts(run(scheduler, *map(asked, QUESTIONS))) == ["Yo", "Hey", "Ah!"]


@pytest.mark.parametrize("error", [RuntimeError("gone"), KeyboardInterrupt()], ids=["dead", "interrupted"])
def test_a_stretch_that_the_backend_decodes_ends_with_the_rest(error):
    backend = ScriptedBackend(SCRIPT, vocab_size=BYTE_VOCAB, free_run=True)
    scheduler = Scheduler(backend)
    for question in QUESTIONS[:2]:
        scheduler.submit(asked(question))
    events = [*scheduler.step()]
    backend.failing = failing_at(*range(9), error=error)
    scheduler.submit(asked("ha", method="adacd"))
    try:
        events += scheduler.step()
    except KeyboardInterrupt:
        events += scheduler.close()
    assert sorted(ends(events)) == [0, 1, 2]
    assert not (scheduler.busy or backend.sequences)


def test_a_backend_that_stays_dead_ends_every_request():
    backend = ScriptedBackend(SCRIPT)
    backend.failing = failing_at(*range(9), error=OSError("gone"))
    scheduler = Scheduler(backend, max_concurrency=1)
    events = run(scheduler, *map(asked, QUESTIONS))
    assert [(end.request, end.error) for end in ends(events).values()] == [(n, "OSError") for n in range(3)]
    assert not (scheduler.busy or backend.sequences)


def test_one_sequence_that_fails_leaves_the_others_alone():
    backend = ScriptedBackend(SCRIPT)
    forward = backend.forward

    def broken(work):
        results = forward(work)
        return [
            Done(ServerError("too many")) if backend.tokens(each.sequence)[:2] == [*b"ho"] else result
            for each, result in zip(work, results, strict=True)
        ]

    backend.forward = broken
    events = run(Scheduler(backend), *map(asked, QUESTIONS))
    failed = ends(events)[1]
    assert (failed.error, failed.message) == ("ServerError", "too many")
    assert (ends(events)[0].text, ends(events)[2].text) == ("Yo", "Ah!")
    assert backend.sequences == {}


def test_an_interrupt_ends_all_as_cancelled_and_leaves_nothing_open():
    backend = ScriptedBackend(SCRIPT)
    backend.failing = failing_at(1, error=KeyboardInterrupt())
    scheduler = Scheduler(backend, prefix_cache=PrefixCache(10**6), max_concurrency=2)
    scheduler.submit_all([asked(question) for question in QUESTIONS])
    events = []
    with pytest.raises(KeyboardInterrupt):
        for event in scheduler.run(lambda index: False):
            events.append(event)
    assert [(end.request, end.finish_reason.value, end.text) for end in ends(events).values()] == [
        (0, "cancelled", "Y"),
        (1, "cancelled", "H"),
        (2, "cancelled", ""),
    ]
    assert not (scheduler.busy or backend.sequences)
    assert texts(run(scheduler, asked("hi"))) == ["Yo"]


def short_of_memory(backend, rows):
    def fail(number):
        if len(backend.sequences) > rows:
            raise OutOfMemoryError("2 GiB are not there")

    return fail


def test_letting_go_of_a_run_that_has_ended_leaves_the_next_one_alone():
    scheduler = Scheduler(ScriptedBackend(SCRIPT))
    scheduler.submit_all([asked("hi")])
    first = scheduler.run(lambda index: False)
    assert next(event for event in first if isinstance(event, Finished)).text == "Yo"
    scheduler.submit_all([asked("ho")])
    second = scheduler.run(lambda index: False)
    begun = [next(second), next(second)]
    first.close()
    assert texts([*begun, *second]) == ["Hey"]


def test_short_of_memory_half_as_many_run_and_nothing_is_lost():
    backend = ScriptedBackend(SCRIPT)
    backend.failing = short_of_memory(backend, 3)
    scheduler = Scheduler(backend)
    events = run(scheduler, *(asked(question, method="adacd") for question in QUESTIONS))
    assert texts(events) == ["Yo", "Hey", "Ah!"]
    assert scheduler.max_concurrency == 1
    tokens = [(event.request, event.index) for event in events if isinstance(event, TokenStep)]
    assert tokens == sorted(tokens)  # one after the other, none twice


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("number", range(5))
def test_memory_that_is_short_in_any_forward_changes_no_token(ahead, number):
    flat = saying(("hi", "Yo there"), ("ho", "Hello"), ("refuse ha", "No."), ("ha", "Ah!"), sharp=3.0)
    values = {"method": "adacd", "temperature": 1.0, "seed": 5, "max_new_tokens": 6}
    requests = [asked(question, **values) for question in QUESTIONS]
    expected = run(Scheduler(ScriptedBackend(flat)), *requests)
    backend = ScriptedBackend(flat, run_ahead=ahead)
    backend.failing = failing_at(number, error=OutOfMemoryError("2 GiB are not there"))
    events = run(Scheduler(backend), *requests)
    for index in range(len(requests)):
        assert [e for e in events if e.request == index] == [e for e in expected if e.request == index]
    assert backend.sequences == {}


def test_short_of_memory_what_is_parked_goes_first():
    backend = ScriptedBackend(SCRIPT)
    cache = PrefixCache(10**6)
    scheduler = Scheduler(backend, prefix_cache=cache, max_concurrency=3)
    run(scheduler, *map(asked, QUESTIONS))
    assert len(cache) == len(backend.sequences) == 3
    backend.failing = short_of_memory(backend, 4)
    events = run(scheduler, *(asked(question) for question in ("no hi", "no ho")))
    assert texts(events) == ["Yo", "Hey"]
    assert scheduler.max_concurrency == 3
    assert len(cache) == 2


def test_a_single_request_that_does_not_fit_fails_and_the_next_has_its_turn():
    backend = ScriptedBackend(SCRIPT)
    backend.failing = short_of_memory(backend, 1)
    events = run(Scheduler(backend), asked("hi", method="adacd"), asked("ho"))
    failed = ends(events)[0]
    assert failed.error == "OutOfMemoryError"
    assert "not enough for a single request" in failed.message and "2 GiB are not there" in failed.message
    assert failed.hint
    assert ends(events)[1].text == "Hey"


@pytest.mark.parametrize(
    ("request_", "can", "error"),
    [
        (asked("hi", method="selfcd"), {"full_logits": False}, ConfigurationError),
        (asked("hi", method="ssd", draft="another"), {}, ModelError),
        (asked("hi" * 9), {}, PromptError),
        (asked("hi", "p" * 16, method="adacd"), {}, PromptError),
        (request_for(two_streams((), ()), Settings()), {}, PromptError),
    ],
    ids=[
        "logits that are not told",
        "weights that are not loaded",
        "a long prompt",
        "a long p*",
        "no prompt",
    ],
)
def test_what_cannot_be_answered_is_refused_before_anything_is_decoded(request_, can, error):
    backend = ScriptedBackend(SCRIPT, context=18, **can)
    scheduler = Scheduler(backend)
    with pytest.raises(error):
        scheduler.submit_all([asked("hi"), request_])
    assert not (scheduler.busy or backend.sequences or backend.forwards)
    assert texts(run(scheduler, asked("hi"))) == ["Yo"]
