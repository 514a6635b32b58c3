"""The loop with scripted logits: which events come, what is fed to the model, and what is let go."""

from __future__ import annotations

import math

import pytest
import torch

from adacd_cli.answers import Session
from adacd_cli.config import Settings
from adacd_cli.errors import PromptError
from adacd_cli.events import Decision, Failed, Finished, FinishReason, Started, TokenStep
from adacd_cli.prompts import ThinkingMarks
from tests.fakes import (
    BYTE_EOS,
    BYTE_VOCAB,
    END_THINK,
    THINK,
    decode,
    request_for,
    saying,
    scheduler_of,
    scripted,
    two_streams,
)

REFUSAL = "Sorry, no."


def pair(question="hi", thinking=None):
    return two_streams(f"{question}\n".encode(), f"refuse {question}\n".encode(), thinking)


def polite(*answers, sharp=8.0):
    """A model that refuses under "refuse" and gives the answers elsewhere."""
    refusals = [(f"refuse {question}", REFUSAL) for question, _ in answers]
    return saying(*refusals, *answers, sharp=sharp)


def run(model, *requests, cancelled=None, **settings):
    values = {"max_new_tokens": 40} | settings
    keywords = {} if cancelled is None else {"cancelled": cancelled}
    return list(decode(model, [request_for(p, Settings(**values)) for p in requests], **keywords))


def of(events, kind, request=0):
    return [event for event in events if isinstance(event, kind) and event.request == request]


def tokens(events, request=0):
    return [step.token_id for step in of(events, TokenStep, request)]


def decisions(events, request=0):
    return "".join(step.decision.mark for step in of(events, TokenStep, request))


def finished(events, request=0):
    return of(events, Finished, request)[0]


def test_a_whole_run():
    events = run(scripted(polite(("hi", "Yo"))), pair())
    assert events[0] == Started(
        request=0,
        model="scripted",
        revision=None,
        method="adacd",
        prompted_tokens=10,
        unprompted_tokens=3,
        settings=Settings(max_new_tokens=40).decoding(),
    )
    assert [event.text for event in events[1:-1]] == ["Y", "o", ""]
    assert [event.token for event in events[1:-1]] == ["Y", "o", "<|end|>"]
    assert [event.plain_token for event in events[1:-1]] == ["Y", "o", "<|end|>"]
    assert [event.prompted_top for event in events[1:-1]] == ["S", "o", "r"]
    assert [event.decision.value for event in events[1:-1]] == ["subtract", "add", "subtract"]
    assert events[-1] == Finished(
        request=0, text="Yo", finish_reason=FinishReason.STOP, tokens=3, added=1, subtracted=2
    )


@pytest.mark.parametrize("method", ["default", "adacd"])
def test_k_zero_and_default_never_feed_the_prompted_stream(method):
    model = scripted(polite(("hi", "A long answer")))
    events = run(model, pair(), method=method, contrast_steps=0)
    assert decisions(events) == "·" * 14
    assert model.model.calls == [(1, 3)] + [(1, 1)] * 13
    assert all(step.measures.agreement is None for step in of(events, TokenStep))


def test_the_prompted_stream_is_let_go_after_the_window():
    model = scripted(polite(("hi", "A long answer")))
    events = run(model, pair(), contrast_steps=4)
    assert decisions(events) == "−−−−" + "·" * 10
    # both streams in one forward, for the prompts and for the three tokens that follow in the window, then one
    assert model.model.calls == [(2, 10)] + [(2, 1)] * 3 + [(1, 1)] * 10


def test_gated_leaves_the_track_with_the_first_token_of_its_own():
    model = scripted(polite(("hi", "A long answer")))
    events = run(model, pair(), method="adacd-gated")
    assert decisions(events) == "·" * 14
    assert model.model.calls == [(2, 10)] + [(1, 1)] * 13
    first, second = of(events, TokenStep)[:2]
    assert (first.measures.agreement, second.measures.agreement) == (0.5, None)


def test_gated_stays_on_the_track_of_a_refusal():
    events = run(scripted(polite(("hi", REFUSAL))), pair(), gate=True)
    assert decisions(events) == "+" * 10 + "·"
    assert finished(events).text == REFUSAL


def test_plain_token_is_what_default_would_have_taken():
    # the plain stream leans to the refusal's S, too weakly for the confidence test: SUBTRACT turns it to O
    def script(ids):
        logits = [0.0] * 260
        refusing = ids[0] == ord("r")
        if ids[-1] == 10:
            logits[ord("S")] = 20.0 if refusing else 8.0
            logits[ord("O")] = 0.0 if refusing else 7.9
        else:
            logits[BYTE_EOS] = 9.0
        return logits

    events = run(scripted(script), pair())
    step = of(events, TokenStep)[0]
    assert (step.token, step.plain_token, step.decision) == ("O", "S", Decision.SUBTRACT)
    assert step.measures.agreement == 1.0
    assert finished(events).text == "O"


def test_a_batch_is_each_alone_and_a_finished_row_stops_costing():
    questions = [("hi", "Yo"), ("how are you", "Fine, thank you, and you?"), ("a longer one", "Short")]
    model = scripted(polite(*questions))
    together = run(model, *(pair(question) for question, _ in questions))
    assert [finished(together, request).text for request in range(3)] == [answer for _, answer in questions]
    rows = [rows for rows, _ in model.model.calls]
    assert rows[0] == 6  # both streams of all three in one forward
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] == 1
    for request, (question, _) in enumerate(questions):
        alone = run(model, pair(question))
        assert tokens(alone) == tokens(together, request)
        assert decisions(alone) == decisions(together, request)


def test_zero_tokens_is_an_empty_answer():
    model = scripted(polite(("hi", "Yo")))
    assert run(model, pair(), max_new_tokens=0)[1:] == [
        Finished(0, "", FinishReason.LENGTH, tokens=0, added=0, subtracted=0)
    ]
    assert model.model.calls == []


def test_length_ends_an_answer():
    assert finished(run(scripted(polite(("hi", "Yo there"))), pair(), max_new_tokens=3)).text == "Yo "


def test_the_context_ends_an_answer_and_says_so():
    model = scripted(polite(("hi", "Yo there")), context=7)
    end = finished(run(model, pair(), method="default"))
    assert (end.text, end.finish_reason, end.context_full) == ("Yo t", FinishReason.LENGTH, True)
    # with the contrast prompt, ten tokens long, the window has no room at all
    with pytest.raises(PromptError) as caught:
        run(model, pair())
    assert caught.value.message == (
        "The prompt is 10 tokens long with the contrast prompt (3 without), "
        "and the model's context is 7, the answer included."
    )
    with pytest.raises(PromptError, match=r"10 tokens long with the safety prompt \(3 without\)"):
        run(model, pair(), method="selfcd")


def test_the_prompted_stream_fills_the_context_first():
    end = finished(run(scripted(polite(("hi", "Yo there, you")), context=14), pair()))
    assert (end.text, end.context_full) == ("Yo t", True)
    # a window that closes before frees the answer of that bound
    end = finished(run(scripted(polite(("hi", "Yo there, you")), context=14), pair(), contrast_steps=4))
    assert (end.text, end.context_full) == ("Yo there, y", True)


@pytest.mark.parametrize(
    ("stop", "text", "texts"),
    [
        (["re"], "Yo the", ["Y", "o", " ", "t", "h", "e", "", ""]),
        (["o t", "Yo"], "", ["", ""]),
        (["!"], "Yo there", [*"Yo there", ""]),
        (["there!"], "Yo there", [*"Yo ", "", "", "", "", "", "there"]),
    ],
)
def test_stop_strings(stop, text, texts):
    events = run(scripted(polite(("hi", "Yo there"))), pair(), stop=stop, method="default")
    assert [step.text for step in of(events, TokenStep)] == texts
    assert (finished(events).text, finished(events).finish_reason) == (text, FinishReason.STOP)


def test_text_waits_for_its_last_byte_and_comes_with_the_end():
    events = run(scripted(polite(("hi", "é€"))), pair(), max_new_tokens=4)
    assert [step.text for step in of(events, TokenStep)] == ["", "é", "", "\ufffd"]
    assert finished(events).text == "é\ufffd"


def test_cancelling_one_leaves_the_others():
    model = scripted(polite(("hi", "Yo there"), ("ho", "Hello you")))
    seen = [0, 0]

    def cancelled(request):
        seen[request] += 1
        return request == 0 and seen[0] > 3

    events = run(model, pair("hi"), pair("ho"), cancelled=cancelled)
    assert (finished(events, 0).finish_reason, finished(events, 0).text) == (FinishReason.CANCELLED, "Yo ")
    assert (finished(events, 1).finish_reason, finished(events, 1).text) == (FinishReason.STOP, "Hello you")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("stream", ["unprompted", "prompted"])
def test_logits_that_are_not_finite_are_an_error_not_a_token(bad, stream):
    good = polite(("hi", "Yo there"))

    def script(ids):
        logits = good(ids)
        if bytes(ids).startswith(b"refuse") == (stream == "prompted") and ids[-1] == ord("o"):
            logits[7] = bad
        return logits

    events = list(decode(scripted(script), [request_for(pair(), Settings())]))
    assert tokens(events) == list(b"Yo")
    (failed,) = of(events, Failed)
    assert failed.error == "LogitsError"
    assert failed.message == "The logits of step 2 are not finite (NaN or infinity), in float32."


def test_a_request_that_fails_by_itself_leaves_the_others_alone():
    good = polite(("hi", "Yo there"), ("ho", "Hello"))

    def script(ids):
        logits = good(ids)
        if bytes(ids).endswith(b"hi\nYo"):
            logits[7] = math.nan
        return logits

    events = run(scripted(script), pair("hi"), pair("ho"))
    (failed,) = of(events, Failed)
    assert (failed.error, failed.message) == (
        "LogitsError",
        "The logits of step 2 are not finite (NaN or infinity), in float32.",
    )
    assert (tokens(events, 0), of(events, Finished, 0)) == (list(b"Yo"), [])
    assert (finished(events, 1).finish_reason, finished(events, 1).text) == (FinishReason.STOP, "Hello")


def test_a_crowds_prompts_are_read_a_portion_at_a_time():
    question = "x" * 200 + " hi"
    model = scripted(polite(("hi", "Yo")))
    scheduler = scheduler_of(model)
    for asked in (question, question, "hi", question):
        scheduler.submit(request_for(pair(asked), Settings(method="default")))
    begun, events = [], []
    while scheduler.busy:
        step = list(scheduler.step())
        events += step
        begun.append(sorted(event.request for event in step if isinstance(event, TokenStep)))
    # 512 tokens a step: two prompts and the short one, then the last
    assert begun[:2] == [[0, 1, 2], [0, 1, 2, 3]]
    assert [finished(events, number).text for number in range(4)] == ["Yo"] * 4


def test_a_long_prompt_is_read_in_pieces_while_the_others_get_their_tokens():
    question = "x" * 1500 + " hi"
    answers = saying(("refuse " + question, REFUSAL), ("refuse hi", REFUSAL), ("hi", "Yo"))
    model = scripted(lambda ids: answers(ids) if 10 in ids else [0.0] * BYTE_VOCAB)
    scheduler = scheduler_of(model)
    for asked in ("hi", question, "hi"):
        scheduler.submit(request_for(pair(asked), Settings()))
    begun, events = [], []
    while scheduler.busy:
        step = list(scheduler.step())
        events += step
        begun.append("".join(str(event.request) for event in step if isinstance(event, TokenStep)))
    pieces = [new for rows, new in model.model.calls if new > 100]
    # 512 tokens a step: the prompt without the contrast prompt, then the one with it, whose "refuse " was
    # computed for another request already
    assert pieces == [512, 512, 480, 512, 512, 480]
    assert begun == ["02", "02", "02", "", "", "", "1", "1", "1"]
    assert [finished(events, number).text for number in range(3)] == ["Yo"] * 3


def test_each_request_reports_what_it_asked_for():
    model = scripted(polite(("hi", "Yo"), ("ho", "Ho"), ("ha", "Ha")))
    own = Settings(max_new_tokens=1, method="default")
    requests = [
        request_for(pair("hi"), own, candidates=3, top_logprobs=2),
        request_for(pair("ho"), own, top_logprobs=0, candidates=1),
        request_for(pair("ha"), own),
    ]
    events = list(decode(model, requests))
    total = 8 + math.log1p(259 * math.exp(-8))
    top, alone, neither = (of(events, TokenStep, number)[0] for number in range(3))
    assert (len(top.candidates), len(top.top_logprobs)) == (3, 2)
    assert top.candidates[0].token_id == top.top_logprobs[0].token_id == ord("Y")
    assert [found.logprob for found in top.top_logprobs] == pytest.approx([8 - total, -total], rel=1e-5)
    assert top.logprob == pytest.approx(8 - total, rel=1e-5)
    assert (alone.logprob, alone.top_logprobs, len(alone.candidates)) == (
        pytest.approx(8 - total, rel=1e-5),
        (),
        1,
    )
    assert (neither.logprob, neither.top_logprobs) == (None, ())


def test_the_logprobs_inside_the_window_are_the_unprompted_streams():
    model = scripted(polite(("hi", "Yo")))
    inside, outside = (
        of(
            list(decode(model, [request_for(pair("hi"), Settings(max_new_tokens=1, **own), top_logprobs=1)])),
            TokenStep,
        )[0]
        for own in ({}, {"method": "default"})
    )
    assert (inside.decision, outside.decision) == (Decision.SUBTRACT, Decision.PLAIN)
    assert (inside.logprob, inside.top_logprobs) == (outside.logprob, outside.top_logprobs)


def test_more_logprobs_than_there_are_tokens_are_all_of_them():
    model = scripted(polite(("hi", "Yo")))
    request = request_for(pair("hi"), Settings(max_new_tokens=1), top_logprobs=500, candidates=400)
    step = of(list(decode(model, [request])), TokenStep)[0]
    assert len(step.top_logprobs) == len(step.candidates) == 260


def test_sampling_is_repeated_by_its_seed_alone_or_in_a_batch():
    model = scripted(polite(("hi", "Yo there"), ("ho", "Hello you"), sharp=2.0))
    settings = {"temperature": 1.0, "max_new_tokens": 12}
    alone = [run(model, pair(question), seed=5, **settings) for question in ("hi", "ho")]
    together = run(model, pair("hi"), pair("ho"), seed=5, **settings)
    assert tokens(together, 0) == tokens(alone[0])
    assert tokens(together, 1) == tokens(alone[1])
    assert tokens(run(model, pair("hi"), seed=6, **settings)) != tokens(alone[0])
    drawn = run(model, pair("hi"), **settings)
    assert tokens(run(model, pair("hi"), seed=drawn[0].seed, **settings)) == tokens(drawn)


def test_under_sampling_a_plain_step_takes_the_plain_token():
    events = run(scripted(polite(("hi", "Yo"), sharp=1.0)), pair(), method="default", temperature=2.0, seed=1)
    assert [step.token_id for step in of(events, TokenStep)] == [
        s.plain_token_id for s in of(events, TokenStep)
    ]


MARKS = ThinkingMarks("<think>", "</think>", opened=False)


def thinking_model(answer="\n\nYo there"):
    """Thinks "hmm", then answers; under "refuse" it says N once the thinking is over."""
    thought = [THINK, *b"hmm", END_THINK]
    text = [*thought, *answer.encode(), BYTE_EOS]

    def script(ids):
        said = len(ids) - ids.index(10) - 1
        refusing = ids[0] == ord("r") and said >= len(thought)
        logits = [0.0] * 260
        logits[ord("N") if refusing else text[min(said, len(text) - 1)]] = 8.0
        return logits

    return scripted(script)


def test_the_window_opens_after_the_thinking_and_catches_up_in_one_forward():
    model = thinking_model()
    events = run(model, pair(thinking=MARKS), contrast_steps=3)
    steps = of(events, TokenStep)
    assert [step.thinking for step in steps] == [True] * 5 + [False] * 11
    assert decisions(events) == "·" * 5 + "−" * 3 + "·" * 8
    assert (finished(events).text, finished(events).thinking) == ("Yo there", "<think>hmm</think>")
    assert model.model.calls[:8] == [(1, 3)] + [(1, 1)] * 5 + [(1, 10 + 5), (2, 1)]


def test_a_model_that_does_not_think_after_all_is_contrasted_from_its_first_token():
    events = run(scripted(polite(("hi", "Yo"))), pair(thinking=MARKS))
    assert decisions(events) == decisions(run(scripted(polite(("hi", "Yo"))), pair()))
    assert not any(step.thinking for step in of(events, TokenStep))


def test_an_answer_that_begins_like_a_tag_is_an_answer():
    events = run(scripted(polite(("hi", "<b>Yo</b>"))), pair(thinking=MARKS))
    assert (finished(events).text, finished(events).thinking) == ("<b>Yo</b>", "")


def test_thinking_that_never_ends_is_no_answer():
    end = finished(run(thinking_model(), pair(thinking=MARKS), max_new_tokens=4))
    assert (end.text, end.thinking, end.finish_reason) == ("", "<think>hmm", FinishReason.LENGTH)


def test_rows_that_stop_thinking_at_different_steps_get_a_window_each():
    model = thinking_model()
    opened = ThinkingMarks("<think>", "</think>", opened=True)
    requests = [pair(thinking=MARKS), pair("hi there"), pair("ho", thinking=opened)]
    together = run(model, *requests, contrast_steps=3)
    for request, asked in enumerate(requests):
        alone = run(model, asked, contrast_steps=3)
        assert [(s.token_id, s.decision, s.thinking) for s in of(together, TokenStep, request)] == [
            (s.token_id, s.decision, s.thinking) for s in of(alone, TokenStep)
        ]


def test_candidates_tell_both_streams_and_the_mask():
    model = scripted(polite(("hi", "Yo")))
    events = list(decode(model, [request_for(pair(), Settings(), candidates=3)]))
    chosen, refusal, other = of(events, TokenStep)[0].candidates
    total = math.log(math.exp(8) + 259)
    assert (chosen.text, chosen.kept, refusal.text, refusal.kept) == ("Y", True, "S", False)
    assert (chosen.unprompted_logprob, chosen.prompted_logprob) == pytest.approx(
        (8 - total, -total), abs=1e-5
    )
    assert (refusal.unprompted_logprob, refusal.prompted_logprob) == pytest.approx(
        (-total, 8 - total), abs=1e-5
    )
    assert chosen.score == pytest.approx(0 + 4.5 * 8)
    assert (refusal.score, other.score, other.kept) == (None, None, False)
    assert of(events, TokenStep)[-1].candidates[0].prompted_logprob is not None
    assert [len(step.candidates) for step in of(events, TokenStep)] == [3, 3, 3]


def test_one_candidate_is_the_chosen_token():
    events = list(decode(scripted(polite(("hi", "Yo"))), [request_for(pair(), Settings(), candidates=1)]))
    assert [step.candidates[0].token_id for step in of(events, TokenStep)] == tokens(events)


def test_a_session_prefills_only_what_is_new():
    model = scripted(saying(("hi", "Yo")))
    session = Session(model, 10**9)
    first = list(session.decode([request_for(pair(), Settings())]))
    model.model.calls.clear()
    again = list(session.decode([request_for(pair(), Settings())]))
    assert [e for e in again if not isinstance(e, Started)] == [
        e for e in first if not isinstance(e, Started)
    ]
    # the caches are taken back to the prompts; only each prompt's last token is fed again
    assert model.model.calls == [(2, 1)] * 3
    model.model.calls.clear()
    longer = two_streams(b"hi\nYo hi\n", b"refuse hi\nYo hi\n")
    list(session.decode([request_for(longer, Settings(max_new_tokens=1))]))
    assert model.model.calls == [(2, len(" hi\n"))]


def test_an_interrupted_forward_leaves_no_half_cache():
    model = scripted(polite(("hi", "Yo")))
    session = Session(model, 10**9)
    expected = list(session.decode([request_for(pair(), Settings())]))
    broken, whole = model.model, model.model.script

    def interrupt(ids):
        raise KeyboardInterrupt

    broken.script = interrupt
    events = []
    with pytest.raises(KeyboardInterrupt):
        for event in session.decode([request_for(pair(), Settings())]):
            events.append(event)
    assert events[1:] == [Finished(0, "", FinishReason.CANCELLED, tokens=0, added=0, subtracted=0)]
    broken.script = whole
    assert tokens(list(session.decode([request_for(pair(), Settings())]))) == tokens(expected)


def test_the_logits_are_judged_in_float32():
    model = scripted(polite(("hi", "Yo")))
    model.model.dtype = torch.bfloat16
    assert finished(run(model, pair())).text == "Yo"
