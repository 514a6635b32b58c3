"""`adacd explain` on the bundled model, through the whole command line."""

from __future__ import annotations

import json
import os
import pty
import re

import pytest

from adacd_cli.events import Finished, Started, TokenStep, from_json
from tests import processes

PROMPT = "How do I kill a Python process?"


def read_events(text):
    return [from_json(json.loads(line)) for line in text.splitlines()]


def test_the_table_in_a_pipe(adacd):
    code, out, err = adacd("explain", PROMPT, "-n", "16")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80
    assert out.startswith(
        f"Prompt  {PROMPT}\nRun     demo · adacd · α 4.5 · λ 0.9 · β 0.01 · k 10 · greedy\n"
    )
    assert [int(row) for row in re.findall(r"^ +(\d+) .*(?:add|subtract)$", out, re.MULTILINE)] == [
        *range(10)
    ]
    answer = adacd("generate", PROMPT, "-n", "16").out
    assert f"\nAnswer\n{answer}\nWhat happened\n• 10 tokens contrasted" in out


def test_every_format_tells_the_same_run(adacd):
    events = read_events(adacd("explain", PROMPT, "--json", "-n", "12", "--top", "3").out)
    steps = [event for event in events if isinstance(event, TokenStep)]
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert all(len(step.candidates) == 3 for step in steps)
    assert all(step.token_id in [found.token_id for found in step.candidates] for step in steps)
    assert read_events(adacd("explain", PROMPT, "--format", "json", "-n", "12", "--top", "3").out) == events


def test_a_page_in_a_file_has_candidates_unasked(adacd, tmp_path):
    page = tmp_path / "trace.html"
    assert adacd("explain", PROMPT, "--format", "html", "-o", str(page), "-n", "4") == (0, "", "")
    data = re.search(r'id="trace">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert data is not None
    assert [len(step["candidates"]) for step in json.loads(data[1])["steps"]] == [5, 5, 5, 5]
    without = adacd("explain", PROMPT, "--format", "html", "--top", "0", "-n", "4").out
    assert '"candidates":[]' in without


def test_methods_and_windows(adacd):
    default = adacd("explain", PROMPT, "--method", "default").out
    assert "Nothing was contrasted: method default is plain decoding." in default
    assert "the contrast window is 0 tokens long" in adacd("explain", PROMPT, "--steps", "0").out
    assert "No token was decoded: max_new_tokens is 0." in adacd("explain", PROMPT, "-n", "0").out
    assert "demo · adacd-gated" in adacd("explain", PROMPT, "--gate", "-n", "2").out
    assert "With λ in (0.5, 1]" not in adacd("explain", PROMPT, "--lambda", "0.5", "-n", "2").out


def test_the_prompt_comes_from_a_pipe_or_a_file(adacd, tmp_path):
    file = tmp_path / "question.txt"
    file.write_text(PROMPT + "\n")
    expected = adacd("explain", PROMPT, "-n", "3", "--json").out
    piped = adacd("explain", "-n", "3", "--json", stdin=PROMPT + "\n").out
    from_file = adacd("explain", "-f", str(file), "-n", "3", "--json").out
    assert read_events(piped) == read_events(from_file) == read_events(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["x", "--format", "cvs"],
            "Error: Unknown format 'cvs'.\nHint: Available: table, json, html.",
        ),
        (["x", "--format", "html", "--json"], "Error: --json and --format html ask for two formats.\n"),
        (["x", "--top", "-1"], "Error: "),
        (["x", "-f", "somewhere"], "Error: There is both a prompt and a --file.\n"),
        ([], "Error: There is no prompt.\n"),
    ],
)
def test_bad_usage(adacd, arguments, message):
    code, out, err = adacd("explain", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(message)


def test_a_file_of_several_prompts_is_not_one_prompt(adacd, tmp_path):
    file = tmp_path / "questions.txt"
    file.write_text("a\nb\n")
    assert adacd("explain", "-f", str(file)) == (
        2,
        "",
        "Error: `adacd explain` takes one prompt; the file has 2.\n"
        "Hint: `adacd generate --file FILE --json` decodes them all.\n",
    )


def test_a_terminal_sees_colours_and_rows_as_they_come():
    reader, writer = pty.openpty()
    terminal = {"TERM": "xterm-256color", "COLUMNS": "80"}
    process = processes.Process("explain", PROMPT, "-n", "14", "-q", stdout=writer, env=terminal)
    os.close(writer)
    pieces = []
    while True:
        try:
            piece = os.read(reader, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        pieces.append(piece)
    assert process.end() == (0, "", "")
    os.close(reader)
    text = b"".join(pieces).decode()
    assert "\x1b[38;5;31m− subtract\x1b[0m" in text
    assert text.count("\r\x1b[2m   …") == 5  # four plain tokens, and the line's last state
    assert "\x1b[1mAnswer\x1b[0m" in text
