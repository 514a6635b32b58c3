"""Answers that are held to a JSON schema: by every method, beside others, after thinking, and what is refused."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import jsonschema_rs
import pytest
import torch

from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation
from adacd_cli.engine import LanguageModel, Request, Scheduler
from adacd_cli.engine.grammar import Grammars
from adacd_cli.engine.step import ScoreProcessor
from adacd_cli.errors import ConfigurationError, MissingExtraError
from adacd_cli.events import Failed, Finished, FinishReason, TokenStep
from adacd_cli.prompts import ThinkingMarks, prompts_for
from tests.byte_tokenizer import make_tokenizer
from tests.fakes import ScriptedBackend, ScriptedModel, decode, request_for, two_streams
from tests.tiny import tiny_model

pytest.importorskip("llguidance")

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "é", "🦊"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
DIGIT = {"type": "integer", "minimum": 1, "maximum": 9}
WIDE = {"type": "object", "properties": {f"p{place}": {} for place in range(700)}}
"""Every subset of so many properties, in order: more than a parser may have open at once."""


@pytest.fixture(scope="module")
def tiny():
    return tiny_model("llama")


@pytest.fixture(scope="module")
def grammars(tiny):
    return Grammars(tiny)


def requests(model, grammar, count=1, **values):
    own = Settings(**{"max_new_tokens": 300, **values})
    prompts = prompts_for(model.tokenizer, Conversation.ask("Who are you?"), own)
    return [Request(prompts, own, seed, grammar=grammar) for seed in range(count)]


def ends(model, asked):
    """The last event of each request, in their order."""
    found = [event for event in decode(model, asked) if isinstance(event, (Finished, Failed))]
    return sorted(found, key=lambda event: event.request)


@pytest.mark.parametrize(
    "values",
    [
        {"method": "default"},
        {"method": "adacd"},
        {"method": "adacd", "gate": True, "temperature": 1.0},
        {"method": "selfcd", "temperature": 1.0},
        {"method": "ssd", "draft": "small", "ssd_bin": 1, "temperature": 1.0},
        {
            "temperature": 1.5,
            "min_p": 0.01,
            "repetition_penalty": 1.3,
            "presence_penalty": 1.0,
            "min_tokens": 9,
        },
        {"temperature": 1.0, "top_k": 5, "ignore_eos": True, "logit_bias": ("5:100",)},
    ],
    ids=lambda values: "-".join(map(str, values.values())),
)
def test_every_answer_is_json_that_fits(tiny, grammars, values):
    model = replace(tiny, extras={("draft", "small"): tiny_model("llama", seed=1).model})
    found = ends(model, requests(model, grammars.of_json(SCHEMA), 4, **values))
    for end in found:
        jsonschema_rs.validate(SCHEMA, json.loads(end.text))
        assert end.finish_reason is FinishReason.STOP
    assert len({end.text for end in found}) == (4 if "temperature" in values else 1)
    if values.get("method") == "selfcd":  # whose window is the whole answer
        assert found[0].subtracted == found[0].tokens


def test_an_answer_is_the_one_it_would_be_alone(tiny, grammars):
    asked = [
        *requests(tiny, grammars.of_json(SCHEMA), 2, temperature=1.0),
        *requests(tiny, None, 1, temperature=1.0, max_new_tokens=20),
        *requests(tiny, grammars.of_json({"type": "array", "items": DIGIT, "maxItems": 9}), temperature=1.0),
    ]
    assert [end.text for end in ends(tiny, asked)] == [ends(tiny, [each])[0].text for each in asked]


def test_what_is_cut_off_is_the_beginning_of_json(tiny, grammars):
    whole, cut = (
        ends(tiny, requests(tiny, grammars.of_json(SCHEMA), **own))[0] for own in ({}, {"max_new_tokens": 7})
    )
    assert (cut.finish_reason, cut.tokens) == (FinishReason.LENGTH, 7)
    assert whole.text.startswith(cut.text.rstrip("\ufffd"))


def test_what_only_an_end_can_follow_ends_at_once(tiny, grammars):
    (end,) = ends(tiny, requests(tiny, grammars.of_json(DIGIT), ignore_eos=True, min_tokens=5))
    assert (end.tokens, end.finish_reason) == (1, FinishReason.STOP) and end.text in "123456789"


def test_tokens_that_are_not_allowed_have_no_score_nor_has_padding():
    scores = torch.arange(6.0)[None]
    own = ScoreProcessor(Settings(), (1,), {2}, torch.device("cpu"))
    allowed = torch.tensor([True, False, True, False])
    assert own(scores, (), allowed).tolist() == [[0.0, -torch.inf, 2.0, *[-torch.inf] * 3]]
    assert own(scores[:, :3], (), allowed).tolist() == [[0.0, -torch.inf, 2.0]]
    assert own(scores, ()).equal(scores)


def test_thinking_is_free_and_the_answer_after_it_is_not():
    tokenizer = make_tokenizer()
    ids = tokenizer.get_vocab()
    said = [
        ids["<think>"],
        *tokenizer.encode("no {JSON}", add_special_tokens=False),
        ids["</think>"],
        ids["7"],
    ]

    def script(fed):
        logits = [0.0] * len(tokenizer)
        logits[said[min(len(fed) - 1, len(said) - 1)]] = 9.0
        return logits

    ends_with = frozenset({ids["<|end|>"]})
    model = LanguageModel(ScriptedModel(script), tokenizer, "scripted", None, ends_with, None)
    prompts = two_streams([5], [6], ThinkingMarks("<think>", "</think>", opened=False))
    asked = request_for(prompts, Settings(max_new_tokens=30), grammar=Grammars(model).of_json(DIGIT))
    events = list(decode(model, [asked]))
    assert (events[-1].thinking, events[-1].text) == ("<think>no {JSON}</think>", "7")
    assert [event.thinking for event in events if isinstance(event, TokenStep)] == [True] * 11 + [False]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "objekt"}, "Invalid type: objekt."),
        ({"type": "array", "uniqueItems": True}, 'Unimplemented keys: ["uniqueItems"].'),
        ({"type": "string", "pattern": "(\x1b\n"}, "regex parse error"),
        ({"$ref": "http://127.0.0.1:1/schema"}, "does not fetch resources."),
        ({"$ref": "#"}, "NoExtensionBias"),
        ("[1", "cannot be read: EOF"),
        ("5", "cannot be read: Expecting object schema"),
        ({"enum": ["x" * 100_000]}, "has 100,014 characters; at most 100,000 are read."),
        ({"properties": {f"{place}": {} for place in range(8_000)}}, "too big"),
        ({"allOf": [{"type": "integer", "multipleOf": each} for each in (9973, 9967, 9949)]}, "fuel"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_schema_that_cannot_be_followed_is_refused_in_a_line(grammars, schema, reason):
    with pytest.raises(ConfigurationError, match=r"^(No answer|The JSON schema) [^\n\x1b]*\.$") as caught:
        grammars.of_json(schema)
    assert reason in caught.value.message


def test_an_answer_that_becomes_too_much_work_fails_and_the_others_go_on(tiny, grammars):
    asked = [*requests(tiny, grammars.of_json(WIDE)), *requests(tiny, grammars.of_json(DIGIT))]
    failed, finished = ends(tiny, asked)
    assert "max is 2000" in str(failed.exception()) and isinstance(failed.exception(), ConfigurationError)
    assert finished.text in "123456789"


def test_without_llguidance_the_error_says_what_to_install(grammars, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtraError) as caught:
        grammars.of_json(DIGIT)
    assert caught.value.hint == "pip install 'adacd[json]'"


def test_a_server_that_has_the_model_is_not_asked(tiny, grammars):
    with pytest.raises(ConfigurationError, match="a server has the model"):
        Grammars(replace(tiny, server=object())).of_json(DIGIT)
    asked = request_for(two_streams([5], [6]), Settings(), grammar=grammars.of_json(DIGIT))
    with pytest.raises(ConfigurationError, match="a server has the model"):
        Scheduler(ScriptedBackend(lambda ids: [0.0], full_logits=False)).submit(asked)


def test_a_tokenizer_that_llguidance_cannot_read(tiny):
    with pytest.raises(
        ConfigurationError, match="this model's tokenizer: Only fast tokenizers are supported"
    ):
        Grammars(replace(tiny, tokenizer=object())).of_json(DIGIT)
