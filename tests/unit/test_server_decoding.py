"""A served model decodes as one that is loaded here: the same events, whatever the server does meanwhile."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace

import pytest
import torch

from adacd_cli.config import Settings
from adacd_cli.engine import Places, Request, decode
from adacd_cli.errors import ConfigurationError, ServerError
from adacd_cli.events import Finished, FinishReason, Measures, TokenStep
from adacd_cli.prompts.pair import PromptPair, ThinkingMarks
from adacd_cli.remote import answer as answer_module
from adacd_cli.remote.background import Background
from adacd_cli.remote.failures import ServerGone, ServerRefused, ServerSilent
from tests.fakes import BYTE_EOS, BYTE_VOCAB, END_THINK, THINK, saying, scripted
from tests.served import served

MARKS = ThinkingMarks("<think>", "</think>", opened=False)


def pair(question="hi", thinking=None):
    return PromptPair(
        prompted_ids=tuple(f"refuse {question}\n".encode()),
        unprompted_ids=tuple(f"{question}\n".encode()),
        contrast_prompt="refuse",
        thinking=thinking,
    )


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
    if not isinstance(event, TokenStep):
        return event
    numbers = {
        name: pytest.approx(value, abs=1e-5) if isinstance(value, float) else value
        for name, value in vars(event.measures).items()
    }
    return replace(event, measures=Measures(**numbers))


def both(script, *requests, **settings):
    """The events over a server and those of the engine."""
    values = Settings(**({"max_new_tokens": 24} | settings))
    model, _ = served(script)
    over = list(decode(model, [*requests], values))
    here = [about(event) for event in decode(scripted(script), [*requests], values)]
    order = lambda event: (event.request, isinstance(event, Finished), getattr(event, "index", -1))  # noqa: E731
    return sorted(over, key=order), sorted(here, key=order)


@pytest.mark.parametrize("method", ["default", "prompt", "adacd", "adacd-gated"])
@pytest.mark.parametrize("script", [polite(("hi", "Yo there"), ("héé", "Öäß"), sharp=3.0), noisy])
def test_the_events_are_those_of_the_engine(method, script):
    over, here = both(script, Request(pair()), Request(pair("héé")), method=method)
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
    ],
)
def test_the_settings_mean_the_same(settings):
    over, here = both(polite(("hi", "Yo there"), sharp=3.0), Request(pair()), **settings)
    assert over == here
    over, here = both(noisy, Request(pair()), **settings)
    assert over == here


@pytest.mark.parametrize("method", ["default", "adacd"])
def test_the_window_opens_after_the_thinking(method):
    over, here = both(thinking, Request(pair(thinking=MARKS)), method=method, contrast_steps=2)
    assert over == here
    assert [step.thinking for step in steps(over)] == [True] * 4 + [False] * 4


@pytest.mark.parametrize("method", ["default", "adacd"])
def test_a_model_that_may_think_and_does_not(method):
    script = polite(("hi", "Yo"))
    over, here = both(script, Request(pair(thinking=MARKS)), method=method)
    assert over == here
    assert not any(step.thinking for step in steps(over))


@pytest.mark.parametrize("method", ["adacd", "adacd-gated"])
def test_a_draw_inside_the_window_is_the_engines(method):
    """The seed's noise is drawn here, over the whole vocabulary; after the window the server draws."""
    settings = {"method": method, "temperature": 1.3, "contrast_steps": 24, "max_new_tokens": 12}
    over, here = both(noisy, Request(pair(), seed=11), **settings)
    window = next((n for n, step in enumerate(steps(here)) if step.measures.agreement is None), 12)
    assert window > 0
    assert steps(over)[:window] == steps(here)[:window]


def test_candidates_and_logprobs_are_filled_in_and_outside_the_window():
    request = Request(pair(), candidates=3, top_logprobs=2)
    values = Settings(max_new_tokens=6, contrast_steps=3)
    model, dialect = served(noisy)
    over, here = (steps(list(decode(each, [request], values))) for each in (model, scripted(noisy)))
    for mine, theirs in zip(over, here, strict=True):
        assert [each.token_id for each in mine.candidates] == [each.token_id for each in theirs.candidates]
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-4)
        assert [each.token_id for each in mine.top_logprobs] == [
            each.token_id for each in theirs.top_logprobs
        ]
        assert [each.logprob for each in mine.top_logprobs] == pytest.approx(
            [each.logprob for each in theirs.top_logprobs], abs=1e-4
        )
    assert dialect.opened[0][3] == 3


def test_only_tokens_that_the_server_told_of_are_candidates(monkeypatch):
    monkeypatch.setattr(answer_module, "FIRST_COUNTS", (2, 2))
    request = Request(pair(), candidates=6, top_logprobs=5)
    values = Settings(max_new_tokens=4, contrast_steps=3)
    model, _ = served(noisy)
    whole, here = (steps(list(decode(each, [request], values))) for each in (model, scripted(noisy)))
    few = steps(list(decode(served(noisy, most=3)[0], [request], values)))
    for mine, theirs in zip(whole, here, strict=True):
        assert [each.token_id for each in mine.candidates] == [each.token_id for each in theirs.candidates]
        assert len(mine.top_logprobs) == 5
    assert [len(step.top_logprobs) for step in few] == [3] * len(few)
    assert all(3 <= len(step.candidates) <= 6 for step in few)


def test_a_list_that_is_too_short_is_asked_for_again_and_longer(monkeypatch):
    monkeypatch.setattr(answer_module, "FIRST_COUNTS", (2, 4))
    model, dialect = served(noisy)
    events = list(decode(model, [Request(pair())], Settings(max_new_tokens=10)))
    here = list(decode(scripted(noisy), [Request(pair())], Settings(max_new_tokens=10)))
    assert [step.token_id for step in steps(events)] == [step.token_id for step in steps(here)]
    assert all(step.exact for step in steps(events))
    assert {count for _, count in dialect.asked} >= {2, 4, 16, 32}


def test_a_server_that_gives_too_few_is_told_of_once(monkeypatch):
    model, _ = served(noisy, most=5)
    told = []
    model.server.told = told.append
    events = list(decode(model, [Request(pair()), Request(pair("yo"))], Settings(max_new_tokens=12)))
    inside = [step.exact for request in (0, 1) for step in steps(events, request)[:10]]
    after = [step.exact for request in (0, 1) for step in steps(events, request)[10:]]
    assert not all(inside)
    assert all(after)
    assert len(told) == 1
    assert told[0].startswith("A token that could have been chosen was not among the 5 log-probabilities")


def test_a_value_that_the_longest_list_lacks_is_asked_for_by_its_id():
    model, dialect = served(noisy, most=40)
    values = Settings(max_new_tokens=10, plausibility=0.02)
    without = steps(list(decode(model, [Request(pair())], values)))
    dialect.tells_values = True
    told = steps(list(decode(model, [Request(pair())], values)))
    here = steps(list(decode(scripted(noisy), [Request(pair())], values)))
    assert not all(step.exact for step in without)
    assert all(step.exact for step in told)
    assert [step.token_id for step in told] == [step.token_id for step in here]


def test_a_value_above_those_of_the_list_that_lacks_it_is_not_believed():
    model, dialect = served(noisy, most=40)
    dialect.tells_values = True
    values = dialect.values

    async def raised(ids, tokens):
        return {token: value + 5.0 for token, value in (await values(ids, tokens)).items()}

    dialect.values = raised
    told = steps(list(decode(model, [Request(pair())], Settings(max_new_tokens=10, plausibility=0.02))))
    dialect.tells_values = False
    without = steps(list(decode(model, [Request(pair())], Settings(max_new_tokens=10, plausibility=0.02))))
    assert [step.exact for step in told] == [step.exact for step in without]
    assert not all(step.exact for step in told)


def test_the_rest_is_one_request_that_passes_the_sampling_on():
    model, dialect = served(polite(("hi", "Yo there, you"), sharp=3.0))
    values = Settings(
        max_new_tokens=9, temperature=0.7, top_p=0.9, top_k=30, seed=5, contrast_steps=2, method="adacd"
    )
    events = list(decode(model, [Request(pair())], values))
    ((ids, sampling, length, count),) = dialect.opened
    said = tuple(step.token_id for step in steps(events)[:2])
    assert ids == (*pair().unprompted_ids, *said)
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (0.7, 0.9, 30, 7)
    assert (length, count) == (7, 1)


def test_no_more_run_at_once_than_there_are_places():
    model, dialect = served(polite(("hi", "Yo")))
    dialect.pause = 0.002
    requests = [Request(pair()) for _ in range(6)]
    events = list(decode(model, requests, Settings(method="default"), places=Places(2)))
    assert dialect.most_at_once == 2
    assert {event.text for event in events if isinstance(event, Finished)} == {"Yo"}


def test_without_a_word_as_many_run_as_the_server_has_room_for():
    model, dialect = served(polite(("hi", "Yo")), concurrency=3)
    dialect.pause = 0.002
    list(decode(model, [Request(pair()) for _ in range(6)], Settings(method="default")))
    assert dialect.most_at_once == 3


def test_a_stream_that_ends_early_is_taken_up_again():
    script = polite(("hi", "Yo there, you"))
    model, dialect = served(script)
    dialect.cut = 3
    events = list(decode(model, [Request(pair())], Settings(method="default")))
    assert events[-1].text == "Yo there, you"
    assert len(dialect.opened) > 2


def test_a_stream_that_says_nothing_is_answered_token_by_token():
    model, dialect = served(polite(("hi", "Yo")))
    dialect.cut = 0
    events = list(decode(model, [Request(pair())], Settings(method="default")))
    assert events[-1].text == "Yo"
    assert len(dialect.asked) == 3


def test_a_stream_that_breaks_is_taken_up_again_where_it_was():
    model, dialect = served(polite(("hi", "Yo there, you")))
    broken = []

    def break_once(number):
        if number == 4 and not broken:
            broken.append(number)
            raise ServerGone("the connection broke")

    dialect.before_token = break_once
    events = list(decode(model, [Request(pair())], Settings(method="default")))
    assert events[-1].text == "Yo there, you"
    assert dialect.opened[1][0] == (*pair().unprompted_ids, *b"Yo t")


def test_a_stream_that_falls_silent_again_and_again_is_given_up():
    model, dialect = served(polite(("hi", "Yo there, you")))

    def silent(number):
        if number == 2:
            raise ServerSilent("it gave no token for 60 s")

    dialect.before_token = silent
    texts = []
    with pytest.raises(ServerError, match="it gave no token for 60 s"):
        for event in decode(model, [Request(pair())], Settings(method="default")):
            texts.append(event.text if isinstance(event, TokenStep) else "")
    assert "".join(texts) == "Yo t"
    assert len(dialect.opened) == 2


def failing_at(dialect, prompt, error):
    """Has the streams of one prompt fail at their third token."""
    stream = dialect.stream

    async def fail(ids, sampling, length, count):
        said = 0
        async for each in stream(ids, sampling, length, count):
            if tuple(ids[: len(prompt)]) == tuple(prompt) and said == 2:
                raise error
            said += 1
            yield each

    dialect.stream = fail


def test_a_server_that_fails_in_mid_answer_is_an_error_and_what_it_said_was_given():
    model, dialect = served(polite(("hi", "Yo there")))
    failing_at(dialect, pair().unprompted_ids, ServerRefused("no memory left"))
    decoder = model.decoder()
    for question in ("hi", "hi"):
        decoder.submit(Request(pair(question)), Settings(method="default"))
    texts = []
    with pytest.raises(ServerError) as error:
        while decoder.busy:
            for event in decoder.step():
                texts.append((event.request, event.text))
    assert error.value.message == "The server at scripted failed: no memory left."
    assert error.value.exit_code == 1
    assert {(0, "Y"), (0, "o")} <= {*texts}
    assert not decoder.busy


def test_a_request_that_fails_by_itself_leaves_the_others_alone():
    model, dialect = served(polite(("hi", "Yo there"), ("yo", "Hi")))
    failing_at(dialect, pair().unprompted_ids, ServerRefused("no memory left"))
    told = []
    decoder = model.decoder(failed=lambda number, error: told.append((number, error.message)))
    for question in ("hi", "yo"):
        decoder.submit(Request(pair(question)), Settings(method="default"))
    events = []
    while decoder.busy:
        events += decoder.step()
    assert told == [(0, "The server at scripted failed: no memory left.")]
    ends = {event.request: event for event in events if isinstance(event, Finished)}
    assert (ends[0].finish_reason, ends[0].text) == (FinishReason.CANCELLED, "Yo")
    assert (ends[1].finish_reason, ends[1].text) == (FinishReason.STOP, "Hi")


def test_cancelling_one_ends_it_and_leaves_the_others():
    model, dialect = served(polite(("hi", "Yo there" * 40), ("yo", "Hi")))
    dialect.pause = 0.002
    enough = []
    events = []
    values = Settings(method="default")
    for event in decode(
        model,
        [Request(pair()), Request(pair("yo")), Request(pair("yo"))],
        values,
        places=Places(2),
        cancelled=lambda number: number == 2 or (number == 0 and len(enough) > 3),
    ):
        events.append(event)
        if isinstance(event, TokenStep) and event.request == 0:
            enough.append(event.text)
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


def test_close_ends_everything_after_what_was_still_to_be_told():
    model, dialect = served(polite(("hi", "Yo there" * 40)))
    dialect.pause = 0.002
    decoder = model.decoder(places=Places(1))
    for _ in range(2):
        decoder.submit(Request(pair()), Settings(method="default"))
    events = list(decoder.step())
    assert (decoder.running, decoder.waiting) == (1, 1)
    events += decoder.close()
    ends = {event.request: event for event in events if isinstance(event, Finished)}
    assert ends[0].text == "".join(step.text for step in steps(events))
    assert ends[1].tokens == 0
    assert not decoder.busy
    assert wait_until(lambda: dialect.running == 0)


def test_a_consumer_that_stops_iterating_leaves_nothing_running_at_the_server():
    model, dialect = served(polite(("hi", "Yo there" * 40)))
    dialect.pause = 0.002
    events = decode(model, [Request(pair())], Settings(method="default"))
    for event in events:
        if isinstance(event, TokenStep):
            break
    assert dialect.running == 1
    events.close()
    del events, event
    assert wait_until(lambda: dialect.running == 0)


@pytest.mark.parametrize("method", ["selfcd", "safedecoding"])
def test_methods_that_need_more_than_a_server_tells_are_refused(method):
    model, _ = served(noisy)
    with pytest.raises(ConfigurationError, match="needs every token's logit or the weights"):
        list(decode(model, [Request(pair())], Settings(method=method)))


def test_the_context_ends_an_answer():
    over, here = (
        list(decode(each, [Request(pair())], Settings(max_new_tokens=50)))
        for each in (served(noisy, context=20)[0], scripted(noisy, context=20))
    )
    assert over[-1] == here[-1]
    assert over[-1].context_full


def test_the_confidence_of_a_streamed_token_is_the_best_ones():
    model, _ = served(polite(("hi", "Yo"), sharp=2.0))
    (first, *_) = steps(list(decode(model, [Request(pair())], Settings(method="default"))))
    assert first.measures.confidence == pytest.approx(math.exp(2) / (math.exp(2) + BYTE_VOCAB - 1), rel=1e-4)


def test_the_loop_may_be_ended_from_within():
    """Its owner may become garbage in any thread, the loop's own among them."""
    background, ended = Background(), []

    async def last():
        ended.append(threading.current_thread().name)

    async def stop():
        background.stop(last())

    background.run(stop())
    assert wait_until(lambda: ended) == ["adacd-requests"]
