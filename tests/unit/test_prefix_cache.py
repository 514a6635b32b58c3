"""The prefix cache: what is taken over, what goes first, and never more bytes than it may hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adacd_cli.engine import PrefixCache
from adacd_cli.engine.backend import BASE, Extend
from adacd_cli.engine.prefix_cache import shared_length
from tests.fakes import ScriptedBackend

DRAFT = ("draft", "d")


def new_backend():
    return ScriptedBackend(lambda ids: [0.0], {DRAFT: lambda ids: [0.0]})


def park(cache, backend, ids, weights=BASE):
    sequence = backend.open(weights)
    backend.forward([Extend(sequence, ids)])
    cache.park(backend, sequence, weights)
    return sequence


def held(cache, backend):
    """The ids of what is parked; nothing else is open."""
    assert cache.bytes_held == sum(map(len, backend.sequences.values()))  # a token is a byte here
    assert len(cache) == len(backend.sequences)
    return sorted(map(tuple, backend.sequences.values()))


def test_what_a_prompt_begins_with_is_taken_over_and_gone_from_the_cache():
    cache, backend = PrefixCache(100), new_backend()
    parked = park(cache, backend, (1, 2, 3))
    assert cache.open(backend, BASE, (1, 2, 3, 4)) == (parked, 3)
    assert len(cache) == 0


def test_a_part_of_what_is_parked_is_forked_and_the_last_token_is_always_fed():
    cache, backend = PrefixCache(100), new_backend()
    parked = park(cache, backend, (1, 2, 3))
    for prompt, shared in (((1, 2, 9, 9), 2), ((1, 2, 3), 2), ((1,), 0), ((7, 8), 0)):
        sequence, found = cache.open(backend, BASE, prompt)
        assert sequence != parked and found == shared
        assert tuple(backend.tokens(sequence)) == prompt[:shared]
    assert len(cache) == 1


def test_what_shares_most_is_taken_parked_or_running():
    cache, backend = PrefixCache(100), new_backend()
    park(cache, backend, (1, 2, 3, 4, 9))
    running = backend.open()
    backend.forward([Extend(running, (1, 2, 3, 4, 5))])
    others = [(BASE, running, (1, 2, 3, 4, 5))]
    assert cache.open(backend, BASE, (1, 2, 3, 4, 5, 6), others)[1] == 5
    assert cache.open(backend, BASE, (1, 2, 3, 4, 9, 9), others)[1] == 5
    assert cache.open(backend, DRAFT, (1, 2, 3, 4, 5, 6), others)[1] == 0  # other weights


def test_a_longer_text_takes_the_place_of_its_beginnings():
    cache, backend = PrefixCache(100), new_backend()
    for ids in ((1,), (1, 2, 3), (1, 2, 4), (1, 2, 3, 4)):
        park(cache, backend, ids)
    park(cache, backend, (1, 2), DRAFT)
    assert held(cache, backend) == [(1, 2), (1, 2, 3, 4), (1, 2, 4)]


def test_what_was_not_used_for_longest_goes_first():
    cache, backend = PrefixCache(9), new_backend()
    for ids in ((1, 1, 1), (2, 2, 2), (3, 3, 3)):
        park(cache, backend, ids)
    fork, _ = cache.open(backend, BASE, (1, 1, 5))
    backend.close([fork])
    park(cache, backend, (4, 4))
    assert held(cache, backend) == [(1, 1, 1), (3, 3, 3), (4, 4)]
    park(cache, backend, (5,) * 9)
    assert held(cache, backend) == [(5,) * 9]
    park(cache, backend, (6,) * 10)  # more than all of it
    assert held(cache, backend) == [(5,) * 9]


def test_nothing_is_kept_in_no_bytes_or_without_tokens():
    for limit, ids in ((0, (1, 2)), (9, ())):
        cache, backend = PrefixCache(limit), new_backend()
        park(cache, backend, ids)
        assert held(cache, backend) == []
        assert not cache.clear(backend)


def test_clearing_closes_all():
    cache, backend = PrefixCache(9), new_backend()
    park(cache, backend, (1, 2))
    assert cache.clear(backend)
    assert held(cache, backend) == [] and not cache.clear(backend)


IDS = st.lists(st.integers(1, 2), max_size=6).map(tuple)


@given(st.integers(0, 12), st.lists(st.tuples(st.booleans(), IDS), max_size=12))
def test_it_never_holds_more_and_never_gives_what_is_not_a_beginning(limit, actions):
    cache, backend = PrefixCache(limit), new_backend()
    for opens, ids in actions:
        if opens and ids:
            best = max((shared_length(each, ids[:-1]) for each in held(cache, backend)), default=0)
            sequence, shared = cache.open(backend, BASE, ids)
            assert tuple(backend.tokens(sequence)) == ids[:shared]
            assert shared == best
            backend.close([sequence])
        elif not opens:
            park(cache, backend, ids)
        assert cache.bytes_held <= limit
        held(cache, backend)
