"""The trace in every format: whole outputs against tests/golden, at width 80."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from rich.cells import cell_len

from adacd_cli.cli.answer import FORMATS
from adacd_cli.events import Finished, Measures, TokenStep, from_json
from adacd_cli.render.screen import View
from adacd_cli.render.text import write_events
from adacd_cli.render.trace import probability
from tests.traces import (
    ADD,
    PLAIN,
    REFUSAL_CANDIDATES,
    SUBTRACT,
    Terminal,
    check_golden,
    contrasted,
    events,
    fitted,
    plain,
    started,
    switched,
    turned,
)

VIEW = View("How do I kill a <b>Python</b> process?")
RUN = turned(REFUSAL_CANDIDATES)


@pytest.fixture(autouse=True)
def _color_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("COLORTERM", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)


def write(name, run, view=VIEW, stream=io.StringIO):
    out = stream()
    FORMATS[name](iter(run), out, view)
    return out.getvalue()


@pytest.mark.parametrize(
    ("file", "name", "view"),
    [
        ("trace.txt", "table", VIEW),
        ("trace-all.txt", "table", replace(VIEW, every=True, quiet=True)),
        ("trace-120.txt", "table", replace(VIEW, width=120)),
        ("trace.jsonl", "json", VIEW),
        ("trace.html", "html", VIEW),
    ],
)
def test_golden(file, name, view):
    check_golden(file, write(name, RUN, view))


SWITCHED = events(
    fitted(),
    [
        switched(contrasted("I", SUBTRACT, 0.66, 0.99), -1.3, -0.4, 1.2),
        contrasted(" can", SUBTRACT, 0.4, 0.9, top=" can't", instead_of=" can't"),
        plain(" help"),
    ],
)


@pytest.mark.parametrize("switch", ["learned", "mass"])
def test_golden_switch(switch):
    begin, first, *rest = SWITCHED
    if switch == "mass":
        begin, first = fitted("mass"), switched(first, -5.5, None, -4.8)
    check_golden(f"trace-{switch}.txt", write("table", [begin, first, *rest]))


def test_golden_terminal():
    check_golden("trace-terminal.txt", write("table", RUN, replace(VIEW, width=80), Terminal))


def test_golden_thinking():
    thoughts = [plain(text, thinking=True) for text in ("<think>", "Hm", ".", "</think>\n")]
    run = events(started(thinking=True), [*thoughts, contrasted("No", ADD, 0.99, 0.98), plain(".")])
    check_golden("trace-thinking.txt", write("table", run))


@pytest.mark.parametrize("width", [80, 81, 100, 200])
def test_the_table_fits_its_width(width):
    wide = contrasted("終了" * 20, SUBTRACT, 0.8938, 0.9949, top="x" * 40, rank=123_456, instead_of="\n" * 30)
    run = events(started(), [replace(wide, candidates=REFUSAL_CANDIDATES), *map(plain, ["word "] * 99)])
    table = write("table", run, replace(VIEW, width=width)).split("\nAnswer\n")[0]
    assert max(cell_len(line) for line in table.splitlines()) <= width


def test_rows_are_flushed_as_the_events_come():
    class Flushed(io.StringIO):
        seen = ""

        def flush(self):
            self.seen = self.getvalue()

    out = Flushed()

    def coming():
        for event in RUN:
            if isinstance(event, TokenStep) and event.measures.agreement is not None:
                rows = re.findall(r"^ +(\d+) ", out.seen, flags=re.MULTILINE)
                assert rows == [str(index) for index in range(event.index)]
            yield event

    FORMATS["table"](coming(), out, VIEW)
    assert "Answer\nSure, run\n kill" in out.seen


def test_a_terminal_counts_plain_tokens_on_one_line():
    run = events(started(contrast_steps=0), map(plain, ("a", "b")))
    text = write("table", run, View("hi", display="plain", width=40, quiet=True), Terminal)
    counted = [line.rstrip() for line in text.split("\n")[3].split("\r")]
    assert counted == ["", "   … 1 plain token: a", "   … 2 plain tokens: ab", "   … 2 plain tokens: ab"]


def test_a_terminal_is_given_no_control_character_of_the_model():
    assert "\x1b" not in write("table", RUN, replace(VIEW, display="plain"), Terminal)
    assert "\x1b" not in write("json", RUN, VIEW, Terminal)


def test_a_measure_that_the_method_names_has_a_column_of_its_own():
    def named(text, **numbers):
        step = contrasted(text, ADD, 0.9, 0.9)
        return replace(step, measures=Measures(0.9, named=numbers), prompted_top=None)

    run = events(started(), [named("a", divergence=0.125), named("b", divergence=2.0, kl=1e-6), plain("c")])
    rows = write("table", run, replace(VIEW, quiet=True)).split("\nAnswer\n")[0].splitlines()[3:]
    assert [row.split()[8] for row in rows if row.startswith("step")] == ["divergence", "divergence"]
    assert [row.split()[3:-2] for row in rows[1:] if row.lstrip()[:1].isdigit()] == [
        ["0.90", "0.125"],
        ["0.90", "2", "1e-06"],
    ]
    assert max(map(cell_len, rows)) <= 80
    assert '"named":{"divergence":0.125}' in write("html", run)


def test_json_lines_come_back_as_the_same_events():
    out = io.StringIO()
    odd = events(started(), [plain("\udc80é\x9b\x7f終 ")])
    write_events(odd, out)
    lines = out.getvalue().splitlines()
    assert [from_json(json.loads(line)) for line in lines] == odd
    assert "\\udc80é\\u009b\\u007f終" in lines[1]


def test_json_lines_are_ascii_where_the_stream_is():
    out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    write_events(events(started(), [plain("終")]), out)
    assert '"text": "\\u7d42"' in out.buffer.getvalue().decode("ascii")


def test_json_lines_refuse_numbers_that_json_does_not_have():
    with pytest.raises(ValueError, match="JSON"):
        write_events(events(started(), [plain("a", confidence=float("nan"))]), io.StringIO())


def test_the_page_needs_nothing_from_outside_and_escapes_every_text():
    evil = "</script><script>document.title='owned'</script><!--"
    run = events(started(), [contrasted(evil, SUBTRACT, 0.5, 0.9, instead_of=evil), plain("\ud800&")])
    page = write("html", run, View(evil + "@@data@@"))
    assert evil not in page
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert not re.search(r"(?:https?:)?//[a-z]", page)
    assert "default-src 'none'" in page
    assert "@@data@@" in page
    data = re.search(r'id="trace">(.*?)</script>', page)
    assert data is not None
    assert json.loads(data[1])["steps"][0]["text"] == evil
    assert page.encode("utf-8")


def test_zero_tokens():
    run = events(started(max_new_tokens=0), [])
    for name in FORMATS:
        assert isinstance(run[-1], Finished)
        assert write(name, run)
    assert "Nothing" not in write("table", run)


@pytest.mark.parametrize(
    ("logprob", "shown"),
    [(None, "–"), (0.0, "1.000"), (-0.415, "0.660"), (-7.0, "0.001"), (-16.0, "1e-07"), (-2000.0, "0e+00")],
)
def test_probabilities(logprob, shown):
    assert probability(logprob) == shown


def test_every_decision_has_its_mark():
    run = events(
        started("adacd-gated"),
        [
            contrasted("a", ADD, 0.9, 0.9),
            contrasted("b", SUBTRACT, 0.1, 0.9),
            contrasted("c", PLAIN, 0.9, 0.9, top="d", rank=2),
        ],
    )
    rows = write("table", run, replace(VIEW, quiet=True)).splitlines()[4:7]
    assert [row[70:] for row in rows] == ["+ add", "− subtract", "· plain"]


def test_an_error_while_decoding_begins_on_a_line_of_its_own():
    def failing():
        yield from events(started(contrast_steps=0), [plain("half")])[:-1]
        raise ValueError("broken")

    out = Terminal()
    with pytest.raises(ValueError, match="broken"):
        FORMATS["table"](failing(), out, replace(VIEW, display="plain", width=80))
    last_line = out.getvalue().split("\r")[-1]
    assert last_line == "   … 1 plain token: half".ljust(79) + "\n"


@pytest.mark.parametrize("name", ["table", "html"])
def test_statistics_can_be_left_out(name):
    assert "41.2 tokens/s" in write(name, RUN)
    assert "41.2 tokens/s" not in write(name, RUN, replace(VIEW, stats=False))
