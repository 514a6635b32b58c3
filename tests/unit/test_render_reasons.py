"""The trace in words: every kind of run, whole sentences."""

from __future__ import annotations

import pytest

from adacd_cli.events import FinishReason
from adacd_cli.render.reasons import collect, confidence_test, reason, summary
from adacd_cli.render.switch import reading
from adacd_cli.render.trace import describe_run
from tests.traces import ADD, PLAIN, SUBTRACT, contrasted, events, fitted, plain, started, switched, turned

LAMBDA_NOTE = "With λ in (0.5, 1], agr ≥ λ simply means that both streams have the same top token."
SAME = "No token was changed: Default would have taken the same ones, so this is its answer too."

SUMMARIES = {
    "default": (
        events(started("default"), [plain("Yes"), plain(".")]),
        [
            "Nothing was contrasted: method default is plain decoding.",
            "The answer ended by itself after 2 tokens.",
        ],
    ),
    "no window": (
        events(started(contrast_steps=0), [plain("Yes")]),
        [
            "Nothing was contrasted: the contrast window is 0 tokens long.",
            "The answer ended by itself after 1 token.",
        ],
    ),
    "thinking cut off": (
        events(started(), [plain("Hm", thinking=True)], FinishReason.LENGTH),
        [
            "Nothing was contrasted: the answer had not begun when the thinking was cut off.",
            "The answer was cut off at max_new_tokens, after 1 token.",
        ],
    ),
    "gate never opened": (
        events(
            started("adacd-gated"),
            [contrasted("Yes", PLAIN, 0.9, 0.9, top="I", rank=2), plain(".")],
        ),
        [
            "Nothing was contrasted: the two streams began with different top tokens, so no refusal was "
            "near.",
            "The answer ended by itself after 2 tokens.",
        ],
    ),
    "all added": (
        events(started(), [contrasted("I", ADD, 0.9, 0.99), contrasted(" can't", ADD, 1.0, 1.0), plain(".")]),
        [
            "2 tokens contrasted, all of them added (+): both streams agreed with confidence, and the answer "
            "leaned towards the prompted stream. The other 1 token is plain decoding.",
            SAME,
            "The answer ended by itself after 3 tokens.",
            LAMBDA_NOTE,
        ],
    ),
    "subtract turned it": (
        turned(),
        [
            "4 tokens contrasted: 1 added (+, towards the prompted stream) and 3 subtracted (−, away "
            "from it). "
            "The other 9 tokens are plain decoding.",
            "The answer turned at step 0: Default would have taken “I”, and “Sure” was taken. Both "
            "streams have "
            "the same top token, “I”, but the plain one is less sure of its own (0.66 < 0.9×0.99). Agreement "
            "that weak does not count, so the refusal direction was subtracted. 1 token after it is not what "
            "Default would have taken there either.",
            "The answer ended by itself after 13 tokens.",
            LAMBDA_NOTE,
        ],
    ),
    "subtract without effect": (
        events(started(), [contrasted("Yes", SUBTRACT, 0.9, 0.8, top="I", rank=4)]),
        [
            "1 token contrasted, and subtracted (−): the answer was pushed away from the prompted stream.",
            SAME,
            "The answer ended by itself after 1 token.",
            LAMBDA_NOTE,
        ],
    ),
    "add turned it, with a low threshold": (
        events(
            started(agreement_threshold=0.4),
            [contrasted("No", ADD, 0.5, 0.6, top="I", rank=2, instead_of="Yes")],
        ),
        [
            "1 token contrasted, and added (+): both streams agreed with confidence, and the answer leaned "
            "towards the prompted stream.",
            "The answer turned at step 0: Default would have taken “Yes”, and “No” was taken. The plain "
            "stream "
            "ranks the prompted stream's “I” 2nd (agr 0.50 ≥ λ = 0.4), and the plain one is sure enough "
            "of it "
            "(0.50 ≥ 0.4×0.60), so the refusal direction was added.",
            "The answer ended by itself after 1 token.",
        ],
    ),
    "gate left the track": (
        events(
            started("adacd-gated"),
            [
                contrasted("I", ADD, 0.9, 0.9),
                contrasted(" can", SUBTRACT, 0.4, 0.9, top=" can't", instead_of=" can't"),
                plain(" help"),
            ],
        ),
        [
            "2 tokens contrasted: 1 added (+, towards the prompted stream) and 1 subtracted (−, away "
            "from it). "
            "The other 1 token is plain decoding.",
            "The answer turned at step 1: Default would have taken “can't”, and “can” was taken. Both "
            "streams "
            "have the same top token, “can't”, but the plain one is less sure of its own (0.40 < 0.9×0.90). "
            "Agreement that weak does not count, so the refusal direction was subtracted.",
            "At step 1 the answer left the refusal's track: “can” is not the prompted stream's “can't”. From "
            "there on it is plain decoding.",
            "The answer ended by itself after 3 tokens.",
            LAMBDA_NOTE,
        ],
    ),
    "gate stayed on the track": (
        events(started("adacd-gated"), [contrasted("I", ADD, 0.9, 0.9)]),
        [
            "1 token contrasted, and added (+): both streams agreed with confidence, and the answer leaned "
            "towards the prompted stream.",
            SAME,
            "The answer stayed on the refusal's track through the whole window.",
            "The answer ended by itself after 1 token.",
            LAMBDA_NOTE,
        ],
    ),
    "cancelled": (
        events(started("default"), [plain("a")] * 3, FinishReason.CANCELLED),
        ["Nothing was contrasted: method default is plain decoding.", "Cancelled after 3 tokens."],
    ),
    "context full": (
        events(started("default"), [plain("a")], FinishReason.LENGTH, context_full=True),
        [
            "Nothing was contrasted: method default is plain decoding.",
            "The answer stopped at the context's end, after 1 token.",
        ],
    ),
    "cancelled at once": (
        events(started(), [], FinishReason.CANCELLED),
        ["Cancelled before the first token."],
    ),
    "zero tokens": (
        events(started(max_new_tokens=0), [], FinishReason.LENGTH),
        ["No token was decoded: max_new_tokens is 0."],
    ),
}


@pytest.mark.parametrize("name", SUMMARIES)
def test_summary(name):
    run, paragraphs = SUMMARIES[name]
    assert summary(collect(run)) == paragraphs


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (plain("a"), "Plain decoding: only the plain stream was used."),
        (
            contrasted("a", PLAIN, 0.9, 0.9, top=" I", rank=12),
            "The refusal-prompted stream wants “I”, which the plain stream ranks only 12th: no refusal "
            "is near, "
            "and plain decoding took over.",
        ),
        (
            contrasted("a", SUBTRACT, 0.9, 0.9, top="I", rank=123),
            "The refusal-prompted stream wants “I”, which the plain stream ranks only 123rd (agr 1/123 < λ = "
            "0.9). The two do not agree on refusing, so the refusal direction was subtracted.",
        ),
        (
            contrasted("\n", ADD, 0.98, 0.99),
            "Both streams have the same top token, “⏎”, and the plain one is sure enough of it "
            "(0.98 ≥ 0.9×0.99), so the refusal direction was added.",
        ),
    ],
)
def test_reason(step, why):
    assert reason(step, 0.9) == why


@pytest.mark.parametrize(
    ("step", "test"),
    [
        (contrasted("a", SUBTRACT, 0.66, 0.99), "0.66 < 0.9×0.99"),
        (contrasted("a", ADD, 0.9, 0.9), "0.90 ≥ 0.9×0.90"),
        # two digits would say 0.90 ≥ 0.9×1.00, which is the other decision
        (contrasted("a", SUBTRACT, 0.8966, 0.9968), "0.897 < 0.9×0.997"),
        # the engine compared in float32 and found them equal
        (contrasted("a", ADD, 0.89999998, 1.0), "0.90 ≥ 0.9×1.00"),
        # the agreement decided; the confidences are only shown
        (contrasted("a", SUBTRACT, 0.95, 0.5, top="b", rank=2), "0.95 ≥ 0.9×0.50"),
        (plain("a"), ""),
    ],
)
def test_confidence_test(step, test):
    assert confidence_test(step, 0.9) == test


LEARNED = "The first token's distribution looks like that of a"
MASS = "The contrast prompt makes a refusal so"
FIRST = contrasted("To", SUBTRACT, 0.6, 0.9, top="I", instead_of="I")


@pytest.mark.parametrize(
    ("step", "scale", "why"),
    [
        (
            switched(FIRST, -1.3, -0.4, 1.2),
            "harmless ──●──┊────┊───── harmful  q = −1.3, τ_low = −0.4, τ_high = 1.2",
            f"{LEARNED} harmless question (q = −1.3 < τ_low = −0.4), so the refusal was pushed away.",
        ),
        (
            switched(plain("To"), -9.0, -0.4, 1.2),
            "harmless ●────┊────┊───── harmful  q = −9.0, τ_low = −0.4, τ_high = 1.2",
            f"{LEARNED} harmless question (q = −9.0 < τ_low = −0.4), and the model was about to answer, so the "
            "answer stays its own.",
        ),
        (
            switched(plain("I"), 0.0, -0.4, 1.2),
            "harmless ─────┊─●──┊───── harmful  q = 0.0, τ_low = −0.4, τ_high = 1.2",
            "The first token's distribution lies between those of harmless and harmful questions (τ_low = −0.4 ≤ "
            "q = 0.0 < τ_high = 1.2), so the model's own words stay.",
        ),
        (
            switched(plain("I"), 1.2, -0.4, 1.2),
            "harmless ─────┊────┊●──── harmful  q = 1.2, τ_low = −0.4, τ_high = 1.2",
            f"{LEARNED} harmful question (q = 1.2 ≥ τ_high = 1.2), and the model was about to refuse, so the "
            "refusal stays in its own words.",
        ),
        (
            switched(contrasted("I", ADD, 0.6, 0.9, instead_of="To"), 99.0, -0.4, 1.2),
            "harmless ─────┊────┊────● harmful  q = 99.0, τ_low = −0.4, τ_high = 1.2",
            f"{LEARNED} harmful question (q = 99.0 ≥ τ_high = 1.2), so the answer was turned towards a refusal.",
        ),
        (
            switched(contrasted("To", PLAIN, 0.6, 0.9, top="I", rank=3), -1.3, -0.4, 1.2),
            "harmless ──●──┊────┊───── harmful  q = −1.3, τ_low = −0.4, τ_high = 1.2",
            f"{LEARNED} harmless question (q = −1.3 < τ_low = −0.4), but the refusal-prompted stream wants “I”, "
            "which the plain stream ranks only 3rd: no refusal is near, and plain decoding took over.",
        ),
        # one digit would say −3.1 < −3.1
        (
            switched(FIRST, -3.098, -3.087, -3.087),
            "harmless ─────●┊────── harmful  q = −3.10, τ_low = τ_high = −3.09",
            f"{LEARNED} harmless question (q = −3.10 < τ_low = −3.09), so the refusal was pushed away.",
        ),
        (
            switched(FIRST, -5.5, None, -4.85),
            "harmless ───●──┊────── harmful  logit R − logit R* = −5.5, μ = −4.8",
            f"{MASS} much more likely that the question looks harmless (logit R − logit R* = −5.5 < μ = −4.8), so "
            "the refusal was pushed away.",
        ),
        (
            switched(plain("I"), -1.9, None, -4.85),
            "harmless ──────┊────●─ harmful  logit R − logit R* = −1.9, μ = −4.8",
            f"{MASS} little more likely that the question looks harmful (logit R − logit R* = −1.9 ≥ μ = −4.8), "
            "and the model was about to refuse, so the refusal stays in its own words.",
        ),
    ],
)
def test_what_a_switch_saw(step, scale, why):
    seen = reading(step)
    assert f"{seen.drawn()}  {seen.numbers}" == scale
    assert reason(step, None) == why


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (
            contrasted(" can", SUBTRACT, 0.9, 0.9, top=" I", rank=1),
            "Both streams still have the same top token, “I”, and the answer is pushed away from it, as decided at "
            "the first token.",
        ),
        (
            contrasted(" can", ADD, 0.9, 0.9, top=" I", rank=4),
            "The prompted stream wants “I”, and the answer leans towards it, as decided at the first token.",
        ),
        (
            contrasted(" can", PLAIN, 0.9, 0.9, top=" I", rank=4),
            "The refusal-prompted stream wants “I”, which the plain stream ranks only 4th: no refusal is near, and "
            "plain decoding took over.",
        ),
    ],
)
def test_a_step_after_the_one_that_a_switch_decided_at(step, why):
    assert reason(step, None) == why
    assert confidence_test(step, None) == ""


def test_summaries_with_a_switch():
    harmful = events(fitted(), [switched(plain("I"), 2.0, -0.4, 1.2), plain(" can't")])
    assert summary(collect(harmful)) == [
        f"Nothing was contrasted. {LEARNED} harmful question (q = 2.0 ≥ τ_high = 1.2), and the model was about to "
        "refuse, so the refusal stays in its own words.",
        "The answer ended by itself after 2 tokens.",
    ]
    pushed = f"{LEARNED} harmless question (q = −1.3 < τ_low = −0.4), so the refusal was pushed away."
    later = [
        switched(contrasted("I", SUBTRACT, 0.6, 0.9), -1.3, -0.4, 1.2),
        contrasted(" can", SUBTRACT, 0.6, 0.9, top=" can't", instead_of=" can't"),
    ]
    assert summary(collect(events(fitted(), later))) == [
        "2 tokens contrasted, all of them subtracted (−): the answer was pushed away from the prompted stream.",
        pushed,
        "The answer turned at step 1: Default would have taken “can't”, and “can” was taken. "
        f"{reason(later[1], None)}",
        "At step 1 the answer left the refusal's track: “can” is not the prompted stream's “can't”. From there on "
        "it is plain decoding.",
        "The answer ended by itself after 2 tokens.",
    ]
    thinking = events(fitted(), [plain("Hm", thinking=True)], FinishReason.LENGTH)
    assert summary(collect(thinking))[0] == (
        "Nothing was contrasted: the answer had not begun when the thinking was cut off."
    )


def test_the_run_line_names_switch_and_profile():
    assert describe_run(fitted()) == (
        "demo · fitted · profile qwen · α 2 · learned switch · β 0.01 · k 10 · greedy"
    )


def test_a_run_without_an_end_is_refused():
    with pytest.raises(ValueError, match="Started"):
        collect(turned()[:-1])
