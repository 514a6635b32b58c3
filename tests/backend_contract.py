"""What every backend does, whoever computes: checks over a new backend and what its logits should be.

    @pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
    def test_the_contract(check):
        check(MyBackend(model), reference)

`reference(ids)` gives the logits of the token after these ids, float32 [vocab], up to a constant. Token ids
up to 60 are used, in sequences of at most 24 tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch

from adacd_cli.engine import feeder
from adacd_cli.engine.backend import (
    BASE,
    NEXT,
    NOTHING,
    Backend,
    Extend,
    Logits,
    Need,
    Pending,
    Sampling,
    stacked,
)
from adacd_cli.errors import ModelError
from tests.byte_tokenizer import make_tokenizer

Reference = Callable[[tuple[int, ...]], torch.Tensor]
Check = Callable[[Backend, Reference], None]

CONTRACT: list[Check] = []

IDS = tuple(range(40, 52))
OTHER = (7, 3, 9)


def _check(check: Check) -> Check:
    CONTRACT.append(check)
    return check


def fetch(backend: Backend, *work: Extend) -> list[Logits | None]:
    """The logits of one forward, waited for."""
    pendings = backend.forward(work)
    assert len(pendings) == len(work)
    return [_result(backend, each) for each in pendings]


def _result(backend: Backend, pending: Pending) -> Logits | None:
    for _ in range(200):
        if pending.done():
            break
        backend.wait(0.1)
    assert pending.done()
    return pending.result()


def assert_close(logits: Logits | None, reference: Reference, ids: Sequence[int]) -> None:
    """Every known value of the last position is the reference's; there is always the most probable one."""
    assert logits is not None
    row, expected = logits.at()[0], reference(tuple(ids)).float().log_softmax(-1)
    if logits.told is None:
        torch.testing.assert_close(row.log_softmax(-1), expected, atol=1e-4, rtol=1e-4)
        return
    told = torch.tensor(logits.told)
    assert len(set(logits.told)) == len(logits.told) >= logits.listed >= 1
    torch.testing.assert_close(row[told], expected[told], atol=1e-4, rtol=1e-4)
    assert row.isfinite().all()
    assert float(row.exp().sum()) == pytest.approx(1.0, abs=1e-3)
    listed = told[: logits.listed]
    assert float(expected[listed].min()) >= float(expected.topk(logits.listed).values.min()) - 1e-4


@_check
def a_new_sequence_is_empty_and_keeps_what_it_is_fed(backend: Backend, reference: Reference) -> None:
    sequence = backend.open()
    assert list(backend.tokens(sequence)) == []
    (logits,) = fetch(backend, Extend(sequence, IDS))
    assert_close(logits, reference, IDS)
    (logits,) = fetch(backend, Extend(sequence, (5,)))
    assert_close(logits, reference, (*IDS, 5))
    assert list(backend.tokens(sequence)) == [*IDS, 5]


@_check
def chunks_are_the_whole_and_nothing_is_given_that_was_not_asked(
    backend: Backend, reference: Reference
) -> None:
    sequence = backend.open()
    assert fetch(backend, Extend(sequence, IDS[:5], NOTHING)) == [None]
    assert fetch(backend, Extend(sequence, IDS[5:6], NOTHING)) == [None]
    (logits,) = fetch(backend, Extend(sequence, IDS[6:]))
    assert_close(logits, reference, IDS)


@_check
def several_sequences_in_any_order(backend: Backend, reference: Reference) -> None:
    first, second, third = backend.open(), backend.open(), backend.open()
    texts = {first: list(IDS[:4]), second: list(OTHER), third: list(IDS)}
    for order in ([second, first], [third, first, second], [first, third], [second, third, first]):
        work, fed = [], []
        for place, sequence in enumerate(order):
            ids = texts[sequence] if not backend.tokens(sequence) else [11 + place]
            fed.append([*backend.tokens(sequence), *ids])
            work.append(Extend(sequence, ids))
        found = fetch(backend, *work)
        for logits, ids in zip(found, fed, strict=True):
            assert_close(logits, reference, ids)
        together = stacked([each for each in found if each is not None])
        assert together.shape[0] == len(order)
        assert [list(backend.tokens(sequence)) for sequence in order] == fed


@_check
def a_fork_is_what_was_fed_alone(backend: Backend, reference: Reference) -> None:
    source = backend.open()
    fetch(backend, Extend(source, IDS))
    lengths = (len(IDS), len(IDS) - 3, 1, 0) if backend.capabilities.fork else (0,)
    forks = [backend.open(like=source, length=length) for length in lengths]
    assert [list(backend.tokens(fork)) for fork in forks] == [list(IDS[:length]) for length in lengths]
    work = [Extend(fork, OTHER) for fork in forks]
    for logits, length in zip(fetch(backend, *work, Extend(source, (5,))), (*lengths, None), strict=True):
        assert_close(logits, reference, (*IDS, 5) if length is None else (*IDS[:length], *OTHER))
    if not backend.capabilities.fork:
        return
    backend.close([source])  # a fork outlives what it was taken from
    (logits,) = fetch(backend, Extend(forks[0], (8,)))
    assert_close(logits, reference, (*IDS, *OTHER, 8))
    grandchild = backend.open(like=forks[1], length=len(IDS) - 2)
    (logits,) = fetch(backend, Extend(grandchild, (8,)))
    assert_close(logits, reference, (*IDS[:-3], OTHER[0], 8))


@_check
def a_trimmed_sequence_is_a_fresh_one(backend: Backend, reference: Reference) -> None:
    if not backend.capabilities.trim:
        return
    sequence, beside = backend.open(), backend.open()
    fetch(backend, Extend(sequence, (*IDS, *OTHER)), Extend(beside, IDS[:2]))
    for length in (len(IDS), 5, 5, 1, 0):
        backend.trim(sequence, length)
        assert list(backend.tokens(sequence)) == list(IDS[:length])
        (logits, other) = fetch(backend, Extend(sequence, OTHER), Extend(beside, (4,)))
        assert_close(logits, reference, (*IDS[:length], *OTHER))
        assert_close(other, reference, backend.tokens(beside))
        backend.trim(sequence, length)


@_check
def the_logits_of_the_last_positions(backend: Backend, reference: Reference) -> None:
    sequence = backend.open()
    fetch(backend, Extend(sequence, IDS[:6]))
    (logits,) = fetch(backend, Extend(sequence, IDS[6:10], Need(positions=4)))
    assert logits is not None
    for back in range(1, 5):
        row, expected = logits.at(-back)[0], reference(IDS[: 11 - back])
        assert int(row.argmax()) == int(expected.argmax())
        best = float(row.log_softmax(-1).max())
        assert best == pytest.approx(float(expected.log_softmax(-1).max()), abs=1e-4)
    assert_close(logits, reference, IDS[:10])


@_check
def what_is_needed_is_there_or_the_logits_are_exhausted(backend: Backend, reference: Reference) -> None:
    expected = reference(IDS).float().log_softmax(-1)
    rare = tuple(expected.argsort()[:3].tolist())
    needs = [Need(top=5), Need(floor=math.log(0.2)), Need(ids=rare), Need(top=2, floor=-3.0, ids=rare[:1])]
    sequence = backend.open()
    for need in needs:
        backend.close([sequence])
        sequence = backend.open()
        (logits,) = fetch(backend, Extend(sequence, IDS, need))
        assert_close(logits, reference, IDS)
        _assert_met(logits, need, expected)
    if backend.capabilities.full_logits:
        return
    for need in needs:  # of the position that was fed last
        (logits,) = fetch(backend, Extend(sequence, (), need))
        assert_close(logits, reference, IDS)
        _assert_met(logits, need, expected)
    assert list(backend.tokens(sequence)) == list(IDS)


def _assert_met(logits: Logits | None, need: Need, expected: torch.Tensor) -> None:
    assert logits is not None
    if logits.told is None or logits.exhausted:
        return
    assert logits.listed >= need.top
    assert set(need.ids) <= set(logits.told)
    if need.floor is not None:
        above = (expected >= expected.max() + need.floor).nonzero()[:, 0].tolist()
        assert set(above) <= set(logits.told)


@_check
def no_work_and_closing_twice(backend: Backend, reference: Reference) -> None:
    assert list(backend.forward([])) == []
    sequence, other = backend.open(), backend.open()
    fetch(backend, Extend(sequence, IDS), Extend(other, OTHER))
    backend.close([sequence])
    backend.close([sequence, sequence, 10**6])
    (logits,) = fetch(backend, Extend(other, (4,)))
    assert_close(logits, reference, (*OTHER, 4))
    again = backend.open()
    assert list(backend.tokens(again)) == []
    (logits,) = fetch(backend, Extend(again, OTHER))
    assert_close(logits, reference, OTHER)


@_check
def what_nobody_waits_for_disturbs_nobody(backend: Backend, reference: Reference) -> None:
    sequence, other = backend.open(), backend.open()
    pending, kept = backend.forward([Extend(sequence, IDS), Extend(other, OTHER)])
    pending.cancel()
    backend.close([sequence])
    pending.cancel()
    assert_close(_result(backend, kept), reference, OTHER)


@_check
def a_free_run_is_what_the_logits_say(backend: Backend, reference: Reference) -> None:
    if not backend.capabilities.free_run:
        return
    sequence = backend.open()
    fetch(backend, Extend(sequence, IDS, NOTHING))
    run = backend.free_run(sequence, Sampling(top=3), 6)
    taken = []
    for _ in range(200):
        if run.done():
            break
        taken += run.take()
        backend.wait(0.05)
    assert run.done()
    run.close()
    ids = list(IDS)
    for token in taken:
        expected = reference(tuple(ids)).log_softmax(-1)
        assert token.token_id == int(expected.argmax())
        assert token.logprob == pytest.approx(float(expected.max()), abs=1e-4)
        assert [pair[0] for pair in token.top] == expected.topk(3).indices.tolist()
        ids.append(token.token_id)
    assert 1 <= len(taken) <= 6
    assert list(backend.tokens(sequence)) == ids
    (logits,) = fetch(backend, Extend(sequence, (5,)))
    assert_close(logits, reference, (*ids, 5))


@_check
def what_it_says_of_itself(backend: Backend, reference: Reference) -> None:
    can, vocab = backend.capabilities, len(reference(IDS))
    assert can.vocab_size in (None, vocab)
    assert can.max_sequences is None or can.max_sequences >= 1
    assert backend.bytes_for(0) >= 0
    assert backend.bytes_for(100) >= backend.bytes_for(10)
    assert backend.alike(BASE, 5, 6) in (True, False)
    assert backend.notices() == []
    with pytest.raises(ModelError):
        backend.open(("draft", "nowhere"))
    (logits,) = fetch(backend, Extend(backend.open(), IDS, NEXT))
    assert logits is not None
    assert logits.batch.dtype == torch.float32
    assert logits.batch.shape[-1] == vocab


@_check
def every_token_of_a_prompt_is_scored_beside_a_sequence_that_goes_on(
    backend: Backend, reference: Reference
) -> None:
    if not backend.capabilities.full_logits:
        return
    other = backend.open()
    fetch(backend, Extend(other, OTHER))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(feeder, "_CHUNK", 5)
        scored = feeder.score(backend, make_tokenizer(), IDS, top=3)
    assert [each.token_id for each in scored] == list(IDS) and scored[0].logprob is None
    for place, each in enumerate(scored[1:], 1):
        expected = reference(IDS[:place]).float().log_softmax(-1)
        assert each.logprob == pytest.approx(float(expected[each.token_id]), abs=1e-4)
        best = [token.logprob for token in each.top_logprobs]
        assert best == pytest.approx(expected.topk(3).values.tolist(), abs=1e-4)
    (logits,) = fetch(backend, Extend(other, (11,)))
    assert_close(logits, reference, (*OTHER, 11))
