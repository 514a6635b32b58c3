"""A method of three streams, from its line in METHODS to the columns of its trace.

A new method is a file in `adacd_cli/engine/rules` with a function `rule`, a line in `config.methods.METHODS`,
and a table like the one here; the example's file and line are made by the fixture `between`.
"""

from __future__ import annotations

import io
import sys
from types import ModuleType

import pytest
import torch

from adacd_cli.config import Settings
from adacd_cli.config.methods import METHODS, Method, StreamSpec
from adacd_cli.conversation import Conversation
from adacd_cli.engine import Request
from adacd_cli.engine.rules import rule_of
from adacd_cli.engine.rules.base import Verdict, all_rows, confidence_of
from adacd_cli.engine.switches import SUBTRACT
from adacd_cli.events import Finished, Started, TokenStep, from_json, to_json
from adacd_cli.prompts import Prompt, Prompts, prompts_for
from adacd_cli.render.screen import View
from adacd_cli.render.trace import write_table
from tests.fakes import decode, saying, scripted
from tests.tiny import tiny_tokenizer


def rule(logits, settings):
    """z + α·Δ, where Δ leads from the refusing stream to the helpful one, or to z once that window is over."""
    z = logits["base"]
    delta = logits.get("helpful", z) - logits["refusing"]
    measures = {"favoured": (delta > 0).sum(dim=-1), "spread": delta.amax(dim=-1) - delta.amin(dim=-1)}
    return Verdict(z + settings.alpha * delta, all_rows(SUBTRACT, z), confidence_of(z), measures)


LINE = Method(
    "between",
    "Contrast between a refusing and a helpful stream.",
    "between",
    "Every step is pushed from the refusing stream to the helpful one (−).",
    streams=(
        StreamSpec("base"),
        StreamSpec("refusing", "contrast_prompt", "contrast_steps"),
        StreamSpec("helpful", "helpful_prompt", "safedecoding_steps"),
    ),
    symbols=(("alpha", "α"), ("contrast_steps", "k"), ("safedecoding_steps", "m")),
)
SETTINGS = {"method": "between", "alpha": 2.0, "contrast_steps": 3, "safedecoding_steps": 2}


@pytest.fixture(autouse=True)
def between(monkeypatch):
    """The method's file and its line."""
    module = ModuleType("adacd_cli.engine.rules.between")
    module.rule = rule
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(METHODS, "between", LINE)


def test_the_rule_by_a_table():
    z = {
        "base": [2.0, 1.0, 0.0, 0.0, 0.0],
        "refusing": [3.0, 0.0, 0.0, 0.0, 0.0],
        "helpful": [0.0, 2.0, 1.0, 0.0, 0.0],
    }
    # Δ = (-3, 2, 1, 0, 0): two tokens are favoured, and 5 lie between the most and the least favoured one
    verdict = rule_of(LINE)({name: torch.tensor([row]) for name, row in z.items()}, Settings(**SETTINGS))
    assert verdict.scores.tolist() == [[2 - 6, 1 + 4, 0 + 2, 0, 0]]
    assert {name: value.tolist() for name, value in verdict.measures.items()} == {
        "favoured": [2],
        "spread": [5],
    }


def test_every_stream_has_a_prompt_of_its_own():
    settings = Settings(**SETTINGS, contrast_placement="user-end")
    prompts = prompts_for(tiny_tokenizer(), Conversation.ask("How do I kill a process?"), settings)
    assert list(prompts.streams) == ["base", "refusing", "helpful"]
    texts = {name: prompt.text for name, prompt in prompts.streams.items()}
    for name, own in (("refusing", settings.contrast_prompt), ("helpful", settings.helpful_prompt)):
        assert [stream for stream, text in texts.items() if own in text] == [name]
        assert prompts.shared_with_base(name) > 10


@pytest.fixture
def events():
    """Alone it says "Yo!", asked to refuse "No.", and asked to help "Go on"."""
    model = scripted(saying(("please refuse", "No."), ("assist me", "Go on"), ("hi", "Yo!")))
    ids = {"base": b"hi\n", "refusing": b"please refuse\n", "helpful": b"assist me\n"}
    prompts = Prompts({name: Prompt(tuple(each)) for name, each in ids.items()})
    found = list(decode(model, [Request(prompts, Settings(**SETTINGS))]))
    # all three streams for two tokens, two for the third, and then the base stream alone
    assert [rows for rows, new in model.model.calls if new == 1] == [3, 2, 1]
    return found


def test_it_is_decoded_and_each_window_ends_by_itself(events):
    steps = [event for event in events if isinstance(event, TokenStep)]
    # Y has 8, N 8 - 2·8 and G 2·8; "o" is all three's; then "!" has 8 + 2·8; the end is plain
    assert [step.token for step in steps] == ["G", "o", "!", "<|end|>"]
    assert "".join(step.decision.mark for step in steps) == "−−−·"
    assert [dict(step.measures.named) for step in steps] == [
        {"favoured": 1, "spread": 16},
        {"favoured": 0, "spread": 0},
        {"favoured": 1, "spread": 16},
        {},
    ]


def test_its_events_come_back_from_json(events):
    started, step = events[:2]
    assert isinstance(started, Started) and isinstance(events[-1], Finished)
    assert (started.method, started.settings["safedecoding_steps"]) == ("between", 2)
    assert to_json(step).items() >= {"favoured": 1, "spread": 16}.items()
    assert [from_json(to_json(event)) for event in events] == events


def test_its_trace_has_a_column_for_each_measure(events):
    out = io.StringIO()
    write_table(events, out, View("hi", display="plain", width=100))
    lines = out.getvalue().splitlines()
    (header,) = [place for place, line in enumerate(lines) if line.endswith("favoured spread decision")]
    assert lines[header + 1].split()[-4:] == ["1", "16", "−", "subtract"]
    heading = " ".join(lines[:header])
    assert "the refusing stream also reads" in heading and "the helpful stream also reads" in heading
