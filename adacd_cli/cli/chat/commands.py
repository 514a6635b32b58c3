"""The slash commands of a chat: a row of the table each, with what runs and completes it.

A new one is a function in `actions` and a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adacd_cli.cli.chat import actions
from adacd_cli.config import SETTINGS
from adacd_cli.config.methods import METHOD_NAMES
from adacd_cli.errors import UsageError
from adacd_cli.suggest import nearest

if TYPE_CHECKING:
    from adacd_cli.cli.chat.repl import Chat


@dataclass(frozen=True)
class SlashCommand:
    """A row of the table.

    Attributes:
        argument: what it takes, as /help shows it; "" for nothing.
        help: what it does.
        run: does it.
        words: the words that can follow the ones already there, for completion.
        takes_file: whether its argument is a file name.
    """

    argument: str
    help: str
    run: Callable[[Chat, str], None]
    words: Callable[[Sequence[str]], Iterable[str]] = lambda before: ()
    takes_file: bool = False


def run_command(chat: Chat, name: str, argument: str) -> None:
    """Runs the command of that name.

    Raises:
        UsageError: there is none, or it takes no argument and got one.
    """
    command = COMMANDS.get(name)
    if command is None:
        near = nearest(name, COMMANDS)
        advice = f"Did you mean /{near}?" if near else "/help lists the commands."
        raise UsageError(f"There is no command /{name}.", f"{advice} //{name} sends it as a message.")
    if argument and not command.argument:
        raise UsageError(f"/{name} takes nothing after it; got {argument!r}.")
    command.run(chat, argument)


def _help(chat: Chat, argument: str) -> None:
    rows = [(f"/{name} {row.argument}".rstrip(), row.help) for name, row in COMMANDS.items()]
    rows += [
        ('"""', 'Begin a message of several lines; """ ends it.'),
        ("//x", "Send /x as a message."),
        ("Alt-Enter", "Begin a new line."),
        ("Ctrl-C", "Stop an answer and keep it so far; at the prompt, clear the line."),
        ("Ctrl-D", "Leave."),
    ]
    chat.show(*actions.aligned(rows))


def _setting_words(before: Sequence[str]) -> Iterable[str]:
    if not before:
        return actions.CHANGEABLE
    setting = SETTINGS.get(before[0])
    if setting is None or len(before) > 1:
        return ()
    return ("true", "false") if setting.kind == "switch" else setting.choices


def _method_words(before: Sequence[str]) -> Iterable[str]:
    return () if before else METHOD_NAMES


COMMANDS = {
    "help": SlashCommand("", "List the commands.", _help),
    "exit": SlashCommand("", "Leave.", actions.exit_chat),
    "reset": SlashCommand("", "Begin a new conversation with the same system message.", actions.reset),
    "undo": SlashCommand("", "Take back the last exchange.", actions.undo),
    "retry": SlashCommand("", "Answer the last question again, with another seed.", actions.retry),
    "system": SlashCommand(
        "[TEXT]", 'Show or replace the system message; "" or none clears it.', actions.system
    ),
    "set": SlashCommand(
        "[NAME [VALUE]]", "Show or change a setting of the decoding.", actions.set_value, _setting_words
    ),
    "show": SlashCommand("", "Show the model, the conversation's length and the settings.", actions.show),
    "method": SlashCommand(
        "[NAME]", "Show or change the decoding method.", actions.choose_method, _method_words
    ),
    "explain": SlashCommand("", "Show why each token of the last answer was chosen.", actions.explain),
    "compare": SlashCommand("", "Answer the last question with Default too, side by side.", actions.compare),
    "save": SlashCommand("FILE", "Save the conversation to a new file.", actions.save, takes_file=True),
    "save!": SlashCommand(
        "FILE", "Save it, replacing a file that is there.", actions.save_over, takes_file=True
    ),
    "load": SlashCommand("FILE", "Go on with a saved conversation.", actions.load, takes_file=True),
}
"""Every command by its name, in the order of /help."""
