"""`adacd chat`: a conversation at the terminal, or from a script of messages and commands on stdin."""

from __future__ import annotations

import sys
from functools import partial

from adacd_cli.cli.options import with_settings
from adacd_cli.cli.running import load_model, suggest_fit
from adacd_cli.cli.streams import check_stdout
from adacd_cli.config import Resolved
from adacd_cli.conversation import Conversation
from adacd_cli.errors import UsageError


@with_settings()
def chat(resolved: Resolved) -> None:
    """Talk with the model; /help lists what can be typed. A pipe is read a message or a command a line."""
    # prompt_toolkit comes with these, and `adacd chat --help` does not need it
    from adacd_cli.cli.chat.input import PipeReader, TerminalReader, open_history
    from adacd_cli.cli.chat.talk import Chat, Talk
    from adacd_cli.prompts import prompts_for

    if sys.stdin is None:
        hint = "Start the chat at a terminal, or pipe messages in."
        raise UsageError("There is no standard input to read.", hint)
    check_stdout()
    settings = resolved.settings
    model = load_model(settings)
    suggest_fit(model, settings)

    interactive = sys.stdin.isatty()
    reader = TerminalReader(open_history()) if interactive else PipeReader(sys.stdin.buffer)
    talk = Talk(model, settings, partial(prompts_for, model.tokenizer), Conversation(system=settings.system))
    Chat(talk, out=sys.stdout, err=sys.stderr, interactive=interactive).run(reader)
