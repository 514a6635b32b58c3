"""The server backend alone: what its sequences ask of a server, and what it does when the server fails."""

from __future__ import annotations

import gc
import math
import time

import pytest
import torch

from adacd_cli.backends import backend_for
from adacd_cli.backends.server import backend as server_backend
from adacd_cli.backends.server import batcher
from adacd_cli.backends.server.dialect import InvalidLogprobs, ReadTimeout, ServerRefused, ServerUnavailable
from adacd_cli.engine.backend import NOTHING, Extend, Need, Sampling
from adacd_cli.errors import ServerError
from tests.backend_contract import CONTRACT, fetch
from tests.fakes import BYTE_VOCAB, saying
from tests.served import served


def noisy(ids):
    """Logits that differ after every prefix."""
    generator = torch.Generator().manual_seed(sum((place + 1) * token for place, token in enumerate(ids)))
    return (2.0 * torch.randn(BYTE_VOCAB, generator=generator)).tolist()


def reference(ids):
    return torch.tensor(noisy(ids))


def backend_of(script=noisy, **options):
    model, dialect = served(script, **options)
    return backend_for(model), dialect


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Nothing is sent before somebody waits for it."""
    monkeypatch.setattr(batcher, "GATHER_SECONDS", 5.0)


@pytest.mark.parametrize("most", [None, 30])
@pytest.mark.parametrize("scores_ids", [False, True])
@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_the_contract(check, most, scores_ids):
    backend, dialect = backend_of(most=most)
    dialect.scores_ids = scores_ids
    check(backend, reference)


def test_what_one_forward_wants_travels_in_one_request():
    backend, dialect = backend_of()
    sequences = [backend.open() for _ in range(3)]
    fetch(backend, *(Extend(each, (number, 7), Need(top=number)) for number, each in enumerate(sequences, 1)))
    assert dialect.asked == [([(1, 7), (2, 7), (3, 7)], 3)]


def test_forwards_that_follow_at_once_travel_together_and_long_lists_alone():
    backend, dialect = backend_of()
    first, second, third = (backend.open() for _ in range(3))
    pendings = [
        *backend.forward([Extend(first, (1,), Need(top=20))]),
        *backend.forward([Extend(second, (2,), Need(top=30)), Extend(third, (3,), Need(floor=-math.inf))]),
    ]
    assert [each.result().told is None for each in pendings] == [False, False, True]
    assert sorted(dialect.asked) == [([(1,), (2,)], 30), ([(3,)], BYTE_VOCAB)]


def test_what_nobody_waits_for_is_sent_soon(monkeypatch):
    monkeypatch.setattr(batcher, "GATHER_SECONDS", 0.001)
    backend, _ = backend_of()
    (pending,) = backend.forward([Extend(backend.open(), (1,))])
    assert wait_until(pending.done)


def test_a_request_has_no_more_prompts_than_a_balancer_can_spread(monkeypatch):
    monkeypatch.setattr(batcher, "PROMPTS", 2)
    backend, dialect = backend_of()
    fetch(backend, *(Extend(backend.open(), (number,)) for number in range(5)))
    assert [prompts for prompts, _ in dialect.asked] == [[(0,), (1,)], [(2,), (3,)], [(4,)]]


def test_where_several_prompts_are_refused_each_is_asked_alone():
    """One of them may be to blame; a server that takes no two is not asked so again."""
    backend, dialect = backend_of()

    def one_at_a_time(prompts):
        if len(prompts) > 1:
            raise ServerRefused("status 400, prompt must be a list of ints")

    dialect.before = one_at_a_time
    sequences = [backend.open(), backend.open()]
    for token in (1, 2):
        assert all(fetch(backend, *(Extend(each, (token,)) for each in sequences)))
    assert [len(prompts) for prompts, _ in dialect.asked] == [2, 1, 1, 1, 1]


def test_a_prompt_that_is_refused_fails_alone():
    backend, dialect = backend_of()

    def too_long(prompts):
        if any(len(ids) > 3 for ids in prompts):
            raise ServerRefused("status 400, too long", hint="Be brief.")

    dialect.before = too_long
    good, bad = backend.forward([Extend(backend.open(), (1,)), Extend(backend.open(), (1, 2, 3, 4))])
    assert good.result() is not None
    with pytest.raises(ServerError) as error:
        bad.result()
    assert error.value.message == "The server at http://scripted/v1 failed: status 400, too long."
    assert error.value.hint == "Be brief."
    dialect.before = lambda prompts: None
    assert all(fetch(backend, Extend(backend.open(), (1,)), Extend(backend.open(), (2,))))
    assert len(dialect.asked[-1][0]) == 2  # several are asked together as before


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (ServerUnavailable("no connection"), "does not answer any more: no connection"),
        (InvalidLogprobs("it gives 3 as a log-probability"), "failed: it gives 3 as a log-probability"),
        (KeyError("choices"), "could not be used: KeyError: 'choices'"),
    ],
)
def test_failures_are_the_sequences_own(failure, message):
    backend, dialect = backend_of()

    def fail(prompts):
        raise failure

    dialect.before = fail
    (pending,) = backend.forward([Extend(backend.open(), (1,))])
    with pytest.raises(ServerError) as error:
        pending.result()
    assert message in error.value.message
    dialect.before = lambda prompts: None
    assert fetch(backend, Extend(backend.open(), (1,))) != [None]


def test_what_is_known_is_not_asked_again():
    backend, dialect = backend_of()
    sequence = backend.open()
    (first,) = fetch(backend, Extend(sequence, (1, 2), Need(top=20)))
    (pending,) = backend.forward([Extend(sequence, (), Need(top=8, ids=first.told[:3]))])
    assert pending.done()
    assert pending.result().told == first.told
    fork = backend.open(like=sequence, length=2)
    (pending,) = backend.forward([Extend(fork, (), Need(top=8))])
    assert pending.done()
    assert len(dialect.asked) == 1


def test_nothing_asked_is_no_request():
    backend, dialect = backend_of()
    (pending,) = backend.forward([Extend(backend.open(), (1, 2), NOTHING)])
    assert pending.done()
    assert pending.result() is None
    assert dialect.asked == []


def test_a_floor_is_reached_by_longer_lists_or_by_what_is_left():
    """0.9 for one token, and 0.1 shared by 259: none of them is above 0.01 · 0.9."""
    script = saying(("x", "y"), sharp=math.log(0.9 / (0.1 / 259)))
    backend, dialect = backend_of(script)
    ids = tuple(b"x\n")
    (logits,) = fetch(backend, Extend(backend.open(), ids, Need(top=2, floor=math.log(0.01))))
    assert (logits.listed, logits.exhausted) == (2, False)
    (logits,) = fetch(backend, Extend(backend.open(), ids, Need(top=2, floor=math.log(0.0001))))
    assert logits.told is None
    assert [count for _, count in dialect.asked] == [2, 2, 16, 128, 260]


@pytest.mark.parametrize("scores_ids", [True, False])
def test_ids_are_found_by_longer_lists_where_the_server_has_no_limit(scores_ids):
    backend, dialect = backend_of()
    dialect.scores_ids = scores_ids
    rare = int(reference((1,)).argsort()[60])  # the 200th most probable one
    (logits,) = fetch(backend, Extend(backend.open(), (1,), Need(top=4, ids=(rare,))))
    assert rare in logits.told[: logits.listed]
    assert (dialect.named, [count for _, count in dialect.asked]) == ([], [4, 32, 256])


def test_ids_that_are_far_down_are_asked_by_name(monkeypatch):
    monkeypatch.setattr(server_backend, "_LONG", 30)
    backend, dialect = backend_of()
    dialect.scores_ids = True
    rare = int(reference((1,)).argsort()[60])
    (logits,) = fetch(backend, Extend(backend.open(), (1,), Need(top=4, ids=(rare,))))
    assert logits.told[32:] == (rare,)
    assert (dialect.named, [count for _, count in dialect.asked]) == ([(rare,)], [4, 32])


def test_ids_beyond_a_limit_are_asked_by_name():
    backend, dialect = backend_of(most=20)
    dialect.scores_ids = True
    sequence = backend.open()
    rare = tuple(reference((1,)).argsort()[:3].tolist())
    (logits,) = fetch(backend, Extend(sequence, (1,), Need(top=256)))
    assert (logits.listed, logits.exhausted) == (20, False)
    (logits,) = fetch(backend, Extend(sequence, (), Need(top=20, ids=rare)))
    assert (logits.told[20:], logits.listed, logits.exhausted) == (rare, 20, False)
    assert dialect.named == [rare]
    (logits,) = fetch(backend, Extend(sequence, (), Need(top=21)))
    assert logits.exhausted


def test_without_values_by_name_a_limited_list_is_all_there_is():
    backend, _ = backend_of(most=20)
    sequence = backend.open()
    (logits,) = fetch(backend, Extend(sequence, (1,), Need(top=256, ids=(3,))))
    assert (logits.listed, logits.exhausted) == (20, True)
    (pending,) = backend.forward([Extend(sequence, (), Need(top=256))])
    assert pending.done()


def test_a_value_above_those_of_the_list_that_lacks_it_is_not_believed():
    backend, dialect = backend_of(most=5)
    dialect.scores_ids, values = True, dialect.values

    async def raised(prompt, tokens):
        return {token: value + 20.0 for token, value in (await values(prompt, tokens)).items()}

    dialect.values = raised
    rare = int(reference((1,)).argmin())
    (logits,) = fetch(backend, Extend(backend.open(), (1,), Need(ids=(rare,))))
    assert rare not in logits.told
    assert logits.exhausted


def test_an_id_beyond_the_vocabulary_is_an_error():
    backend, _ = backend_of(lambda ids: [*([0.0] * BYTE_VOCAB), 5.0])
    (pending,) = backend.forward([Extend(backend.open(), (1,))])
    with pytest.raises(ServerError, match="beyond the tokenizer's 260 tokens"):
        pending.result()


def free_run(backend, text=b"hi\n", tokens=20, sampling=None):
    sequence = backend.open()
    fetch(backend, Extend(sequence, tuple(text), NOTHING))
    return sequence, backend.free_run(sequence, sampling or Sampling(), tokens)


def taken(backend, run):
    """The tokens of a run as text, and the error that it ended with."""
    found = []
    until = time.monotonic() + 5
    try:
        while not run.done() and time.monotonic() < until:
            found += run.take()
            backend.wait(0.05)
    except ServerError as error:
        return bytes(token.token_id for token in found), error
    return bytes(token.token_id for token in found if token.token_id < 256), None


TALK = saying(("hi", "Yo there, you"))


def test_a_free_run_passes_the_sampling_on_and_ends_with_the_servers_own_end():
    backend, dialect = backend_of(TALK)
    sampling = Sampling(0.7, 0.9, 30, 5, 3)
    sequence, run = free_run(backend, sampling=sampling)
    assert taken(backend, run) == (b"Yo there, you", None)
    assert dialect.opened == [(tuple(b"hi\n"), sampling, 20)]
    assert list(backend.tokens(sequence))[:-1] == list(b"hi\nYo there, you")


def test_a_server_that_goes_on_is_left_at_the_last_token():
    backend, dialect = backend_of(TALK)
    stream = dialect.stream

    def endless(prompt, sampling, max_tokens):
        return stream(prompt, sampling, max_tokens + 5)

    dialect.stream = endless
    _, run = free_run(backend, tokens=4)
    assert taken(backend, run) == (b"Yo t", None)


def test_a_stream_that_breaks_after_some_tokens_ends_quietly():
    backend, dialect = backend_of(TALK)

    def breaks(number):
        if number == 4:
            raise ServerUnavailable("the connection broke")

    dialect.before_token = breaks
    sequence, run = free_run(backend)
    assert taken(backend, run) == (b"Yo t", None)
    assert list(backend.tokens(sequence)) == list(b"hi\nYo t")


def test_a_stream_that_breaks_before_its_first_token_is_an_error():
    backend, dialect = backend_of(TALK)

    def breaks(number):
        raise ServerUnavailable("the connection broke")

    dialect.before_token = breaks
    _, run = free_run(backend)
    text, error = taken(backend, run)
    assert (text, error.message) == (
        b"",
        "The server at http://scripted/v1 does not answer any more: the connection broke.",
    )
    assert run.done()


def test_a_stream_that_is_refused_in_the_middle_is_an_error_after_its_tokens():
    backend, dialect = backend_of(TALK)

    def refuses(number):
        if number == 2:
            raise ServerRefused("no memory left")

    dialect.before_token = refuses
    _, run = free_run(backend)
    text, error = taken(backend, run)
    assert (text, error.message) == (b"Yo", "The server at http://scripted/v1 failed: no memory left.")


def test_a_sequence_may_fall_silent_once():
    backend, dialect = backend_of(TALK)

    def silent(number):
        if number == 2:
            raise ReadTimeout("it gave no token for 60 s")

    dialect.before_token = silent
    sequence, run = free_run(backend)
    assert taken(backend, run) == (b"Yo", None)
    text, error = taken(backend, backend.free_run(sequence, Sampling(), 20))
    assert text == b" t"
    assert "it gave no token for 60 s" in error.message


def wait_until(what):
    until = time.monotonic() + 5
    while not what() and time.monotonic() < until:
        time.sleep(0.002)
    return what()


def test_a_free_run_that_is_closed_leaves_the_server():
    backend, dialect = backend_of(TALK)
    dialect.pause = 0.002
    _, run = free_run(backend)
    assert wait_until(lambda: dialect.running == 1)
    run.close()
    assert wait_until(lambda: dialect.running == 0)


def test_a_consumer_that_goes_away_leaves_nothing_running_at_the_server():
    backend, dialect = backend_of(TALK)
    dialect.pause = 1.0
    _, run = free_run(backend)
    pendings = backend.forward([Extend(backend.open(), (1,))])
    backend.wait(0.01)
    assert wait_until(lambda: dialect.running == 2)
    del backend, run, pendings
    gc.collect()
    assert wait_until(lambda: dialect.running == 0)


def test_a_request_ends_when_nobody_waits_for_any_of_it():
    backend, dialect = backend_of()
    dialect.pause = 1.0
    pendings = backend.forward([Extend(backend.open(), (1,)), Extend(backend.open(), (2,))])
    backend.wait(0.01)
    assert wait_until(lambda: dialect.running == 1)
    pendings[0].cancel()
    time.sleep(0.02)
    assert dialect.running == 1
    pendings[1].cancel()
    assert wait_until(lambda: dialect.running == 0)


def test_waiting_ends_when_something_arrives():
    backend, dialect = backend_of()
    dialect.pause = 0.05
    (pending,) = backend.forward([Extend(backend.open(), (1,))])
    begin = time.monotonic()
    while not pending.done():
        backend.wait(5.0)
    assert time.monotonic() - begin < 2.0


def test_a_notice_is_given_once():
    backend, _ = backend_of(most=5)
    for _ in range(2):
        backend.found_inexact()
    (notice,) = backend.notices()
    assert "among the 5 log-probabilities" in notice
    assert "--max-logprobs -1" in notice
    assert backend.notices() == []


def test_the_loop_may_be_ended_from_within():
    """Its owner may become garbage in any thread, the loop's own among them."""
    model, dialect = served(noisy)
    model.server.portal.call(model.server.close)
    assert wait_until(lambda: dialect.left_in) == "adacd-requests"
