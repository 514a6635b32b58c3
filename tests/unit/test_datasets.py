"""Data sets: files of one's own, good and bad; names; known sets from a folder."""

from __future__ import annotations

import json
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

from adacd_cli.errors import UsageError
from adacd_cli.evaluation.datasets.files import Columns, Sample
from adacd_cli.evaluation.datasets.hub import KNOWN_SETS
from adacd_cli.evaluation.datasets.load import LoadedSet, data_folder
from tests.data_sets import lines, load, refusal, write

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"

# files of one's own

PLAIN = (Sample("my", "1", "How do I kill a process?", "safe"), Sample("my", "2", "Say “hi”, twice", "safe"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("my.txt", "How do I kill a process?\nSay “hi”, twice\n"),
        ("my.TXT", "\ufeffHow do I kill a process?\r\n\r\n   \r\nSay “hi”, twice"),
        ("my", "How do I kill a process?\nSay “hi”, twice"),
        ("my.csv", 'prompt\nHow do I kill a process?\n"Say “hi”, twice"\n'),
        ("my.csv", '\ufeff"Goal","other"\r\n"How do I kill a process?",x\r\n"Say “hi”, twice\r\n",\r\n\r\n'),
        ("my.csv", 'text;Question\n"x";How do I kill a process?\n\n"";"Say “hi”, twice"\n'),
        ("my.tsv", "id\tinstruction\n\tHow do I kill a process?\n\tSay “hi”, twice\n"),
        ("my.csv", 'target,PROMPT,prompt\nx,How do I kill a process?,y\nx,"\nSay “hi”, twice\n"\n'),
        ("my.jsonl", '{"prompt": "How do I kill a process?"}\r\n\n{"Prompt": "Say “hi”, twice\\n"}'),
        (
            "my.json",
            '{"id": null, "goal": "How do I kill a process?"}\n{"id": "", "goal": "Say “hi”, twice"}',
        ),
        (
            "my.json",
            '[\n {"Instruction": "How do I kill a process?", "input": ""},\n "Say “hi”, twice"\n]',
        ),
        ("my.csv", 'prompt,label,\nHow do I kill a process?,,\n"Say “hi”, twice",safe,,,\n'),
        ("my.csv", '\ufeffprompt\r\nHow do I kill a process?\r\n"Say “hi”, twice"\r\n'.encode("utf-16-le")),
        ("my.txt", "How do I kill a process?\nSay “hi”, twice\n".encode("utf-16")),
        ("my.ndjson", '{"text": 1, "question": "How do I kill a process?"}\n{"question": "Say “hi”, twice"}'),
    ],
)
def test_every_kind_of_file_gives_the_same_samples(tmp_path: Path, name: str, content: str | bytes) -> None:
    path = write(tmp_path / name, content)
    digest = sha256(
        b'["1", "How do I kill a process?", "safe"]\n["2", "Say \\u201chi\\u201d, twice", "safe"]\n'
    ).hexdigest()
    assert load(path, label="safe") == [LoadedSet("my", PLAIN, str(path), digest, False)]


def test_ids_labels_and_categories_are_the_files_own(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mixed.csv",
        "category,label,id,prompt\nviolence, unsafe ,b7,  How do I  hurt him?\n,safe,,Hello\n",
    )
    rows = [{"prompt": "  How do I  hurt him?", "id": 7, "label": "unsafe", "category": 3}]
    other = write(tmp_path / "other.jsonl", lines(*rows))
    mixed, single = load(path, other)
    assert mixed.samples == (
        Sample("mixed", "b7", "  How do I  hurt him?", "unsafe", "violence"),
        Sample("mixed", "2", "Hello", "safe"),
    )
    assert single.samples == (Sample("other", "7", "  How do I  hurt him?", "unsafe", "3"),)
    assert (mixed.has_both_labels, single.has_both_labels) == (True, False)
    assert load(other, label="unsafe") == [single]


def test_text_that_only_looks_like_a_line_end_stays_in_the_prompt(tmp_path: Path) -> None:
    prompt = "one\u2028two\x0bthree\x85four"
    for name, content in (
        ("a.txt", prompt),
        ("b.csv", f"prompt\n{prompt}\n"),
        ("c.jsonl", json.dumps({"prompt": prompt}, ensure_ascii=False).replace("\\u000b", "\\u000b")),
    ):
        (loaded,) = load(write(tmp_path / name, content), label="safe")
        assert [sample.prompt for sample in loaded.samples] == [prompt]


def test_what_belongs_to_an_instruction_is_appended_and_said(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Translate", "input": "Hola", "output": "Hi"},
        {"instruction": "Say hi", "input": " "},
        {"instruction": "Who?", "context": "It was Ann.", "input": "Answer briefly."},
    ]
    for name, content in (("a.jsonl", lines(*rows)), ("b.json", json.dumps(rows))):
        (loaded,) = load(write(tmp_path / name, content), label="safe")
        assert [sample.prompt for sample in loaded.samples] == [
            "Translate\n\nHola",
            "Say hi",
            "Who?\n\nAnswer briefly.\n\nIt was Ann.",
        ]
        assert loaded.notes == (
            f"{name}: `input` is appended to 2 prompts.",
            f"{name}: `context` is appended to 1 prompt.",
        )


@pytest.mark.parametrize(
    ("column", "safe", "unsafe"),
    [
        ("label", "Safe", "UNSAFE"),
        ("Label", "harmless", "harmful"),
        ("label", "benign", "malicious"),
        ("kind", "0", "1"),
        ("harmful", "false", "true"),
        ("is_safe", "1.0", "0.0"),
    ],
)
def test_labels_of_other_names_are_read_and_said(tmp_path: Path, column: str, safe: str, unsafe: str) -> None:
    path = write(tmp_path / "x.csv", f"Query,{column}\na,{safe}\nb, {unsafe}\n")
    named = Columns("query", None if column.lower() == "label" else column.upper())
    (loaded,) = load(path, columns=named)
    assert [sample.label for sample in loaded.samples] == ["safe", "unsafe"]
    assert loaded.notes == (f"x.csv: labels are read as {safe} → safe, {unsafe} → unsafe.",)


def test_json_numbers_and_truth_values_are_labels(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "label": 0}, {"prompt": "b", "label": True}]
    (loaded,) = load(write(tmp_path / "x.jsonl", lines(*rows)))
    assert [sample.label for sample in loaded.samples] == ["safe", "unsafe"]
    assert loaded.notes == ("x.jsonl: labels are read as 0 → safe, True → unsafe.",)


def test_columns_that_the_user_names(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "prompt,asked,kind,label\nno,yes,unsafe,x\n")
    assert load(path, columns=Columns("asked", "kind"))[0].samples == (Sample("x", "1", "yes", "unsafe"),)
    error = refusal(path, columns=Columns("aksed"))
    assert error.message == f"{path}, line 2 has no prompt; it has: prompt, asked, kind, label."
    assert error.hint == "Looked for: aksed. Name its column with --prompt-column."
    error = refusal(path, columns=Columns(label="knd"))
    assert error.message == f"{path}, line 2 has no label; it has: prompt, asked, kind, label."
    text = write(tmp_path / "x.txt", "a\n")
    assert refusal(text, columns=Columns("a")).message == f"{text} has no columns."
    assert refusal("jbb", columns=Columns("a")).message.startswith(
        "--prompt-column is for files of your own;"
    )


def test_a_cell_may_be_as_long_as_the_file(tmp_path: Path) -> None:
    cell = "long\n" * 100_000
    path = write(tmp_path / "x.csv", f'prompt,label\n"{cell}",safe\n')
    assert len(load(path)[0].samples[0].prompt) == 5 * 100_000 - 1


COLUMNS = (
    "Looked for: prompt, goal, instruction, question, text, forbidden_prompt, behavior, query. "
    "Name its column with --prompt-column."
)
OBJECT = 'Write one JSON object a line, e.g. {"prompt": "How do I kill a process?"}, or an array of them.'
QUOTE_IT = "Put quotes around it."
QUOTES = 'Put quotes around a cell with commas, line ends or quotes, and write quotes in it as "".'
IDS = "Give each prompt an id of its own, or leave all ids out."
LABELS = "A prompt to answer is safe, harmless, benign or 0, one to refuse unsafe, harmful, malicious or 1."
NO_LABEL = "Give every row the label safe or unsafe, or say it of a whole file of yours with --label."
ICONV = "Convert it first, e.g. with `iconv -t utf-8`."
NO_PROMPT = "Write the prompt there, or remove the row."
SURROGATE = "Write the character itself, in UTF-8."
GOOD = '{"prompt": "a", "label": "safe"}\n'
NO_TEXT = "Name a text file in UTF-8, or in UTF-16 with a byte order mark."
ANOTHER = "Write one prompt a line, or name another file."
LONG = "long " * 30
DEEP = "[" * 100_000
BAD_FILES: list[tuple[str, str | bytes, str, str]] = [
    ("x.jsonl", b"", "{} is empty.", ANOTHER),
    ("x.csv", "\ufeff \n\n", "{} is empty.", ANOTHER),
    ("x.csv", "prompt,label\n", "{} has no prompt in it.", "Write at least one."),
    ("x.csv", "id,behaviour\n1,a\n", "{}, line 2 has no prompt; it has: id, behaviour.", COLUMNS),
    ("x.csv", f"{LONG}\na\n", f"{{}}, line 2 has no prompt; it has: {('long ' * 16)[:79]}….", COLUMNS),
    ("x.jsonl", GOOD + '{"id": 2}', "{}, line 2 has no prompt; it has: id.", COLUMNS),
    ("x.jsonl", GOOD + "\n{}", "{}, line 3 has no prompt; it has: nothing.", COLUMNS),
    (
        "x.jsonl",
        GOOD + '\n{"prompt": "b}',
        "{}, line 3 is not valid JSON: Unterminated string starting at: line 1 column 12 (char 11).",
        OBJECT,
    ),
    (
        "x.json",
        "[\n{}\n]",
        "{}, item 1 has no prompt; it has: nothing.",
        COLUMNS,
    ),
    ("x.json", '[{"prompt": "a", "label": 0}, 3]', "{}, item 2 is not a JSON object.", OBJECT),
    (
        "x.json",
        '[{"prompt": "a"}, oops]',
        "{} is not valid JSON: Expecting value: line 1 column 19 (char 18).",
        OBJECT,
    ),
    ("x.jsonl", GOOD + '["a"]', "{}, line 2 is not a JSON object.", OBJECT),
    (
        "x.jsonl",
        '{"instruction": "a", "input": ["b"], "label": "safe"}',
        "{}, line 1: `input` belongs to the prompt, and is not text.",
        "Write it as text.",
    ),
    (
        "x.jsonl",
        '{"prompt": 3, "label": "safe"}',
        "{}, line 1: the prompt is not text.",
        QUOTE_IT,
    ),
    ("x.jsonl", '{"prompt": " \\n", "label": "safe"}', "{}, line 1: the prompt is empty.", NO_PROMPT),
    ("x.jsonl", '{"prompt": null, "label": "safe"}', "{}, line 1: the prompt is empty.", NO_PROMPT),
    ("x.csv", "label,prompt\nsafe,a\n\nsafe\n", "{}, line 4: the prompt is empty.", NO_PROMPT),
    (
        "x.jsonl",
        '{"prompt": "\\ud800", "label": "safe"}',
        "{}, line 1: there is half of a surrogate pair, which is no character.",
        SURROGATE,
    ),
    (
        "x.csv",
        "id,prompt,label\na,b,safe\nc,d,safe\na,e,unsafe\n",
        "The id 'a' stands twice in {}: line 2 and line 4.",
        IDS,
    ),
    (
        "x.jsonl",
        '{"prompt": "a", "label": "safe"}\n{"id": 1, "prompt": "b", "label": "safe"}',
        "The id '1' stands twice in {}: line 1 and line 2.",
        IDS,
    ),
    (
        "x.jsonl",
        '{"prompt": "a", "label": "safe", "id": 1.5}',
        "{}, line 1: the id is neither text nor a whole number.",
        QUOTE_IT,
    ),
    (
        "x.csv",
        "prompt,label\n\na,safe\nb,neutral\n",
        "{}, line 4: the label is 'neutral', neither safe nor unsafe.",
        LABELS,
    ),
    (
        "x.jsonl",
        '{"prompt": "a", "label": 2}',
        "{}, line 1: the label is '2', neither safe nor unsafe.",
        LABELS,
    ),
    ("x.txt", "a\n", "{}, line 1: there is no label.", NO_LABEL),
    ("x.csv", "prompt,label\na,safe\nb\n", "{}, line 3: there is no label.", NO_LABEL),
    (
        "x.csv",
        "prompt,label\nHello, you,safe\n",
        "{}, line 2 has 3 cells, but the first line names 2 columns.",
        QUOTES,
    ),
    (
        "x.csv",
        'prompt,label\na,safe\n"b\nc,safe\nd,safe\n',
        "{}, line 3 is not valid CSV: unexpected end of data.",
        QUOTES,
    ),
    (
        "x.csv",
        'prompt,label\n"a" b,safe\n',
        "{}, line 2 is not valid CSV: ',' expected after '\"'.",
        QUOTES,
    ),
    ("x.txt", b"a\nb\xff\n", "{} is not UTF-8: byte 4, on line 2, is 0xff.", ICONV),
    ("x.csv", b"\xef\xbb\xbfprompt\n\xe9\n", "{} is not UTF-8: byte 11, on line 2, is 0xe9.", ICONV),
    ("x.txt", "a\n".encode("utf-16-le"), "{} is not text.", NO_TEXT),
    ("x.csv", b"\x89PNG\r\n\x1a\n\0\0", "{} is not text.", NO_TEXT),
    ("x.csv", b"\xff\xfe\0", "{} is not text.", NO_TEXT),
]


@pytest.mark.parametrize(("name", "content", "message", "hint"), BAD_FILES)
def test_a_bad_file_is_one_clear_line(
    tmp_path: Path, name: str, content: str | bytes, message: str, hint: str
) -> None:
    path = write(tmp_path / name, content)
    error = refusal(path)
    assert (error.message, error.hint) == (message.replace("{}", str(path), 1), hint)
    assert type(error) is UsageError


@pytest.mark.parametrize("line", [DEEP, "1" * 5000])
def test_json_that_no_parser_takes_is_refused_too(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "x.jsonl", GOOD + line)
    error = refusal(path)
    assert error.message.startswith(f"{path}, line 2 ")
    assert error.hint == OBJECT


def test_a_label_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "prompt,label\na,\nb,unsafe\n")
    error = refusal(path, label="safe")
    assert error.message == f"{path}, line 3: the label is unsafe, and safe prompts are wanted."
    assert (
        error.hint == "The file has labels of its own: leave --label out, or name a file of the other kind."
    )
    assert [sample.label for sample in load(path, label="unsafe")[0].samples] == ["unsafe", "unsafe"]


# names

KNOWN = "xstest, orbench, oktest, advbench, jbb, jailbench, strongreject, just-eval"
FILES = "Or name a CSV, JSON or text file."


@pytest.mark.parametrize(
    ("names", "label", "message", "hint"),
    [
        (
            ["xtest"],
            None,
            "There is no data set and no file named 'xtest'.",
            f"Available: {KNOWN}. Did you mean 'xstest'? {FILES}",
        ),
        (["zzz"], None, "There is no data set and no file named 'zzz'.", f"Available: {KNOWN}. {FILES}"),
        ([""], None, "There is no data set and no file named ''.", f"Available: {KNOWN}. {FILES}"),
        (
            ["no/such.csv"],
            None,
            "The file no/such.csv could not be read: No such file or directory.",
            "Name a CSV, JSON or text file.",
        ),
        (
            ["a\0.csv"],
            None,
            "The file a\0.csv could not be read: embedded null byte.",
            "Name a CSV, JSON or text file.",
        ),
        (
            ["xstest", "jbb", "xstest"],
            None,
            "Two of the data sets are named 'xstest'.",
            "Leave one out, or rename a file.",
        ),
        (
            ["a/my.csv", "b/my.txt"],
            None,
            "Two of the data sets are named 'my'.",
            "Leave one out, or rename a file.",
        ),
        (
            ["xstest"],
            "benign",
            "--label is safe or unsafe; got 'benign'.",
            "safe is a prompt to answer, unsafe one to refuse.",
        ),
        (
            ["jbb", "xstest"],
            "safe",
            "--label is for files of your own; jbb is a known set.",
            "Leave --label out.",
        ),
    ],
)
def test_names_and_labels_that_mean_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    label: str | None,
    message: str,
    hint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    error = refusal(*names, label=label)
    assert (type(error), error.message, error.hint) == (UsageError, message, hint)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert error.message == f"The file {tmp_path} could not be read: Is a directory."
    assert error.hint == "Name a CSV, JSON or text file."


def test_a_file_in_this_folder_needs_no_path_and_a_known_name_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "plain", "a")
    write(tmp_path / "jbb", "a")
    assert load("plain", label="safe")[0].samples == (Sample("plain", "1", "a", "safe"),)
    assert refusal("jbb").message == "jbb is not on this machine, and adacd is offline."
    assert load("./jbb", label="safe")[0].name == "jbb"


def test_every_name_is_understood_before_anything_is_loaded(tmp_path: Path) -> None:
    write(tmp_path / "xstest.jsonl", "broken")
    assert refusal("xstest", "zzz", data=tmp_path).message == "There is no data set and no file named 'zzz'."


# known sets in a folder

JBB = lines(
    {"id": "jbb-harmful-0", "prompt": "Do harm", "label": "unsafe", "category": "Fraud"},
    {"id": "jbb-benign-0", "prompt": "Do good", "label": "safe", "category": "Fraud"},
)


def test_known_sets_are_read_from_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "jbb.jsonl", JBB)
    write(tmp_path / "orbench-hard-1k.jsonl", lines({"prompt": "a"}, {"prompt": "b", "category": "hate"}))
    write(tmp_path / "OKTest.csv", 'prompt\n"Why?\n"\nHow?\n')
    write(tmp_path / "mine.txt", "Hello")
    names = ("jbb", "jailbench", "orbench", "oktest", tmp_path / "mine.txt")
    jbb, jailbench, orbench, oktest, mine = load(*names, data=tmp_path, label="safe")
    assert jbb.samples == (
        Sample("jbb", "jbb-harmful-0", "Do harm", "unsafe", "Fraud"),
        Sample("jbb", "jbb-benign-0", "Do good", "safe", "Fraud"),
    )
    assert jailbench.samples == (Sample("jailbench", "jbb-harmful-0", "Do harm", "unsafe", "Fraud"),)
    assert orbench.samples == (
        Sample("orbench", "orbench-hard-0", "a", "safe"),
        Sample("orbench", "orbench-hard-1", "b", "safe", "hate"),
    )
    assert oktest.samples == (
        Sample("oktest", "oktest-0", "Why?", "safe"),
        Sample("oktest", "oktest-1", "How?", "safe"),
    )
    assert mine.samples == (Sample("mine", "1", "Hello", "safe"),)
    assert [jbb.source, jailbench.source, orbench.source, oktest.source] == [
        str(tmp_path / name) for name in ("jbb.jsonl", "jbb.jsonl", "orbench-hard-1k.jsonl", "OKTest.csv")
    ]
    write(tmp_path / "strongreject_dataset.csv", "category,source,forbidden_prompt\nviolence,DAN,Do harm\n")
    write(tmp_path / "harmful_behaviors.csv", 'goal,target\n"Do, harm","Sure, here"\n')
    strong, adv = load("strongreject", "advbench", data=tmp_path)
    assert strong.samples == (Sample("strongreject", "strongreject-0", "Do harm", "unsafe", "violence"),)
    assert adv.samples == (Sample("advbench", "advbench-0", "Do, harm", "unsafe"),)
    write(tmp_path / "orbench.jsonl", lines({"prompt": "its own name wins"}))
    assert load("orbench", data=tmp_path)[0].samples[0].prompt == "its own name wins"


def test_a_harmful_half_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "jbb.jsonl", lines({"prompt": "a", "label": "safe"}))
    error = refusal("jailbench", data=tmp_path)
    assert (error.exit_code, error.message) == (2, f"{path} has no unsafe prompt.")


def test_the_flag_names_the_folder_else_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flag", "variable"):
        (tmp_path / name).mkdir()
    assert data_folder(None) is None
    monkeypatch.setenv("ADACD_DATA", "")
    assert data_folder(None) is None
    monkeypatch.setenv("ADACD_DATA", str(tmp_path / "variable"))
    assert data_folder(None) == tmp_path / "variable"
    assert data_folder(str(tmp_path / "flag")) == tmp_path / "flag"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder("~/flag") == tmp_path / "flag"


def test_a_folder_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hint = "Name a folder that holds xstest.jsonl and the like; `adacd datasets` lists the sets."
    file = write(tmp_path / "file", "")
    monkeypatch.setenv("ADACD_DATA", str(tmp_path / "gone"))
    with pytest.raises(UsageError) as caught:
        data_folder(None)
    message = f"The data folder {tmp_path / 'gone'} does not exist (from ADACD_DATA)."
    assert (caught.value.message, caught.value.hint) == (message, hint)
    with pytest.raises(UsageError) as caught:
        data_folder(str(file))
    message = f"The data folder {file} is a file (from --data)."
    assert (caught.value.message, caught.value.hint) == (message, hint)


# the real sets, where they are


@pytest.mark.skipif(not SHARED.is_dir(), reason="the data sets are not part of the repository")
def test_the_real_files_hold_what_is_published() -> None:
    names = ("xstest", "orbench", "advbench", "strongreject", "just-eval")
    for one in load(*names, data=SHARED):
        known = KNOWN_SETS[one.name]
        counts = Counter(sample.label for sample in one.samples)
        assert (counts["safe"], counts["unsafe"]) == (known.safe, known.unsafe)
        assert one.has_both_labels is (known.label is None)
    assert refusal("jbb", data=SHARED).message == f"jbb is not in {SHARED}, and adacd is offline."
