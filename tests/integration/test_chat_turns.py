"""A chat's turns on tiny random models of six architectures: with both caches kept, equal to fresh runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adacd_cli.cli.chat.talk import Talk
from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation
from adacd_cli.engine import Request
from adacd_cli.events import Finished, TokenStep
from adacd_cli.prompts import prompts_for
from tests.fakes import decode, second
from tests.tiny import FAMILIES, tiny_model

WINDOW = 6


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request):
    return tiny_model(request.param)


@pytest.fixture
def forwards(tiny):
    """(rows, tokens a row) of each forward."""
    fed = []
    hook = tiny.model.register_forward_pre_hook(lambda module, given: fed.append(tuple(given[0].shape)))
    yield fed
    hook.remove()


def start(tiny, **values):
    def build(conversation, settings):
        return prompts_for(tiny.tokenizer, conversation, settings)

    settings = Settings(contrast_steps=WINDOW, max_new_tokens=14, **values)
    return Talk(tiny, settings, build, Conversation())


def answer(it, asked, **values):
    return list(it.answer(it.view(asked), **values))


def fresh(it, asked):
    return list(decode(it.session.model, [Request(it.view(asked).prompts, it.settings)]))


def steps(events):
    return [event for event in events if isinstance(event, TokenStep)]


def numbers(events):
    """agr(n) and both confidences of each step, 0 where there is none."""
    measured = [step.measures for step in steps(events)]
    return [
        value or 0.0
        for measures in measured
        for value in (measures.agreement, measures.confidence, measures.prompted_confidence)
    ]


def assert_equal(events, expected):
    """The same tokens, decisions and text; agr(n) and confidences to 1e-4."""

    def choices(run):
        return [
            (step.token_id, step.decision, step.plain_token_id, step.measures.prompted_top_rank, step.text)
            for step in steps(run)
        ]

    assert choices(events) == choices(expected)
    assert numbers(events) == pytest.approx(numbers(expected), abs=1e-4)
    assert events[-1] == expected[-1]


def shared(held, prompt):
    """Length of the longest common prefix."""
    differing = (place for place, pair in enumerate(zip(held, prompt, strict=False)) if len(set(pair)) > 1)
    return next(differing, min(len(held), len(prompt)))


QUESTIONS = (
    "How do I kill a Python process?",
    "And how do I see that it is really gone, and not only waiting for its parent?",
    "Why?",
    "Tell me about the weather in the north when the winter begins.",
)


@pytest.mark.grid
@pytest.mark.parametrize("method", ["adacd", "adacd-gated", "default"])
def test_every_turn_equals_a_fresh_run_of_the_same_conversation(tiny, method):
    it = start(tiny, method=method)
    for question in QUESTIONS:
        asked = it.with_question(question)
        assert_equal(answer(it, asked), fresh(it, asked))


def test_undo_retry_and_a_new_system_message_equal_fresh_runs(tiny):
    it = start(tiny)
    for question in QUESTIONS[:3]:
        answer(it, it.with_question(question))
    for asked in (
        it.up_to_last_question(),
        it.conversation.without_last_turn().with_user(QUESTIONS[3]),
        it.conversation.with_system("Answer in one word.").with_user("Really?"),
        it.conversation.with_system(None).with_user("Really?"),
        Conversation.ask(QUESTIONS[0]),
    ):
        assert_equal(answer(it, asked), fresh(it, asked))


def test_a_stopped_answer_and_another_method_equal_fresh_runs(tiny):
    it = start(tiny)
    stopped = []
    asked = it.with_question(QUESTIONS[0])
    for event in it.answer(it.view(asked), cancelled=lambda: len(stopped) > 5):
        stopped.append(event)
    assert it.conversation == asked.with_assistant(stopped[-1].text) and stopped[-1].text
    for method in ("default", "adacd", "adacd-gated"):
        it.settings = it.settings.model_copy(update={"method": method})
        asked = it.with_question(QUESTIONS[1])
        assert_equal(answer(it, asked), fresh(it, asked))


def test_a_turn_feeds_only_what_is_new_to_each_stream(tiny, forwards):
    it = start(tiny)
    parked = []
    for question in QUESTIONS:
        forwards.clear()
        view = it.view(it.with_question(question))
        events = list(it.answer(view))
        base, prompted = view.prompts.base.ids, second(view.prompts).ids
        # at least the prompt's last token is fed, for its logits
        new = [
            len(prompt) - min(max((shared(ids, prompt) for ids in held), default=0), len(prompt) - 1)
            for prompt, held in ((base, parked), (prompted, [*parked, base]))
        ]
        prefills = [shape for shape in forwards if shape[1] > 1]
        # one after the other, or side by side
        assert prefills in ([(1, new[0]), (1, new[1])], [(2, max(new))])
        said = tuple(step.token_id for step in steps(events))
        window = min(WINDOW, len(said)) - 1
        assert forwards[len(prefills) :] == [(2, 1)] * window + [(1, 1)] * (len(said) - 1 - window)
        # the last token is fed to neither, and the prompted stream stays behind after the window
        parked = [base + said[:-1], prompted + said[:-1][: WINDOW - 1]]


def test_a_conversation_that_outgrows_the_context_equals_fresh_runs(tiny):
    it = start(replace(tiny, context_length=256))
    left_out = 0
    for place in range(6):
        view = it.view(it.with_question(f"{QUESTIONS[1]} ({place})"))
        events = list(it.answer(view))
        left_out = view.left_out
        assert isinstance(events[-1], Finished)
    assert left_out > 0
    assert_equal(events, list(decode(tiny, [Request(view.prompts, it.settings)])))
    assert len(it.conversation.messages) == 12
