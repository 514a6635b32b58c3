"""A chat without its terminal: what is fed, what is kept, what is left out, with scripted logits."""

from __future__ import annotations

import pytest

from adacd_cli.conversation import Conversation, Message
from adacd_cli.engine import Request
from adacd_cli.errors import LogitsError, PromptError, UsageError
from adacd_cli.events import Finished, FinishReason, Started, TokenStep
from tests.chats import CONTRAST, byte_pair, hashed, talk
from tests.fakes import decode, saying, scripted

ANSWERS = ("hi", "Hello!"), ("why", "Because."), ("tell", "A tale.")
PREFIX = len(CONTRAST) + 1
"""Tokens that the prompted stream has more."""


def answer(it, conversation, **values):
    return list(it.answer(it.view(conversation), **values))


def ask(it, question, **values):
    return answer(it, it.with_question(question), **values)


def fresh(it, conversation):
    """The same question answered with nothing kept from before."""
    view = it.view(conversation)
    return list(decode(it.session.model, [Request(view.prompts, it.settings)]))


def said(events):
    return next(event.text for event in events if isinstance(event, Finished))


def turns(*texts):
    roles = ("user", "assistant") * len(texts)
    return tuple(Message(role, text) for role, text in zip(roles, texts, strict=False))


def test_a_turn_feeds_only_what_is_new_to_each_stream():
    model = scripted(saying(*ANSWERS))
    calls = model.model.calls
    it = talk(model)

    ask(it, "hi")
    assert calls == [(2, PREFIX + 3), *[(2, 1)] * 6]
    calls.clear()

    # "\x03" that closes the answer, and the question with its newline
    ask(it, "why")
    assert calls == [(2, 5), *[(2, 1)] * 8]
    assert it.conversation.messages == turns("hi", "Hello!", "why", "Because.")


def test_the_prompted_stream_catches_up_in_one_forward():
    model = scripted(saying(*ANSWERS))
    calls = model.model.calls
    it = talk(model, contrast_steps=2)

    ask(it, "hi")
    assert calls == [(2, PREFIX + 3), (2, 1), *[(1, 1)] * 5]
    calls.clear()

    # of "Hello!" the prompted stream was fed "H"
    ask(it, "why")
    assert calls[0] == (2, 5 + 5)


def test_undo_retry_and_a_new_system_message_feed_what_differs():
    model = scripted(saying(*ANSWERS))
    calls = model.model.calls
    it = talk(model)
    for question in ("hi", "why", "tell"):
        ask(it, question)

    calls.clear()
    it.conversation = it.conversation.without_last_turn()
    ask(it, "why")  # "why\n" instead of "tell\n": the closing byte 3 of the answer before is still held
    assert calls[0] == (2, 4)

    calls.clear()
    answer(it, it.up_to_last_question())  # only the last token of the prompt, for its logits
    assert calls[0] == (2, 1)

    calls.clear()
    it.conversation = it.conversation.with_system("S")
    ask(it, "tell")
    whole = len("S\x02hi\nHello!\x03why\nBecause.\x03why\nBecause.\x03tell\n")
    assert calls[0] == (2, whole)  # p* itself is kept


@pytest.mark.parametrize("method", ["adacd", "adacd-gated", "default"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_turn_equals_a_fresh_run_of_the_same_conversation(method, temperature):
    it = talk(
        scripted(hashed), method=method, temperature=temperature, seed=5, contrast_steps=4, max_new_tokens=9
    )
    asked = it.with_question("hi")
    for change in (
        lambda: it.with_question("why"),
        lambda: it.with_question("tell"),
        lambda: it.up_to_last_question(),
        lambda: it.conversation.without_last_turn().with_user("again"),
        lambda: it.conversation.with_system("S").with_user("more"),
        lambda: it.conversation.with_system(None).with_user("end"),
        lambda: Conversation().with_user("hi"),
    ):
        assert answer(it, asked) == fresh(it, asked)
        asked = change()


def test_another_method_in_between_leaves_the_caches_right():
    it = talk(scripted(hashed), contrast_steps=4, max_new_tokens=9)
    for place, method in enumerate(("adacd", "default", "adacd", "adacd-gated")):
        it.settings = it.settings.model_copy(update={"method": method})
        asked = it.with_question(f"question {place}")
        assert answer(it, asked) == fresh(it, asked)


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_a_stopped_answer_is_kept_and_the_next_turn_is_right(steps):
    it = talk(scripted(hashed), contrast_steps=4, max_new_tokens=9)
    ask(it, "hi")
    asked = it.with_question("why")
    events = []
    for event in it.answer(it.view(asked), cancelled=lambda: len(events) > steps):
        events.append(event)
    assert events[-1].finish_reason is FinishReason.CANCELLED
    assert it.conversation == asked.with_assistant(events[-1].text)
    assert len(events[-1].text) == steps
    assert it.trace == tuple(events)
    asked = it.with_question("tell")
    assert answer(it, asked) == fresh(it, asked)


def test_an_answer_that_is_closed_is_kept_as_far_as_it_was_said():
    it = talk(scripted(saying(*ANSWERS)))
    asked = it.with_question("hi")
    events = it.answer(it.view(asked))
    for _ in range(4):  # Started and three tokens
        next(events)
    events.close()
    assert it.conversation == asked.with_assistant("Hel")
    assert it.trace == ()
    assert said(ask(it, "why")) == "Because."


def test_an_answer_stopped_before_its_first_token_leaves_nothing():
    it = talk(scripted(saying(*ANSWERS)))
    ask(it, "hi")
    before = it.conversation
    events = ask(it, "why", cancelled=lambda: True)
    assert [type(event) for event in events] == [Started, Finished]
    assert it.conversation == before


def test_an_empty_answer_is_an_answer():
    it = talk(scripted(saying(*ANSWERS)), max_new_tokens=0)
    ask(it, "hi")
    assert it.conversation.messages == turns("hi", "")


def test_a_failed_answer_leaves_the_conversation_and_the_next_answer_right():
    broken = []

    def script(ids):
        logits = hashed(ids)
        return [float("nan")] * len(logits) if broken and len(ids) > broken[0] else logits

    it = talk(scripted(script), contrast_steps=4, max_new_tokens=9)
    ask(it, "hi")
    before = it.conversation
    broken.append(it.view(it.with_question("why")).prompts.longest + 2)
    with pytest.raises(LogitsError, match="step 3"):
        ask(it, "why")
    assert it.conversation == before
    broken.clear()
    it.session.model.model.calls.clear()
    asked = it.with_question("why")
    events = answer(it, asked)
    # nothing computed on the way to a NaN is kept
    assert it.session.model.model.calls[0] == (2, 24)
    assert events == fresh(it, asked)


def test_an_interrupted_forward_leaves_the_next_answer_right():
    pressed = []

    def script(ids):
        if pressed and len(ids) > pressed[0]:
            raise KeyboardInterrupt
        return hashed(ids)

    it = talk(scripted(script), contrast_steps=4, max_new_tokens=9)
    ask(it, "hi")
    asked = it.with_question("why")
    pressed.append(it.view(asked).prompts.longest + 2)
    with pytest.raises(KeyboardInterrupt):
        answer(it, asked)
    pressed.clear()
    kept = it.conversation.messages[-1]
    assert kept.role == "assistant" and len(kept.content) == 3
    again = it.with_question("tell")
    assert answer(it, again) == fresh(it, again)


def test_retry_draws_with_another_seed_where_the_seed_is_fixed():
    it = talk(scripted(hashed), temperature=1.0, seed=5)
    seeds = []
    answer(it, it.with_question("hi"))
    for _ in range(3):
        seeds.append(next(event.seed for event in it.trace if isinstance(event, Started)))
        answer(it, it.up_to_last_question(), seed=it.another_seed())
    assert seeds == [5, 6, 7]
    it.settings = it.settings.model_copy(update={"seed": None})
    assert it.another_seed() is None
    it.settings = it.settings.model_copy(update={"seed": 2**63 - 1})
    it.conversation = Conversation()
    assert it.another_seed() == 0


def test_what_cannot_be_asked_is_refused():
    it = talk(scripted(saying(*ANSWERS)))
    with pytest.raises(UsageError, match=r"There is no question yet\."):
        it.up_to_last_question()
    it.conversation = Conversation.ask("hi")
    with pytest.raises(UsageError, match=r"has no answer yet\."):
        it.with_question("why")


CONTEXT = 64
FIVE = Conversation(turns("hi", "Hello!", "why", "Because.", "hi", "Hello!", "why", "Because.", "tell"), "S")
LENGTHS = [53, 43, 30, 20, 7]
"""Tokens of FIVE in the unprompted stream with 0, 1, … exchanges left out; the prompted has PREFIX more."""


@pytest.mark.parametrize(
    ("context", "max_new_tokens", "left_out"),
    [
        (None, 512, 0),
        (LENGTHS[0] + PREFIX + 4, 4, 0),
        (LENGTHS[0] + PREFIX + 3, 4, 1),
        (LENGTHS[0] + PREFIX + 1, 0, 0),  # one position is needed in any case
        (LENGTHS[0] + PREFIX, 0, 1),
        (64, 512, 2),  # a quarter is for the answer: 48 remain, and 43 + 7 are too many
        (LENGTHS[2] + PREFIX + 4, 4, 2),
        (LENGTHS[2] + PREFIX + 3, 4, 3),
        (LENGTHS[4] + PREFIX + 4, 4, 4),
        (8, 512, 4),  # the last question always stays
    ],
)
def test_the_fewest_oldest_exchanges_are_left_out_that_leave_room_for_an_answer(
    context, max_new_tokens, left_out
):
    it = talk(scripted(hashed, context=context), max_new_tokens=max_new_tokens)
    view = it.view(FIVE)
    seen = Conversation(FIVE.messages[2 * left_out :], "S")
    assert (view.conversation, view.left_out) == (FIVE, left_out)
    assert view.prompts == byte_pair(seen, it.settings)
    assert len(view.prompts.base.ids) == LENGTHS[left_out]
    assert view.prompts.longest == LENGTHS[left_out] + PREFIX


def test_a_conversation_that_outgrows_the_context_goes_on_and_keeps_everything():
    it = talk(scripted(saying(*ANSWERS), context=CONTEXT), max_new_tokens=512)
    questions = ["hi", "why", "tell"] * 4
    left_out = []
    for question in questions:
        view = it.view(it.with_question(question))
        left_out.append(view.left_out)
        events = list(it.answer(view))
        assert events == fresh(it, view.conversation)
        assert view.prompts.longest <= CONTEXT * 3 // 4
    assert left_out == sorted(left_out) and left_out[-1] > 5
    texts = [message.content for message in it.conversation.messages]
    assert texts == [text for question in questions for text in (question, dict(ANSWERS)[question])]


def test_a_question_that_is_too_long_by_itself_is_refused_and_nothing_is_lost():
    model = scripted(saying(*ANSWERS), context=CONTEXT)
    it = talk(model)
    ask(it, "hi")
    before, calls = it.conversation, len(model.model.calls)
    with pytest.raises(PromptError, match=r"The prompt is 88 tokens long .* context is 64"):
        ask(it, "x" * 80)
    assert (it.conversation, len(model.model.calls)) == (before, calls)
    model.model.calls.clear()
    ask(it, "why")
    assert model.model.calls[0] == (2, 5)


def test_old_traces_are_let_go():
    it = talk(scripted(saying(*ANSWERS)))
    first = None
    for _ in range(40):
        ask(it, "hi")
        first = first or it.conversation
    assert any(isinstance(event, TokenStep) for event in it.trace)
    it.conversation = first
    assert it.trace == ()
