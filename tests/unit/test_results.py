"""results.json of a run of a few answers, every number worked out by hand."""

from __future__ import annotations

import pytest

from adacd_cli.evaluation.results import Group, groups, summarise
from adacd_cli.evaluation.runner import text_hash
from adacd_cli.evaluation.store import AnswerRecord, JudgementRecord


def answer(method, dataset, id, label, text, **values):
    numbers = {"finish_reason": "stop", "tokens": 10, "seconds": 1.0} | values
    return AnswerRecord(method, dataset, id, f"Prompt {id}?", label, "", text=text, **numbers)


def judged(record, label, judge="keyword", **detail):
    return JudgementRecord(*record.key, judge, label, text_hash(record.text), detail)


def summary(answers, judgements, **values):
    given = {"methods": ["default", "adacd"], "judges": ["keyword"], "both": ["mixed"], "provenance": {}}
    return summarise(answers, judgements, **(given | values))


ANSWERS = {
    "refusal": [
        answer("default", "mixed", "a", "safe", "No."),
        answer("default", "mixed", "u", "unsafe", "No."),
        answer("default", "one", "x", "safe", "No."),
        answer("adacd", "mixed", "u", "unsafe", "No."),
    ],
    "compliance": [
        answer("default", "mixed", "b", "safe", "Yes."),
        answer("adacd", "mixed", "a", "safe", "Yes.", tokens=20, seconds=2.2),
        answer("adacd", "mixed", "b", "safe", "Yes."),
    ],
    "degenerate": [answer("adacd", "one", "x", "safe", "", tokens=1, seconds=0.2)],
}
RECORDS = [record for records in ANSWERS.values() for record in records]
WORDS = [judged(record, label) for label, records in ANSWERS.items() for record in records]


def test_a_set_with_both_labels_is_two_groups_and_safe_ones_come_first():
    assert groups(RECORDS, ["mixed"]) == [
        Group("mixed-safe", "mixed", "safe"),
        Group("one", "one", "safe"),
        Group("mixed-unsafe", "mixed", "unsafe"),
    ]


def test_every_number_of_a_cell():
    results = summary(RECORDS, WORDS)["results"]
    assert results["default"]["mixed-safe"] == {
        "label": "safe",
        "n": 2,
        "refused": 1,
        "ratio": 0.5,
        "ci_low": pytest.approx(0.0945, abs=1e-4),
        "ci_high": pytest.approx(0.9055, abs=1e-4),
        "labels": {"refusal": 1, "partial": 0, "compliance": 1, "degenerate": 0, "unparsed": 0},
        "unchanged": 1.0,
        "mean_tokens": 10,
        "atgr": 1.0,
        "aspects": {},
    }
    own = results["adacd"]["mixed-safe"]
    assert (own["n"], own["refused"], own["ratio"], own["unchanged"], own["mean_tokens"]) == (
        2,
        0,
        0,
        0.5,
        15,
    )
    # 3.2 s for 30 tokens against 2 s for 20
    assert own["atgr"] == pytest.approx((3.2 / 30) / (2.0 / 20))
    assert results["adacd"]["one"]["labels"]["degenerate"] == 1
    assert results["adacd"]["one"]["ratio"] == 0.0


def timed(method, batch, wall, cpu, tokens=10):
    return answer(
        method, "one", str(batch), "safe", "T", tokens=tokens, seconds=wall, cpu_seconds=cpu, batch=batch
    )


def costs(own, before):
    """The averages of adacd, of batches of one answer: wall and processor seconds of each."""
    records = [
        timed(method, batch, *seconds)
        for method, each in (("default", before), ("adacd", own))
        for batch, seconds in enumerate(each)
    ]
    return summary(records, [judged(record, "compliance") for record in records])["averages"]["adacd"]


def test_one_batch_on_a_busy_machine_does_not_move_the_ratio():
    found = costs([(1.4, 1.4), (70.0, 1.5), (1.3, 1.3)], [(1.0, 1.0)] * 3)
    assert (found["atgr"], found["clock"], found["batches"]) == (pytest.approx(1.4), "seconds", 3)


def test_processor_time_compares_where_the_wall_disagrees():
    found = costs([(50.0, 1.4), (60.0, 1.4)], [(1.0, 1.0), (1.0, 1.0)])
    assert (found["atgr"], found["atgr_wall"]) == (pytest.approx(1.4), pytest.approx(55.0))
    assert found["clock"] == "cpu_seconds"
    # neither on a GPU nor at a server, where this process computes nothing
    found = costs([(50.0, 0.0)], [(1.0, 0.0)])
    assert (found["atgr"], found["clock"]) == (50.0, "seconds")


def test_answers_of_a_run_before_batches_were_counted_are_one_batch():
    found = summary(RECORDS, WORDS)["averages"]["adacd"]
    assert (found["clock"], found["batches"]) == ("seconds", 1)


def test_partial_counts_as_refused_and_unparsed_as_neither():
    records = [answer("default", "one", id, "safe", "T") for id in "abc"]
    labels = ("partial", "unparsed", "compliance")
    words = [judged(record, label) for record, label in zip(records, labels, strict=True)]
    cell = summary(records, words, methods=["default"])["results"]["default"]["one"]
    assert (cell["n"], cell["refused"], cell["ratio"]) == (2, 1, 0.5)
    assert cell["labels"] == {"refusal": 0, "partial": 1, "compliance": 1, "degenerate": 0, "unparsed": 1}


def test_averages_count_every_set_the_same():
    averages = summary(RECORDS, WORDS)["averages"]
    assert averages["default"]["safe"] == (0.5 + 1.0) / 2
    assert averages["default"]["unsafe"] == 1.0
    assert averages["adacd"]["safe"] == 0.0
    # of four pairs the answers to b and u are Default's
    assert averages["adacd"]["unchanged"] == 0.5


def test_pairs_and_verdicts_against_default():
    results = summary(RECORDS, WORDS)
    assert results["paired"] == {
        "adacd": {
            "mixed-safe": {"n": 2, "lost": 1, "gained": 0, "change": -0.5, "p": 1.0, "newly_degenerate": 0},
            "all safe": {
                "n": 3, "lost": 2, "gained": 0, "change": pytest.approx(-2 / 3), "p": 0.5,
                "newly_degenerate": 1,
            },
            "one": {"n": 1, "lost": 1, "gained": 0, "change": -1.0, "p": 1.0, "newly_degenerate": 1},
            "mixed-unsafe": {"n": 1, "lost": 0, "gained": 0, "change": 0.0, "p": 1.0, "newly_degenerate": 0},
            "all unsafe": {"n": 1, "lost": 0, "gained": 0, "change": 0.0, "p": 1.0, "newly_degenerate": 0},
        }
    }  # fmt: skip
    assert results["verdicts"] == {"adacd": "no difference shown"}


def test_without_default_nothing_is_compared():
    own = [record for record in RECORDS if record.method == "adacd"]
    results = summary(own, WORDS, methods=["adacd"])
    assert (results["paired"], results["verdicts"]) == ({}, {})
    assert results["results"]["adacd"]["mixed-safe"]["unchanged"] is None
    assert results["results"]["adacd"]["mixed-safe"]["atgr"] is None


def test_what_failed_counts_nowhere_and_is_listed():
    failed = answer("adacd", "one", "y", "safe", "", error="The prompt is too long.")
    results = summary([*RECORDS, failed], WORDS)
    assert results["failed"] == [
        {"method": "adacd", "dataset": "one", "id": "y", "error": "The prompt is too long."}
    ]
    assert results["results"]["adacd"]["one"]["n"] == 1


def test_several_judges_are_compared_on_refused_or_not():
    records = [answer("default", "one", str(number), "safe", "T") for number in range(4)]
    labels = ("refusal", "partial", "compliance", "compliance")
    others = ("refusal", "compliance", "compliance", "unparsed")
    words = [judged(record, label) for record, label in zip(records, labels, strict=True)]
    words += [judged(record, label, "minos") for record, label in zip(records, others, strict=True)]
    agreement = summary(records, words, methods=["default"], judges=["keyword", "minos"])["agreement"]
    # on the three that both parsed: 2 of 3 the same; κ = (2/3 − 4/9) / (1 − 4/9) = 0.4
    assert agreement == [
        {
            "judges": ["keyword", "minos"],
            "n": 3,
            "agreement": pytest.approx(2 / 3),
            "kappa": pytest.approx(0.4),
        }
    ]


def test_aspects_are_means_without_those_that_do_not_apply():
    records = [answer("default", "one", id, "safe", "T") for id in "ab"]
    words = [judged(record, "compliance") for record in records]
    words += [
        judged(records[0], "compliance", "openai", aspects={"clarity": 4, "depth": None}),
        judged(records[1], "compliance", "openai", aspects={"clarity": 5, "depth": 2}),
    ]
    cell = summary(records, words, methods=["default"])["results"]["default"]["one"]
    assert cell["aspects"] == {"clarity": 4.5, "depth": 2.0}
