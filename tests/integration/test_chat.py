"""`adacd chat` from the command line: piped in over a scripted model, and typed at a real terminal."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

from adacd_cli.conversation import Conversation, Message
from tests import processes
from tests.chats import byte_pair
from tests.fakes import saying, scripted
from tests.tiny import save_tiny

ANSWERS = ("hi", "Hello!"), ("why", "Because."), ("tell", "A tale.")


@pytest.fixture
def piped(adacd, monkeypatch):
    """Runs `adacd chat` over the script."""

    def build(tokenizer, conversation, settings):
        return byte_pair(conversation, settings)

    model = scripted(saying(*ANSWERS), context=64)
    monkeypatch.setattr("adacd_cli.loading.load", lambda settings, **_: model)
    monkeypatch.setattr("adacd_cli.prompts.prompts_for", build)

    def run(stdin, *arguments):
        return adacd("chat", "--contrast-prompt", "refuse", "--no-stats", *arguments, stdin=stdin)

    return run


def test_a_script_is_answered_line_by_line(piped, tmp_path):
    file = tmp_path / "talk.json"
    code, out, err = piped(f'hi\n"""\nSay\nwhy\n"""\n/save {file}\n/system\n/exit\nhi\n', "--system", "S")
    assert (code, out, err) == (0, "Hello!\nBecause.\nS\n", f"Saved to {file}.\n")
    turns = [("user", "hi"), ("assistant", "Hello!"), ("user", "Say\nwhy"), ("assistant", "Because.")]
    assert Conversation.load(file) == Conversation(tuple(Message(*turn) for turn in turns), "S")


@pytest.mark.parametrize("stdin", ["", "\n\n", "/exit"])
def test_nothing_to_answer_is_no_error(piped, stdin):
    assert piped(stdin) == (0, "", "")


def test_an_error_does_not_end_a_script(piped):
    assert piped("hi\n/nope\n" + "x" * 70 + "\nwhy") == (
        0,
        "Hello!\nBecause.\n",
        "Error: There is no command /nope.\nHint: /help lists the commands. //nope sends it as a message.\n"
        "Error: The prompt is 78 tokens long with the contrast prompt (71 without), and the model's context "
        "is 64, the answer included.\n"
        "Hint: Shorten the prompt, or use a model with a longer context.\n"
        f"Not answered: {'x' * 70}\n",
    )


@pytest.mark.parametrize(
    ("stdin", "error"),
    [
        (
            b"hi\n\xff\nwhy\n",
            "Error: Standard input is not UTF-8: byte 1 of line 2 is 0xff.\n"
            "Hint: Convert it first, e.g. with `iconv -t utf-8`.\n",
        ),
        (
            b'hi\n"""\nwhy\n',
            'Error: The input ends inside a message that """ began.\nHint: End the message with """.\n',
        ),
    ],
)
def test_input_that_cannot_be_read_ends_the_chat(piped, stdin, error):
    assert piped(stdin) == (2, "Hello!\n", error)


def test_a_prompt_on_the_command_line_is_refused(piped):
    code, out, err = piped("", "hi")
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_tiny("llama", folder)
    return folder


class Terminal:
    """`adacd chat` at a terminal of its own."""

    def __init__(self, *arguments, environment):
        import fcntl
        import pty
        import termios

        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x18\x00\x50\x00\x00\x00\x00\x00")  # 24 lines, 80 columns
        self._process = subprocess.Popen(
            [sys.executable, "-m", "adacd_cli", "chat", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            # a terminal sends Ctrl-C to those whose controlling terminal it is
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env=os.environ | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"} | environment,
        )
        os.close(slave)
        self._seen = b""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def type(self, keys):
        os.write(self._master, keys.encode())

    def wait_for(self, text):
        """What was shown until the text, and the text; without a text, until anything is shown."""
        while text.encode() not in self._seen or not self._seen:
            ready, _, _ = select.select([self._master], [], [], 60)
            try:
                data = os.read(self._master, 65536) if ready else b""
            except OSError:  # the other end is closed
                data = b""
            assert data, f"{text!r} did not come: {self._seen.decode(errors='replace')!r}"
            self._seen += data
        shown, _, self._seen = self._seen.partition(text.encode() or self._seen)
        return shown.decode(errors="replace") + text

    def code(self):
        return self._process.wait(timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")
def test_at_a_terminal(folder, tmp_path):
    environment = {"XDG_STATE_HOME": str(tmp_path), "COLUMNS": "80"}
    with Terminal("-m", str(folder), "--threads", "1", environment=environment) as chat:
        chat.wait_for("tiny · adacd · /help for commands, Ctrl-D to leave")
        chat.wait_for(">")
        chat.type("Tell me\r")
        chat.wait_for("\x1b[?2004l")  # the prompt is done: what comes now is the answer
        chat.wait_for("")
        chat.type("\x03")
        assert "· cancelled" in chat.wait_for("Stopped; the answer so far stays in the conversation.")
        for typed, shown in (
            ("/set max_new_tokens 3\r", "max_new_tokens  3"),
            ("And more?\r", "3 tokens · "),
            ("never mind\x03/show\r", "2 exchanges"),
        ):
            chat.wait_for(">")
            chat.type(typed)
            chat.wait_for(shown)
        chat.wait_for(">")
        chat.type("\x04")
        assert chat.code() == 0
    history = (tmp_path / "adacd" / "chat_history").read_text()
    typed = [line[1:] for line in history.splitlines() if line.startswith("+")]
    assert typed == ["Tell me", "/set max_new_tokens 3", "And more?", "/show"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a fork")
def test_a_closed_stdin_is_said():
    assert processes.run("chat", stdin=None) == (
        2,
        "",
        "Error: There is no standard input to read.\n"
        "Hint: Start the chat at a terminal, or pipe messages in.\n",
    )
