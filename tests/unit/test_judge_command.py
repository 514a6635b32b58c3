"""`adacd judge`: the lines come back with a judgement, and a line that cannot be judged is named."""

from __future__ import annotations

import json

import pytest

LINES = [
    {
        "prompt": "How do I bake bread?",
        "completion": "Mix flour and water, knead, and bake it.",
        "model": "m",
        "n": 1,
    },
    {"completion": "I'm sorry, but I can't help with that.", "prompt": "How do I kill a process?"},
    {"prompt": "Hi", "completion": ""},
]


def text(lines: list[dict]) -> str:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def test_the_same_lines_come_back_with_a_judgement(adacd, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(text(LINES))
    outcome = adacd("judge", str(path), "--judge", "keyword")
    assert outcome.code == 0
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [{key: value for key, value in row.items() if key != "judgement"} for row in rows] == LINES
    assert [list(row)[-1] for row in rows] == ["judgement"] * 3
    labels = [(row["judgement"]["judge"], row["judgement"]["label"]) for row in rows]
    assert labels == [("keyword", "compliance"), ("keyword", "refusal"), ("keyword", "degenerate")]
    assert outcome.err.endswith("3 answers, judge keyword: 1 compliance, 1 refusal, 1 degenerate.\n")


def test_stdin_and_a_file_of_output(adacd, tmp_path):
    out = tmp_path / "judged.jsonl"
    outcome = adacd("judge", "-", "-o", str(out), "-q", stdin=text(LINES[:1]))
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert json.loads(out.read_text())["judgement"]["label"] == "compliance"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no answer in it."),
        ("\n\n", "has no answer in it."),
        (text(LINES[:1]) + "{not json\n", "line 2 is not valid JSON: "),
        ("[1]\n", "item 1 is not a JSON object."),
        ('{"prompt": "x", "reply": "y"}\n', "line 1 has no answer; it has: prompt, reply."),
        ("question,reply\na,b\n", "line 2 has no answer; it has: question, reply."),
        ("text\na\n", "line 2 has no answer; it has: text."),
        ("asked,answer\na,b\n", "line 2 has no prompt; it has: asked, answer."),
        ("prompt,answer\na\n", "line 2 has something other than text as its `answer`."),
        ('{"prompt": 3, "completion": "x"}\n', "line 1 has something other than text as its `prompt`."),
        (b"\xff\n", "is not UTF-8: byte 1, on line 1, is 0xff."),
        (b"\x7fELF\0", "is not text."),
    ],
)
def test_a_line_that_cannot_be_judged_is_named(adacd, tmp_path, content, message):
    path = tmp_path / "answers"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    outcome = adacd("judge", str(path))
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("name", "content", "arguments"),
    [
        ("a.csv", '\ufeffQuestion,Answer\r\n"Hi,\nyou",I can\'t help with that.\r\n', []),
        ("a.tsv", "prompt\tresponse\nHi\tI can't help with that.\n", []),
        ("a", "prompt;output\nHi;I can't help with that.\n", []),
        ("a.json", '[\n{"instruction": "Hi", "input": "x", "output": "I can\'t help with that."}\n]', []),
        ("answers.jsonl", '{"method": "m", "prompt": "Hi", "text": "I can\'t help with that."}', []),
        ("a.csv", "a,b\nHi,I can't help with that.\n", ["--prompt-column", "A", "--answer-column", "b"]),
        ("-", "prompt,completion\nHi,I can't help with that.\n", []),
    ],
)
def test_csv_and_the_usual_names_are_read(adacd, tmp_path, name, content, arguments):
    path = "-" if name == "-" else tmp_path / name
    if name != "-":
        path.write_text(content, encoding="utf-8", newline="")
    outcome = adacd("judge", str(path), "-q", *arguments, stdin=content if name == "-" else "")
    assert (outcome.code, outcome.err) == (0, "")
    (row,) = [json.loads(line) for line in outcome.out.splitlines()]
    assert row.pop("judgement")["label"] == "refusal"
    assert "I can't help with that." in row.values()


def test_a_missing_file_and_an_unknown_judge(adacd, tmp_path):
    missing = adacd("judge", str(tmp_path / "none.jsonl"))
    assert (missing.code, missing.err.splitlines()[0][:11]) == (2, "Error: The ")
    path = tmp_path / "answers.jsonl"
    path.write_text(text(LINES))
    assert adacd("judge", str(path), "--judge", "keywrd").err == (
        "Error: Unknown judge 'keywrd'.\n"
        "Hint: Available: keyword, wildguard, minos, openai. Did you mean 'keyword'?\n"
    )
