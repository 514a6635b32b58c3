"""Events come back from JSON as they were, and a method's own measures stand flat beside the known ones."""

import json

import pytest

from adacd_cli.events import (
    Candidate,
    Decision,
    Event,
    Failed,
    Finished,
    FinishReason,
    Measures,
    Notice,
    Started,
    TokenLogprob,
    TokenStep,
    from_json,
    to_json,
)

MEASURES = Measures(0.5, 1.0, 3, 1, 0.25, 2, {"divergence": 0.125, "rounds": 2})
STEP = TokenStep(0, 1, 3, "a", "a", Decision.ADD, MEASURES, 4, "b", "a")
EVENTS: dict[str, Event] = {
    "started": Started(0, "demo", None, "adacd", 9, 5, {"alpha": 4.5}, 7, shared_tokens=3),
    "token": STEP,
    "token, in detail": TokenStep(
        0,
        1,
        3,
        "a",
        "a",
        Decision.PLAIN,
        Measures(0.0),
        3,
        "a",
        candidates=(Candidate(3, "a", -1.0, -2.0, 0.5, True),),
        logprob=0.0,
        top_logprobs=(TokenLogprob(3, "a", 0.0),),
    ),
    "finished": Finished(0, "a", FinishReason.LENGTH, 1, 1, 0),
    "failed": Failed(2, "OutOfMemoryError", "There is no memory left.", "Use a smaller model."),
    "notice": Notice("The model could not be compiled.", request=1),
    "notice for all": Notice("The model could not be compiled."),
}


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_comes_back_from_json(name: str) -> None:
    event = EVENTS[name]
    written = json.dumps(to_json(event))
    assert json.loads(written)["event"] == name.split()[0].strip(",")
    assert from_json(json.loads(written)) == event


def test_named_measures_stand_flat_beside_the_known_ones() -> None:
    values = to_json(STEP)
    assert values["divergence"] == 0.125 and values["confidence"] == 0.5
    assert "named" not in values and "measures" not in values


def test_a_measure_never_replaces_a_key_of_the_step() -> None:
    step = TokenStep(0, 1, 3, "a", "a", Decision.ADD, Measures(0.5, named={"index": 9.0}), 4, "b")
    assert to_json(step)["index"] == 1


def test_keys_from_a_newer_version_are_left_out() -> None:
    values = to_json(STEP) | {"later": "text"}
    assert from_json(values) == STEP


@pytest.mark.parametrize("values", [{}, {"event": "token "}, {"event": None}])
def test_another_object_is_no_event(values: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        from_json(values)


def test_the_key_order_of_a_step_is_kept() -> None:
    plain = to_json(TokenStep(0, 1, 3, "a", "a", Decision.ADD, Measures(0.5), 4, "b"))
    assert [*plain][:4] == ["event", "request", "index", "token_id"]
    assert [*plain][-1] == "plausible_count"
