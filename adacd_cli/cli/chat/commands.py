"""The slash commands of a chat: a function each, in the order of /help. What a command shows goes to `chat.show`,
what it did to `chat.note`; it raises the errors of `errors.py`."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from adacd_cli.cli.running import for_renderer
from adacd_cli.config import SETTINGS, Settings, change, find_setting
from adacd_cli.config.methods import METHOD_NAMES, METHODS, spoken
from adacd_cli.conversation import Conversation
from adacd_cli.counting import counted
from adacd_cli.errors import ConfigurationError, OutputError, UsageError
from adacd_cli.events import Finished
from adacd_cli.render.comparison import write_comparison
from adacd_cli.render.screen import View
from adacd_cli.render.trace import write_table
from adacd_cli.suggest import nearest

if TYPE_CHECKING:
    from adacd_cli.cli.chat.talk import Chat

# the model is loaded, and the system message belongs to the conversation
CHANGEABLE = tuple(name for name, each in SETTINGS.items() if each.panel != "Model" and name != "system")
"""Settings that /set changes."""

_EMPTY = '""'
_Words = Callable[[Sequence[str]], Iterable[str]]
_Run = Callable[["Chat", str], None]


class SlashCommand(NamedTuple):
    run: _Run
    help: str
    argument: str  # what it takes, as /help shows it
    words: _Words  # complete the ones already there


COMMANDS: dict[str, SlashCommand] = {}
"""Every command by its name, in the order of /help."""


def run_command(chat: Chat, name: str, argument: str) -> None:
    """Runs the command of that name; UsageError where there is none, or it takes no argument and got one."""
    if (found := COMMANDS.get(name)) is None:
        near = nearest(name, COMMANDS)
        advice = f"Did you mean /{near}?" if near else "/help lists the commands."
        raise UsageError(f"There is no command /{name}.", f"{advice} //{name} sends it as a message.")
    if argument and not found.argument:
        raise UsageError(f"/{name} takes nothing after it; got {argument!r}.")
    if found.argument == "FILE" and not argument:
        plain = name.rstrip("!")
        raise UsageError(f"/{plain} takes a file name.", f"Write e.g. /{plain} talk.json.")
    found.run(chat, argument)


def _command(
    name: str, help_line: str, argument: str = "", words: _Words = lambda before: ()
) -> Callable[[_Run], _Run]:
    def add(run: _Run) -> _Run:
        COMMANDS[name] = SlashCommand(run, help_line, argument, words)
        return run

    return add


def _setting_words(before: Sequence[str]) -> Iterable[str]:
    if not before:
        return CHANGEABLE
    if len(before) > 1 or (setting := SETTINGS.get(before[0])) is None:
        return ()
    return ("true", "false") if setting.kind == "switch" else setting.choices


@_command("help", "List the commands.")
def _help(chat: Chat, argument: str) -> None:
    rows = [(f"/{name} {row.argument}".rstrip(), row.help) for name, row in COMMANDS.items()]
    rows += [
        ('"""', 'Begin a message of several lines; """ ends it.'),
        ("//x", "Send /x as a message."),
        ("Alt-Enter", "Begin a new line."),
        ("Ctrl-C", "Stop an answer and keep it so far; at the prompt, clear the line."),
        ("Ctrl-D", "Leave."),
    ]
    chat.show(*_aligned(rows))


def _ending(conversation: Conversation) -> list[str]:
    shown = [("> " if each.role == "user" else "") + each.content for each in conversation.messages[-2:]]
    return shown or ["The conversation is empty now."]


@_command("exit", "Leave.")
def _exit(chat: Chat, argument: str) -> None:
    chat.is_over = True


@_command("reset", "Begin a new conversation with the same system message.")
def _reset(chat: Chat, argument: str) -> None:
    system = chat.talk.conversation.system
    chat.talk.conversation = Conversation(system=system)
    chat.note(f"A new conversation begins{'; the system message stays' if system else ''}.")


@_command("undo", "Take back the last exchange.")
def _undo(chat: Chat, argument: str) -> None:
    before = chat.talk.conversation.without_last_turn()
    if before == chat.talk.conversation:
        raise UsageError("There is nothing to take back.")
    chat.talk.conversation = before
    chat.note("The last exchange is taken back.", *_ending(before))


@_command("retry", "Answer the last question again, with another seed.")
def _retry(chat: Chat, argument: str) -> None:
    talk = chat.talk
    before = talk.conversation
    chat.answer(talk.up_to_last_question(), seed=talk.another_seed())
    if talk.conversation == before and talk.settings.temperature == 0:
        chat.note("The same answer again: temperature is 0. /set temperature 0.8 draws others.")


@_command("system", 'Show or replace the system message; "" or none clears it.', "[TEXT]")
def _system(chat: Chat, argument: str) -> None:
    talk = chat.talk
    if not argument:
        chat.show(talk.conversation.system or "There is no system message.")
        return
    cleared = argument in (_EMPTY, "none")
    talk.conversation = talk.conversation.with_system(None if cleared else argument)
    chat.note(f"The system message is {'gone' if cleared else 'set'}; the conversation is kept.")


@_command("set", "Show or change a setting of the decoding.", "[NAME [VALUE]]", _setting_words)
def _set(chat: Chat, argument: str) -> None:
    settings = chat.talk.applied
    name, text = ([*argument.split(maxsplit=1), "", ""])[:2]
    if not name:
        chat.show(*_values(settings, _in_use(settings)))
        return
    setting = find_setting(name, "/set")
    if not text:
        facts = [setting.sentence, f"It is {setting.range}." if setting.range else ""]
        chat.show(*_values(settings, [name]), " ".join(facts).rstrip())
        return
    if name == "system":
        hint = "/system TEXT replaces it."
        raise ConfigurationError("The system message belongs to the conversation.", hint)
    if name not in CHANGEABLE:
        hint = f"/save FILE, leave, start `adacd chat {setting.flag} …` and /load FILE."
        what = f"`{name}` was used when the model was loaded and cannot change in a chat."
        raise ConfigurationError(what, hint)
    chat.use(change(settings, name, "" if text == _EMPTY else text, "/set"))
    chat.note(*_values(chat.talk.applied, [name]))


@_command("show", "Show the model, the conversation's length and the settings.")
def _show(chat: Chat, argument: str) -> None:
    talk, settings = chat.talk, chat.talk.applied
    profile = talk.session.model.profile
    used = [("profile", profile.name)] if profile and settings.uses_profile else []
    rows = [("model", talk.session.model.name), *used, ("method", settings.method_label), *_extent(chat)]
    chat.show(*_aligned([*rows, ("system", talk.conversation.system or "none")]))
    names = [name for name in _in_use(settings) if name not in ("method", "gate")]
    chat.show("", *_values(settings, names))


def _extent(chat: Chat) -> list[tuple[str, str]]:
    talk = chat.talk
    limit = f"{talk.context_length} tokens" if talk.context_length else "of unknown length"
    if not talk.conversation.messages:
        return [("conversation", "empty"), ("context", limit)]
    count = len(talk.conversation.questions)
    view = talk.view(talk.up_to_last_question())
    seen = f", the model sees the last {count - view.left_out}" if view.left_out else ""
    exchanges, prompts = counted(count, "exchange") + seen, view.prompts
    longer = ", ".join(
        f"{len(prompts.streams[spec.name].ids)} with the {spoken(spec.prompt)}"
        for spec in METHODS[talk.settings.effective_method].streams_for(talk.settings)[1:]
        if spec.prompt
    )
    taken = f"{limit}; last prompt {len(prompts.base.ids)}{f' ({longer})' if longer else ''}"
    answers = [f", its answer {event.tokens}" for event in talk.trace if isinstance(event, Finished)]
    return [("conversation", exchanges), ("context", "".join([taken, *answers]))]


@_command(
    "method", "Show or change the decoding method.", "[NAME]", lambda words: () if words else METHOD_NAMES
)
def _method(chat: Chat, argument: str) -> None:
    if argument:
        # the method that is named is the one that decodes, also where --gate was given
        settings = change(chat.talk.settings, "method", argument, "/method")
        chat.use(settings.model_copy(update={"gate": False}))
        chat.note(f"The method is {chat.talk.settings.method_label}.")
    else:
        chat.show(f"{chat.talk.settings.method_label} (of {', '.join(METHOD_NAMES)})")


@_command("explain", "Show why each token of the last answer was chosen.")
def _explain(chat: Chat, argument: str) -> None:
    talk = chat.talk
    question = talk.up_to_last_question().messages[-1].content
    if not talk.trace:
        hint = "/retry decodes it again."
        raise UsageError("There is no trace of the last answer: it was loaded, or stopped twice.", hint)
    write_table(talk.trace, chat.out, View.of(question, talk.settings, stats=True))


@_command("compare", "Answer the last question with Default too, side by side.")
def _compare(chat: Chat, argument: str) -> None:
    talk, settings = chat.talk, chat.talk.settings
    if settings.method == "default":
        hint = "/method adacd chooses another."
        raise UsageError("There is nothing to compare: the method is default itself.", hint)
    view = chat.view(talk.up_to_last_question())
    # both draw with the seed of the answer that is on the screen
    seed = talk.last_seed()
    if seed is None and settings.temperature and settings.seed is None:
        seed = secrets.randbits(31)
    shown = View.of(view.conversation.messages[-1].content, settings, stats=True)
    with chat.interruptible() as stop:
        runs = [settings.model_copy(update={"method": "default"}), settings]
        coming = [talk.rehearse(view, run, seed=seed, cancelled=lambda: stop.requested) for run in runs]
        default, method = (for_renderer(stop.watch(events), settings) for events in coming)
        write_comparison(default, method, chat.out, chat.err, shown)


@_command("save", "Save the conversation to a new file.", "FILE")
def _save(chat: Chat, argument: str) -> None:
    if os.path.exists(Path(argument).expanduser()):
        raise OutputError(f"{argument} is there already.", f"/save! {argument} replaces it.")
    _save_over(chat, argument)


@_command("save!", "Save it, replacing a file that is there.", "FILE")
def _save_over(chat: Chat, argument: str) -> None:
    chat.talk.conversation.save(Path(argument).expanduser())
    chat.note(f"Saved to {argument}.")


@_command("load", "Go on with a saved conversation.", "FILE")
def _load(chat: Chat, argument: str) -> None:
    loaded = chat.talk.conversation = Conversation.load(Path(argument).expanduser())
    chat.note(f"Loaded from {argument}; it ends:", *_ending(loaded))
    if loaded.messages and loaded.messages[-1].role == "user":
        chat.note("The last question has no answer yet; /retry answers it.")


def _in_use(settings: Settings) -> list[str]:
    """The settings that /set changes, without those of methods that are not decoding."""
    own = {*METHODS["adacd"].settings, *METHODS[settings.effective_method].settings}
    others = {name for method in METHODS.values() for name in method.settings} - own
    return [name for name in CHANGEABLE if name not in others]


def _values(settings: Settings, names: Iterable[str]) -> list[str]:
    values = settings.model_dump(mode="json")
    return _aligned([(name, json.dumps(values[name], ensure_ascii=False)) for name in names])


def _aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {text}" for name, text in rows]
