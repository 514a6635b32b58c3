"""Streams that fork: what they share is computed once, kept once, and changes no number."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adacd_cli.answers import Session
from adacd_cli.backends.torch.backend import TorchBackend
from adacd_cli.cli.chat.talk import Talk
from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation
from adacd_cli.engine import PrefixCache, Request, Scheduler
from adacd_cli.engine.answer import decode_ids
from adacd_cli.errors import PromptError
from adacd_cli.events import Finished, Started, TokenStep
from adacd_cli.prompts import ThinkingMarks, prompts_for
from tests.fakes import decode, request_for, second, two_streams
from tests.tiny import CONTEXT, FAMILIES, tiny_model

QUESTIONS = (
    "How do I kill a Python process?",
    "And how do I see that it is really gone, and not only waiting for its parent?",
    "Why?",
    "Tell me about the weather in the north when the winter begins.",
    "And in the south?",
)
SYSTEM = "You are a helpful assistant. Answer in a few words."
PLACEMENTS = ("system", "user-start", "user-end")


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")


@pytest.fixture
def fed(llama):
    """(rows, tokens a row) of each forward."""
    shapes = []
    hook = llama.model.register_forward_pre_hook(lambda module, given: shapes.append(tuple(given[0].shape)))
    yield shapes
    hook.remove()


def asked(model, question=QUESTIONS[0], system=SYSTEM, **values):
    settings = Settings(**{"max_new_tokens": 12, "contrast_steps": 4} | values)
    return Request(prompts_for(model.tokenizer, Conversation.ask(question, system), settings), settings)


def tokens(events, request=0):
    return [e.token_id for e in events if isinstance(e, TokenStep) and e.request == request]


def prefilled(shapes):
    """How many tokens prompts took, row by row."""
    return sum(rows * new for rows, new in shapes if new > 1)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_prompt_is_read_once_up_to_where_the_streams_part(llama, fed, placement):
    request = asked(llama, contrast_placement=placement)
    started, *events = decode(llama, [request])
    base, prompted = request.prompts.base.ids, second(request.prompts).ids
    shared = request.prompts.shared_with_base("prompted")
    assert started.shared_tokens == shared
    rest = decode_ids(llama.tokenizer, list(prompted[shared:]), control=True)
    assert rest.strip().startswith(request.settings.contrast_prompt)
    assert fed[:2] == [(1, len(base)), (1, len(prompted) - shared)]
    # then a token at a time: four by both streams, the first of which came with the prompts
    assert fed[2:] == [(2, 1)] * 3 + [(1, 1)] * (len(tokens(events)) - 4)


def test_with_user_end_only_what_follows_the_users_words_is_read_again(llama, fed):
    request = asked(llama, QUESTIONS[0] * 20, contrast_placement="user-end")
    list(decode(llama, [request]))
    after = len(second(request.prompts).ids) - request.prompts.shared_with_base("prompted")
    assert prefilled(fed) == len(request.prompts.base.ids) + after
    assert after < 25 < len(request.prompts.base.ids)


def test_requests_side_by_side_fork_from_each_other_too(llama, fed):
    requests = [asked(llama, question, contrast_placement="user-end") for question in QUESTIONS]
    alone = [tokens(decode(llama, [request])) for request in requests]
    fed.clear()
    cache = PrefixCache(10**9)
    events = list(decode(llama, requests, prefix_cache=cache, max_concurrency=1))
    assert [tokens(events, place) for place in range(len(requests))] == alone
    # the system message and what stands around it are read for the first request only
    common = len(tuple(llama.tokenizer(SYSTEM)["input_ids"]))
    each = [
        len(request.prompts.base.ids)
        + len(second(request.prompts).ids)
        - request.prompts.shared_with_base("prompted")
        for request in requests
    ]
    assert prefilled(fed) < sum(each) - (len(requests) - 1) * common
    assert len(cache) == len(requests)


@pytest.mark.grid
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_forked_and_unforked_give_the_same_logits(family, placement):
    model = tiny_model(family)
    found = []
    for fork in (True, False):
        backend = TorchBackend(model)
        backend.capabilities = replace(backend.capabilities, fork=fork)
        scheduler = Scheduler(backend)
        requests = [asked(model, each, contrast_placement=placement) for each in QUESTIONS[:2]]
        scheduler.submit_all([replace(request, candidates=20) for request in requests])
        steps = [event for event in scheduler.run(lambda index: False) if isinstance(event, TokenStep)]
        found.append({(step.request, step.index): step for step in steps})
    forked, unforked = found
    assert forked.keys() == unforked.keys()
    for key, step in forked.items():
        expected = unforked[key]
        assert (step.token_id, step.decision) == (expected.token_id, expected.decision)
        # the last of twenty candidates may be others
        theirs = {each.token_id: each for each in expected.candidates}
        pairs = [(each, theirs[each.token_id]) for each in step.candidates if each.token_id in theirs]
        assert len(pairs) >= 18
        for each, other in pairs:
            assert each.unprompted_logprob == pytest.approx(other.unprompted_logprob, abs=1e-4)
            assert each.prompted_logprob == pytest.approx(other.prompted_logprob, abs=1e-4)


# --- after thinking ---


def thinking_request(model, prompts, count, **values):
    """One whose thinking ends with its token number `count`: what was said by then is taken for the tag."""
    settings = Settings(max_new_tokens=14, contrast_steps=4, **values)
    plain = Settings(max_new_tokens=14, method="default")
    said = tokens(decode(model, [request_for(prompts, plain)]))
    closing = decode_ids(model.tokenizer, said[:count], control=True)
    marks = ThinkingMarks("<think>", closing, opened=True)
    return request_for(replace(prompts, thinking=marks), settings)


@pytest.mark.parametrize("same", [True, False], ids=["the same prompt", "another prompt"])
def test_the_stream_that_joins_after_thinking_reads_nothing_that_the_base_stream_has_read(llama, fed, same):
    base, other = tuple(range(40, 70)), tuple(range(200, 209))
    prompts = two_streams(base, base if same else (*base[:20], *other))
    request = thinking_request(llama, prompts, 5)
    fed.clear()
    steps = [event for event in decode(llama, [request]) if isinstance(event, TokenStep)]
    assert [step.thinking for step in steps[:6]] == [True] * 5 + [False]
    assert fed[:5] == [(1, len(base))] + [(1, 1)] * 4
    if same:  # nothing but the last token, beside the base stream
        assert fed[5:9] == [(2, 1)] * 4
    else:  # what is its own of the prompt, and what was thought after that
        assert fed[5:10] == [(1, 1), (1, len(other) + 5), (2, 1), (2, 1), (2, 1)]


# --- chat ---


def turns(model, count, **values):
    """(bytes parked, tokens fed) after each turn of a chat."""
    settings = Settings(max_new_tokens=10, contrast_steps=4, **values)
    talk = Talk(model, settings, lambda said, own: prompts_for(model.tokenizer, said, own), Conversation())
    shapes, found = [], []
    hook = model.model.register_forward_pre_hook(lambda module, given: shapes.append(tuple(given[0].shape)))
    for question in QUESTIONS[:count]:
        shapes.clear()
        list(talk.answer(talk.view(talk.with_question(question))))
        found.append((talk.session.prefix_cache.bytes_held, sum(rows * new for rows, new in shapes)))
    hook.remove()
    return found, talk.conversation


def test_a_chat_with_user_end_keeps_the_cache_of_default_and_reads_p_star_besides(llama):
    default, said = turns(llama, 5, method="default")
    # β = 1 leaves the plain stream's own top token, so that both chats say the same
    steered, same = turns(llama, 5, contrast_placement="user-end", plausibility=1.0)
    assert same == said
    assert [held for held, _ in steered] == [held for held, _ in default]
    beyond = [more - plain for (_, more), (_, plain) in zip(steered, default, strict=True)]
    # p*, the end of the message and the generation prompt, and three tokens of the window; in every turn
    after = llama.tokenizer(f"\n\n{Settings().contrast_prompt}<|im_end|>\n<|im_start|>assistant\n")[
        "input_ids"
    ]
    assert beyond == [len(after) + 3] * 5


def test_a_chat_in_the_system_message_parks_both_streams(llama):
    default, _ = turns(llama, 3, method="default")
    steered, _ = turns(llama, 3, plausibility=1.0)
    assert [more > 1.5 * plain for (more, _), (plain, _) in zip(steered, default, strict=True)] == [True] * 3


def test_a_prefix_cache_of_no_bytes_keeps_nothing_and_changes_no_token(llama, fed):
    requests = [asked(llama, contrast_placement="user-end")]
    found = []
    for size in (0, 10**9):
        session = Session(llama, size)
        for _ in range(2):
            fed.clear()
            found.append(tokens(session.decode(requests)))
        assert (len(session.prefix_cache), session.prefix_cache.bytes_held > 0) == (
            (1, True) if size else (0, False)
        )
        assert (prefilled(fed) > len(requests[0].prompts.base.ids)) == (size == 0)
    assert found == [found[0]] * 4


# --- too long ---


def test_a_contrast_prompt_longer_than_the_context_is_refused_where_it_is_read(llama):
    values = {"contrast_prompt": "No! " * CONTEXT, "contrast_placement": "user-end"}
    with pytest.raises(PromptError, match="with the contrast prompt"):
        decode(llama, [asked(llama, **values)])
    for spared in ({"contrast_steps": 0}, {"method": "default"}):
        events = list(decode(llama, [asked(llama, **values, **spared)]))
        assert isinstance(events[0], Started) and isinstance(events[-1], Finished)
