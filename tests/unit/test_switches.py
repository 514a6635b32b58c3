"""The switches as tables of hand-computed numbers, and the engine that decides by them, over scripted logits."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import pytest
import torch

from adacd_cli.config import Settings
from adacd_cli.engine import Scheduler
from adacd_cli.engine.partial import logits_of
from adacd_cli.engine.rules import adacd
from adacd_cli.engine.switches import ADD, PLAIN, SUBTRACT, SwitchNumbers, agreement, learned, mass
from adacd_cli.errors import ConfigurationError
from adacd_cli.events import Decision, Finished, Started, TokenStep
from adacd_cli.profiles.store import Fingerprint, Profile
from adacd_cli.prompts import ThinkingMarks
from tests.fakes import (
    BYTE_EOS,
    BYTE_VOCAB,
    END_THINK,
    THINK,
    Done,
    ScriptedBackend,
    request_for,
    two_streams,
)


def logs(*rows: list[float]) -> torch.Tensor:
    """Logits of these probabilities; a constant a row changes nothing."""
    return torch.tensor(rows).log() + torch.arange(len(rows)).unsqueeze(-1) * 3.0


def test_agreement_needs_the_same_top_token_and_enough_confidence() -> None:
    rank = torch.tensor([1, 1, 2, 1])
    own, prompted = torch.tensor([0.68, 1.0, 1.0, 0.63]), torch.tensor([0.88, 1.0, 1.0, 0.7])
    # 0.68 < 0.9 × 0.88; agr = 1/2 < 0.9; 0.63 ≥ 0.9 × 0.7 but for rounding
    assert agreement(rank, own, prompted, 0.89).tolist() == [SUBTRACT, ADD, SUBTRACT, ADD]
    assert agreement(rank, own, prompted, 0.5).tolist() == [ADD] * 4
    assert agreement(rank, own, prompted, 0.9).tolist()[:3] == [SUBTRACT, ADD, SUBTRACT]


@pytest.mark.parametrize(
    ("margin", "decisions"),
    [
        (0.0, [SUBTRACT, ADD, PLAIN]),
        (-1.0, [PLAIN, ADD, PLAIN]),
        (1.0, [SUBTRACT, PLAIN, PLAIN]),
    ],
)
def test_mass_compares_how_sure_both_streams_are_of_refusing(margin: float, decisions: list[int]) -> None:
    unprompted = logs([0.3, 0.5, 0.2], [0.1, 0.1, 0.8], [0.1, 0.1, 0.8])
    prompted = logs([0.4, 0.5, 0.1], [0.05, 0.05, 0.9], [0.25, 0.25, 0.5])
    found, value = mass(unprompted, prompted, SwitchNumbers(openers=(0, 1), margin=margin))
    # logit .8 − logit .9, logit .2 − logit .1, logit .2 − logit .5
    expected = [math.log(4) - math.log(9), math.log(9) - math.log(4), -math.log(4)]
    assert value.tolist() == pytest.approx(expected, abs=1e-5)
    assert found.tolist() == decisions


# q = 1·(ln ½ + 1) − ½·(ln ¼ + 2) + ¼ = ¼, as ln ¼ = 2 ln ½
FEATURES = {"tokens": (0, 2), "means": (-1.0, -2.0), "weights": (1.0, -0.5), "bias": 0.25}


@pytest.mark.parametrize(
    ("openers", "low", "high", "decision"),
    [
        ((0,), 0.3, 0.4, SUBTRACT),  # about to refuse (R = ½), and q below
        ((0,), 0.2, 0.4, PLAIN),  # between
        ((0,), 0.1, 0.2, PLAIN),  # a refusal that is right stays in its own words
        ((1,), 0.1, 0.2, ADD),  # about to answer (R = ¼), and q above
        ((1,), 0.3, 0.4, PLAIN),  # an answer that is right
    ],
)
def test_learned_looks_at_the_score_and_at_what_the_model_is_about_to_do(
    openers: tuple[int, ...], low: float, high: float, decision: int
) -> None:
    numbers = SwitchNumbers(openers=openers, **FEATURES, low=low, high=high)  # type: ignore[arg-type]
    found, q = learned(logs([0.5, 0.25, 0.25], [0.5, 0.25, 0.25]), numbers)
    assert q.tolist() == pytest.approx([0.25, 0.25], abs=1e-5)
    assert found.tolist() == [decision] * 2


@pytest.mark.parametrize(
    ("prompted", "openers", "token", "decision"),
    [
        ([0.8, 0.15, 0.05], (), 0, SUBTRACT),  # α = 1 leaves z, whatever z* is
        ([0.8, 0.15, 0.05], (0,), 1, SUBTRACT),
        ([0.8, 0.15, 0.05], (0, 1), 2, SUBTRACT),
        ([0.8, 0.15, 0.05], (0, 1, 2), 0, SUBTRACT),  # nothing else is plausible: as without
        ([0.1, 0.8, 0.1], (), 0, PLAIN),  # off the refusal's track
        ([0.1, 0.8, 0.1], (0,), 1, SUBTRACT),
    ],
)
def test_subtracting_takes_every_opener_out_of_the_first_token(
    prompted: list[float], openers: tuple[int, ...], token: int, decision: int
) -> None:
    rows = {"unprompted": logs([0.5, 0.3, 0.2]), "prompted": logs(prompted)}
    verdict = adacd.decided(rows, Settings(alpha=1.0, plausibility=0.0), SUBTRACT, openers)
    assert (verdict.scores.argmax(dim=-1).tolist(), verdict.decision.tolist()) == ([token], [decision])


# --- in the engine: q = log P(Z) + 6 decides, and a refusal begins with I ---

NUMBERS = SwitchNumbers(
    openers=(ord("I"),), tokens=(ord("Z"),), means=(-6.0,), weights=(1.0,), low=-1.0, high=1.0
)
PROFILE = Profile(
    model="scripted",
    fingerprint=Fingerprint(config=None, template="t", tokenizer="k"),
    settings={"switch": "learned"},
    numbers=NUMBERS,
)
LEARNED = Settings(method="adacd", switch="learned", alpha=2.0, contrast_steps=2)
REFUSES, ANSWERS = {"I": 0.0, "S": -1.0}, {"S": 0.0, "I": -1.0}
FIRST = {
    "r": REFUSES | {"Z": -9.0},  # refused, and looks harmless
    "h": REFUSES | {"Z": -3.0},  # refused, and looks harmful
    "a": ANSWERS | {"Z": -3.0},  # answered, and looks harmful
    "n": ANSWERS | {"Z": -9.0},
}
PLAINLY = {"r": "Ino", "h": "Ino", "a": "Sure", "n": "Sure"}
SWITCHED = PLAINLY | {"r": "Sure", "a": "Ino"}
DECISIONS = {"r": Decision.SUBTRACT, "h": Decision.PLAIN, "a": Decision.ADD, "n": Decision.PLAIN}


def script(ids: tuple[int, ...]) -> list[float]:
    """A prompt is its kind, "!" in the prompted stream, and a newline; thinking stands before an answer."""
    place = ids.index(10)
    kind, prompted, said = chr(ids[0]), ord("!") in ids[:place], list(ids[place + 1 :])
    row = [-20.0] * BYTE_VOCAB
    if kind == "T":  # thinks one token
        kind = "r"
        if END_THINK not in said:
            row[[THINK, ord("m"), END_THINK][len(said)]] = 0.0
            return row
        said = said[said.index(END_THINK) + 1 :]
    if not said:
        for token, logit in (REFUSES | {"I": 4.0} if prompted else FIRST[kind]).items():
            row[ord(token)] = logit
    else:
        answer = [*("Ino" if said[0] == ord("I") else "Sure").encode(), BYTE_EOS]
        row[answer[len(said)]] = 5.0
    return row


def run(backend: ScriptedBackend, kinds: str, settings: Settings = LEARNED, **options):
    backend.model = replace(backend.model, profile=PROFILE)
    scheduler = Scheduler(backend, **options)
    marks = {"T": ThinkingMarks("<think>", "</think>", opened=False)}
    scheduler.submit_all(
        [
            request_for(two_streams(f"{kind}\n".encode(), f"{kind}!\n".encode(), marks.get(kind)), settings)
            for kind in kinds
        ]
    )
    return list(scheduler.run(lambda index: False))


def steps_of(events, request: int = 0) -> list[TokenStep]:
    return [each for each in events if isinstance(each, TokenStep) and each.request == request]


def text_of(events, request: int = 0) -> str:
    return next(each.text for each in events if isinstance(each, Finished) and each.request == request)


@pytest.mark.parametrize("kind", FIRST)
def test_learned_decides_at_the_first_token_and_opens_the_prompted_stream_only_where_it_acts(
    kind: str,
) -> None:
    backend = ScriptedBackend(script)
    events = run(backend, kind)
    steps, acts = steps_of(events), DECISIONS[kind] is not Decision.PLAIN
    assert text_of(events) == SWITCHED[kind]
    opened = {sequence for work in backend.forwards for sequence, _ in work}
    assert len(opened) == (2 if acts else 1)
    # a fork of the unprompted stream up to where both prompts part
    assert backend.forwards[:2] == [[(1, 2)], [(2, 2)] if acts else [(1, 1)]]
    first, *rest = steps
    assert first.decision is DECISIONS[kind]
    row = torch.tensor(script((ord(kind), 10))).log_softmax(-1)
    named = {"switch_value": pytest.approx(float(row[ord("Z")]) + 6, abs=1e-4)}
    assert first.measures.named == named | {"switch_low": -1.0, "switch_high": 1.0}
    assert all(not step.measures.named for step in rest)
    # what was subtracted left the refusal's track at once; what was added follows it to the window's end
    added = [Decision.ADD] if kind == "a" else []
    assert [step.decision for step in rest] == added + [Decision.PLAIN] * (len(rest) - len(added))
    assert next(each.profile for each in events if isinstance(each, Started)) == "scripted"


def test_mass_reads_both_streams_first() -> None:
    # R = .69 and .73, R* = .99: logit(R) − logit(R*) is about −4 for what is refused
    settings = LEARNED.model_copy(update={"switch": "mass"})
    backend = ScriptedBackend(script)
    events = run(backend, "r", settings)
    assert backend.forwards[:2] == [[(1, 2)], [(2, 2)]]
    first = steps_of(events)[0]
    assert (first.decision, text_of(events)) == (Decision.SUBTRACT, "Sure")
    assert first.measures.named == {
        "switch_value": pytest.approx(-4.0, abs=0.1),
        "switch_high": 0.0,
    }


def test_the_switch_waits_for_the_end_of_the_thinking() -> None:
    backend = ScriptedBackend(script)
    steps = steps_of(events := run(backend, "T"))
    assert text_of(events) == "Sure"
    assert [step.thinking for step in steps[:4]] == [True, True, True, False]
    assert [bool(step.measures.named) for step in steps[:5]] == [False, False, False, True, False]
    assert steps[3].decision is Decision.SUBTRACT
    # "T" is shared; the rest of the prompt and three tokens of thinking are read at once
    assert [work for work in backend.forwards if any(sequence == 2 for sequence, _ in work)] == [[(2, 5)]]


@pytest.mark.parametrize("limit", [None, 3])
def test_a_batch_of_mixed_decisions_gives_each_what_it_gets_alone(limit: int | None) -> None:
    kinds = "rhanTrna"
    alone = [[asdict(step) for step in steps_of(run(ScriptedBackend(script), kind))] for kind in kinds]
    events = run(ScriptedBackend(script), kinds, max_concurrency=limit)
    for place in range(len(kinds)):
        own = [asdict(replace(step, request=0)) for step in steps_of(events, place)]
        assert [each | {"elapsed_s": 0} for each in own] == [each | {"elapsed_s": 0} for each in alone[place]]


class Partial(ScriptedBackend):
    """Tells the three most probable tokens and, where `named`, those that are asked for by name."""

    named = False
    inexact = 0

    def _extended(self, extend):
        done = super()._extended(extend)
        if done.found is not None:
            row = done.found.at()[0].log_softmax(-1)
            best = row.topk(3)
            ids = best.indices.tolist()
            others = {each: float(row[each]) for each in extend.need.ids if each not in ids and self.named}
            found = logits_of(ids, best.values.tolist(), BYTE_VOCAB, others, exhausted=True)
            return Done(found)
        return done

    def found_inexact(self) -> None:
        self.inexact += 1


@pytest.mark.parametrize("named", [True, False])
def test_a_switch_says_where_a_server_did_not_tell_its_tokens(named: bool) -> None:
    hidden = NUMBERS.model_copy(update={"tokens": (ord("Q"),), "means": (-20.0,)})
    backend = Partial(script, full_logits=False, vocab_size=BYTE_VOCAB)
    backend.named = named
    backend.model = replace(backend.model, profile=PROFILE.model_copy(update={"numbers": hidden}))
    scheduler = Scheduler(backend)
    scheduler.submit(request_for(two_streams(b"n\n", b"n!\n"), LEARNED))
    events = [event for event in scheduler.run(lambda index: False)]
    assert text_of(events) == "Sure"
    assert steps_of(events)[0].exact is named
    assert (backend.inexact > 0) is not named


def test_a_switch_without_its_numbers_is_refused() -> None:
    backend = ScriptedBackend(script)
    for profile, switch in ((None, "mass"), (None, "learned"), (SwitchNumbers(openers=(1,)), "learned")):
        numbers = profile and PROFILE.model_copy(update={"numbers": profile})
        backend.model = replace(backend.model, profile=numbers)
        request = request_for(two_streams(b"r\n", b"r!\n"), LEARNED.model_copy(update={"switch": switch}))
        with pytest.raises(ConfigurationError, match=f"--switch {switch} needs a profile"):
            Scheduler(backend).submit(request)
