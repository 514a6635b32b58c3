"""The slash commands: a row each of what is typed, what is shown, and what is said about it."""

from __future__ import annotations

import io
from typing import NamedTuple

import pytest

from adacd_cli.cli.chat.commands import COMMANDS
from adacd_cli.conversation import Conversation, Message
from adacd_cli.render.comparison import write_comparison
from adacd_cli.render.screen import View
from adacd_cli.render.trace import write_table
from tests.chats import chat, hashed
from tests.fakes import saying, scripted

ANSWERS = ("hi", "Hello!"), ("why", "Because.")


def open_chat(**values):
    return chat(scripted(saying(*ANSWERS), context=64), **values)


class Row(NamedTuple):
    """Lines typed one after the other, and the screen they leave: stdout, stderr."""

    typed: tuple[str, ...]
    out: str = ""
    err: str = ""


SETTINGS = """\
contrast_prompt      "refuse"
contrast_placement   "system"
thinking             false
{method}\
switch               "agreement"
alpha                4.5
agreement_threshold  0.9
plausibility         0.01
contrast_steps       10
max_new_tokens       40
temperature          0.0
top_p                1.0
top_k                0
min_p                0.0
repetition_penalty   1.0
presence_penalty     0.0
frequency_penalty    0.0
logit_bias           []
min_tokens           0
stop_token_ids       []
ignore_eos           false
seed                 null
stop                 []
display              "auto"
stats                false
quiet                false
"""

HELP = '''\
/help                List the commands.
/exit                Leave.
/reset               Begin a new conversation with the same system message.
/undo                Take back the last exchange.
/retry               Answer the last question again, with another seed.
/system [TEXT]       Show or replace the system message; "" or none clears it.
/set [NAME [VALUE]]  Show or change a setting of the decoding.
/show                Show the model, the conversation's length and the settings.
/method [NAME]       Show or change the decoding method.
/explain             Show why each token of the last answer was chosen.
/compare             Answer the last question with Default too, side by side.
/save FILE           Save the conversation to a new file.
/save! FILE          Save it, replacing a file that is there.
/load FILE           Go on with a saved conversation.
"""                  Begin a message of several lines; """ ends it.
//x                  Send /x as a message.
Alt-Enter            Begin a new line.
Ctrl-C               Stop an answer and keep it so far; at the prompt, clear the line.
Ctrl-D               Leave.
'''

METHODS = "default, prompt, selfcd, safedecoding, ssd, surgical, adacd, adacd-gated, fitted"
SAME = "The same answer again: temperature is 0. /set temperature 0.8 draws others.\n"
NOT_ASKED = "Error: There is no question yet.\nHint: Type one first.\n"

ROWS = [
    Row(("/help",), HELP),
    Row(("/help me",), err="Error: /help takes nothing after it; got 'me'.\n"),
    Row(("/exit",)),
    Row(("/reset",), err="A new conversation begins.\n"),
    Row(
        ("/system Be kind.", "hi", "/reset", "/undo", "/system"),
        "Hello!\nBe kind.\n",
        "The system message is set; the conversation is kept.\n"
        "A new conversation begins; the system message stays.\n"
        "Error: There is nothing to take back.\n",
    ),
    Row(("/undo",), err="Error: There is nothing to take back.\n"),
    Row(("hi", "/undo"), "Hello!\n", "The last exchange is taken back.\nThe conversation is empty now.\n"),
    Row(("hi", "why", "/undo"), "Hello!\nBecause.\n", "The last exchange is taken back.\n> hi\nHello!\n"),
    Row(("/retry",), err=NOT_ASKED),
    Row(("hi", "why", "/retry"), "Hello!\nBecause.\nBecause.\n", SAME),
    Row(("hi", "/set max_new_tokens 3", "/retry"), "Hello!\nHel\n", "max_new_tokens  3\n"),
    Row(("/system",), "There is no system message.\n"),
    Row(
        ("hi", "/system Be\tkind.", "/system", '/system ""', "/system", "why"),
        "Hello!\nBe\tkind.\nThere is no system message.\nBecause.\n",
        "The system message is set; the conversation is kept.\n"
        "The system message is gone; the conversation is kept.\n",
    ),
    Row(
        ('/system """one\ntwo"""', "/system", "/system none", "/system"),
        "one\ntwo\nThere is no system message.\n",
        "The system message is set; the conversation is kept.\n"
        "The system message is gone; the conversation is kept.\n",
    ),
    Row(("/set",), SETTINGS.format(method='method               "adacd"\ngate                 false\n')),
    Row(
        ("/set agreement_threshold",),
        "agreement_threshold  0.9\nThreshold λ of agreement and confidence; above 0.5 it requires that both "
        "streams have the same top token. It is in [0, 1].\n",
    ),
    Row(
        ("/set threads",),
        "threads  null\nCPU threads to compute with; null is the number of free cores. It is at least 1.\n",
    ),
    Row(("/set alpha 0",), err="alpha  0.0\n"),
    Row(("/set contrast_prompt Do not help.",), err='contrast_prompt  "Do not help."\n'),
    Row(("/set contrast_placement user-end",), err='contrast_placement  "user-end"\n'),
    Row(('/set stop ["a", "b"]', '/set stop ""'), err='stop  ["a", "b"]\nstop  []\n'),
    Row(
        ("/set alpha -1",),
        err="Error: `alpha` is in [0, 1000000]; got -1 (from /set).\nHint: Strength α of the contrast.\n",
    ),
    Row(
        ("/set alhpa 1",),
        err="Error: There is no setting `alhpa` (from /set).\nHint: Did you mean `alpha`?\n",
    ),
    Row(
        ("/set model gpt2",),
        err="Error: `model` was used when the model was loaded and cannot change in a chat.\n"
        "Hint: /save FILE, leave, start `adacd chat --model …` and /load FILE.\n",
    ),
    Row(
        ("/set system x",),
        err="Error: The system message belongs to the conversation.\nHint: /system TEXT replaces it.\n",
    ),
    Row(
        ("/show",),
        "model         scripted\nmethod        adacd\nconversation  empty\ncontext       64 tokens\n"
        "system        none\n\n" + SETTINGS.format(method=""),
    ),
    Row(
        ("/system S", "hi", "/set gate true", "/set quiet true", "/show"),
        "Hello!\nmodel         scripted\nmethod        adacd-gated\nconversation  1 exchange\n"
        "context       64 tokens; last prompt 5 (12 with the contrast prompt), its answer 7\n"
        "system        S\n\n"
        + SETTINGS.format(method="").replace("quiet                false", "quiet                true"),
        "The system message is set; the conversation is kept.\ngate  true\n",
    ),
    Row(
        ("hi", "hi", "hi", "hi", "hi", "/set quiet true", "/show"),
        "Hello!\n" * 5 + "model         scripted\nmethod        adacd\n"
        "conversation  5 exchanges, the model sees the last 4\n"
        "context       64 tokens; last prompt 33 (40 with the contrast prompt), its answer 7\n"
        "system        none\n\n"
        + SETTINGS.format(method="").replace("quiet                false", "quiet                true"),
        "The context is full: the model no longer sees the oldest exchange (/save keeps all).\n",
    ),
    Row(("/method",), f"adacd (of {METHODS})\n"),
    Row(
        ("/method default", "/method"),
        f"default (of {METHODS})\n",
        "The method is default.\n",
    ),
    Row(
        ("/set gate true", "/method", "/method adacd", "/method"),
        f"adacd-gated (of {METHODS})\nadacd (of {METHODS})\n",
        "gate  true\nThe method is adacd.\n",
    ),
    Row(
        ("/method adacs",),
        err="Error: Unknown method 'adacs' (from /method).\n"
        f"Hint: Available: {METHODS}. Did you mean 'adacd'?\n",
    ),
    Row(("/explain",), err=NOT_ASKED),
    Row(("/compare",), err=NOT_ASKED),
    Row(
        ("/method default", "hi", "/compare"),
        "Hello!\n",
        "The method is default.\nError: There is nothing to compare: the method is default itself.\n"
        "Hint: /method adacd chooses another.\n",
    ),
    Row(("/save",), err="Error: /save takes a file name.\nHint: Write e.g. /save talk.json.\n"),
    Row(
        ("hi", "/save a talk.json", "/reset", "/load a talk.json", "why"),
        "Hello!\nBecause.\n",
        "Saved to a talk.json.\nA new conversation begins.\n"
        "Loaded from a talk.json; it ends:\n> hi\nHello!\n",
    ),
    Row(
        ("/save talk.json", "hi", "/save talk.json", "/save! talk.json", "/load talk.json"),
        "Hello!\n",
        "Saved to talk.json.\nError: talk.json is there already.\nHint: /save! talk.json replaces it.\n"
        "Saved to talk.json.\nLoaded from talk.json; it ends:\n> hi\nHello!\n",
    ),
    Row(
        ("hi", "/save no/talk.json", "/retry"),
        "Hello!\nHello!\n",
        "Error: The conversation could not be saved to no/talk.json: No such file or directory.\n"
        "Hint: Name a file in a folder that exists and that you may write to.\n" + SAME,
    ),
    Row(
        ("hi", f"/save {'x' * 300}"),
        "Hello!\n",
        f"Error: The conversation could not be saved to {'x' * 300}: File name too long.\n"
        "Hint: Name a file in a folder that exists and that you may write to.\n",
    ),
    Row(
        ("hi", "/load talk.json", "/load", "why"),
        "Hello!\nBecause.\n",
        "Error: The conversation talk.json could not be read: No such file or directory.\n"
        "Hint: Name a file that /save wrote.\n"
        "Error: /load takes a file name.\nHint: Write e.g. /load talk.json.\n",
    ),
    Row(
        ("/load question.json", "hi", "/retry", "why"),
        "Hello!\nBecause.\n",
        "Loaded from question.json; it ends:\n> hi\nThe last question has no answer yet; /retry answers it.\n"
        "Error: The last question has no answer yet.\nHint: /retry answers it, /undo drops it.\n"
        "Not answered: hi\n",
    ),
    Row(
        ("/load picture.png", "/load notes.txt", "/load list.json"),
        err="Error: picture.png is not a saved conversation: it is not UTF-8.\n"
        "Hint: Name a file that /save wrote.\n"
        "Error: notes.txt is not a saved conversation: it is not JSON (line 2, column 1).\n"
        "Hint: Name a file that /save wrote.\n"
        "Error: list.json is not a saved conversation: message 0 has no text.\n"
        "Hint: Name a file that /save wrote.\n",
    ),
    Row(
        ("/exot",),
        err="Error: There is no command /exot.\nHint: Did you mean /exit? //exot sends it as a message.\n",
    ),
    Row(
        ("/zzz",),
        err="Error: There is no command /zzz.\n"
        "Hint: /help lists the commands. //zzz sends it as a message.\n",
    ),
    Row(("//why",), "Because.\n"),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " | ".join(row.typed)[:40])
def test_a_command_shows_and_says(row, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Conversation.ask("hi").save(tmp_path / "question.json")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "notes.txt").write_text("[\n")
    (tmp_path / "list.json").write_text("[1]")
    it = open_chat()
    for line in row.typed:
        it.take(line)
    assert capsys.readouterr() == (row.out, row.err)


def test_every_command_has_a_row():
    typed = {line[1:].split(maxsplit=1)[0] for row in ROWS for line in row.typed if line.startswith("/")}
    assert set(COMMANDS) <= typed


def test_exit_ends_the_chat():
    it = open_chat()
    it.take("/exit")
    assert it.is_over


def test_explain_shows_the_trace_of_the_last_answer_also_after_undo(capsys):
    it = open_chat()
    for line in ("hi", "why", "/undo"):
        it.take(line)
    expected = io.StringIO()
    write_table(it.talk.trace, expected, View("hi"))
    capsys.readouterr()
    it.take("/explain")
    assert capsys.readouterr().out == expected.getvalue()
    assert "Hello!" in expected.getvalue()


def test_explain_of_a_loaded_answer_names_the_way_out(capsys):
    it = open_chat(conversation=Conversation((Message("user", "hi"), Message("assistant", "Hello!"))))
    it.take("/explain")
    assert capsys.readouterr().err == (
        "Error: There is no trace of the last answer: it was loaded, or stopped twice.\n"
        "Hint: /retry decodes it again.\n"
    )


def test_compare_draws_both_with_one_seed_and_changes_nothing(capsys):
    # without a contrast window the two methods differ only in what they draw
    it = chat(scripted(hashed), temperature=1.0, contrast_steps=0)
    it.take("hi")
    before, trace = it.talk.conversation, it.talk.trace
    capsys.readouterr()
    it.take("/compare")
    assert "Both answers are the same, token for token." in capsys.readouterr().out
    assert (it.talk.conversation, it.talk.trace) == (before, trace)


def test_compare_writes_what_the_command_compare_writes(capsys):
    it = open_chat(display="plain")
    it.take("hi")
    capsys.readouterr()
    it.take("/compare")
    talk, settings = it.talk, it.talk.settings
    view = talk.view(talk.up_to_last_question())
    plain = settings.model_copy(update={"method": "default"})
    runs = [talk.rehearse(view, run, cancelled=lambda: False) for run in (plain, settings)]
    expected = io.StringIO()
    write_comparison(*runs, expected, io.StringIO(), View("hi", display="plain"))
    assert _timeless(capsys.readouterr().out) == _timeless(expected.getvalue())


def _timeless(text):
    return [word for word in text.split() if not word.replace(".", "").isdecimal()]


def test_quiet_says_nothing_but_errors(capsys):
    it = open_chat(quiet=True)
    for line in ("hi", "/set alpha 1", "/undo", "/undo"):
        it.take(line)
    assert capsys.readouterr() == ("Hello!\n", "Error: There is nothing to take back.\n")
