"""What the slash commands of a chat do: a function (Chat, argument) -> None each; `commands` holds the table.

What a command shows goes to `chat.show`, what it did to `chat.note`; it raises the errors of `errors.py`.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adacd_cli.cli.running import for_renderer
from adacd_cli.config import SETTINGS, Settings, change, find_setting
from adacd_cli.config.methods import METHOD_NAMES, METHODS, spoken
from adacd_cli.conversation import Conversation
from adacd_cli.errors import ConfigurationError, OutputError, UsageError
from adacd_cli.events import Finished
from adacd_cli.render.comparison import write_comparison
from adacd_cli.render.trace import write_table
from adacd_cli.render.view import View

if TYPE_CHECKING:
    from adacd_cli.cli.chat.repl import Chat

CHANGEABLE = tuple(
    name for name, setting in SETTINGS.items() if setting.option.panel != "Model" and name != "system"
)
"""Settings that /set changes: the model is loaded, and the system message belongs to the conversation."""

_EMPTY = '""'


def exit_chat(chat: Chat, argument: str) -> None:
    chat.is_over = True


def reset(chat: Chat, argument: str) -> None:
    system = chat.talk.conversation.system
    chat.talk.conversation = Conversation(system=system)
    chat.note(f"A new conversation begins{'; the system message stays' if system else ''}.")


def undo(chat: Chat, argument: str) -> None:
    talk = chat.talk
    before = talk.conversation.without_last_turn()
    if before == talk.conversation:
        raise UsageError("There is nothing to take back.")
    talk.conversation = before
    chat.note("The last exchange is taken back.", *_ending(before))


def retry(chat: Chat, argument: str) -> None:
    talk = chat.talk
    before = talk.conversation
    chat.answer(talk.up_to_last_question(), seed=talk.another_seed())
    if talk.conversation == before and talk.settings.temperature == 0:
        chat.note("The same answer again: temperature is 0. /set temperature 0.8 draws others.")


def system(chat: Chat, argument: str) -> None:
    talk = chat.talk
    if not argument:
        chat.show(talk.conversation.system or "There is no system message.")
        return
    cleared = argument in (_EMPTY, "none")
    talk.conversation = talk.conversation.with_system(None if cleared else argument)
    what = "The system message is gone" if cleared else "The system message is set"
    chat.note(f"{what}; the conversation is kept.")


def set_value(chat: Chat, argument: str) -> None:
    name, text = ([*argument.split(maxsplit=1), "", ""])[:2]
    if not name:
        chat.show(*_values(chat.talk.settings, _in_use(chat.talk.settings)))
        return
    setting = find_setting(name, "/set")
    if text and name not in CHANGEABLE:
        raise _fixed(name)
    if not text:
        facts = [setting.sentence, f"It is {setting.range}." if setting.range else ""]
        chat.show(*_values(chat.talk.settings, [name]), " ".join(facts).rstrip())
        return
    chat.use(change(chat.talk.settings, name, "" if text == _EMPTY else text, "/set"))
    chat.note(*_values(chat.talk.settings, [name]))


def _fixed(name: str) -> ConfigurationError:
    if name == "system":
        return ConfigurationError(
            "The system message belongs to the conversation.", "/system TEXT replaces it."
        )
    return ConfigurationError(
        f"`{name}` was used when the model was loaded and cannot change in a chat.",
        f"/save FILE, leave, start `adacd chat {SETTINGS[name].flag} …` and /load FILE.",
    )


def show(chat: Chat, argument: str) -> None:
    talk = chat.talk
    rows = [("model", talk.model_name), ("method", talk.settings.method_label), *_extent(chat)]
    chat.show(*aligned([*rows, ("system", talk.conversation.system or "none")]))
    chat.show(
        "",
        *_values(talk.settings, [name for name in _in_use(talk.settings) if name not in ("method", "gate")]),
    )


def _in_use(settings: Settings) -> list[str]:
    """The settings that /set changes, without those of methods that are not decoding."""
    own = {*METHODS["adacd"].settings, *METHODS[settings.effective_method].settings}
    others = {name for method in METHODS.values() for name in method.settings} - own
    return [name for name in CHANGEABLE if name not in others]


def _extent(chat: Chat) -> list[tuple[str, str]]:
    """How long the conversation is, and what of the context its last prompt and answer took."""
    talk = chat.talk
    limit = f"{talk.context_length} tokens" if talk.context_length else "of unknown length"
    if not talk.conversation.messages:
        return [("conversation", "empty"), ("context", limit)]
    count = sum(message.role == "user" for message in talk.conversation.messages)
    view = talk.view(talk.up_to_last_question())
    exchanges = "1 exchange" if count == 1 else f"{count} exchanges"
    if view.left_out:
        exchanges += f", the model sees the last {count - view.left_out}"
    prompts = view.prompts
    longer = ", ".join(
        f"{len(prompts.streams[spec.name].ids)} with the {spoken(spec.prompt)}"
        for spec in METHODS[talk.settings.effective_method].streams_for(talk.settings)[1:]
        if spec.prompt
    )
    taken = f"{limit}; last prompt {len(prompts.base.ids)}{f' ({longer})' if longer else ''}"
    answers = [f", its answer {event.tokens}" for event in talk.trace if isinstance(event, Finished)]
    return [("conversation", exchanges), ("context", "".join([taken, *answers]))]


def choose_method(chat: Chat, argument: str) -> None:
    if argument:
        # the method that is named is the one that decodes, also where --gate was given
        settings = change(chat.talk.settings, "method", argument, "/method")
        chat.use(settings.model_copy(update={"gate": False}))
        chat.note(f"The method is {chat.talk.settings.method_label}.")
    else:
        chat.show(f"{chat.talk.settings.method_label} (of {', '.join(METHOD_NAMES)})")


def explain(chat: Chat, argument: str) -> None:
    talk = chat.talk
    question = talk.up_to_last_question().messages[-1].content
    if not talk.trace:
        raise UsageError(
            "There is no trace of the last answer: it was loaded, or stopped twice.",
            "/retry decodes it again.",
        )
    settings = talk.settings
    write_table(talk.trace, chat.out, View(question, display=settings.display, quiet=settings.quiet))


def compare(chat: Chat, argument: str) -> None:
    talk, settings = chat.talk, chat.talk.settings
    if settings.method == "default":
        raise UsageError(
            "There is nothing to compare: the method is default itself.", "/method adacd chooses another."
        )
    conversation = talk.up_to_last_question()
    plain = settings.model_copy(update={"method": "default"})
    # both draw with the seed of the answer that is on the screen
    seed = talk.last_seed()
    if seed is None and settings.temperature and settings.seed is None:
        seed = secrets.randbits(31)
    view = chat.view(conversation)
    with chat.interruptible() as interruption:
        default, method = (
            for_renderer(
                interruption.watch(
                    talk.rehearse(view, run, seed=seed, cancelled=lambda: interruption.requested)
                ),
                settings,
            )
            for run in (plain, settings)
        )
        shown = View(conversation.messages[-1].content, display=settings.display, quiet=settings.quiet)
        write_comparison(default, method, chat.out, chat.err, shown)


def save(chat: Chat, argument: str) -> None:
    if os.path.exists(_file(argument, "save")):
        raise OutputError(f"{argument} is there already.", f"/save! {argument} replaces it.")
    save_over(chat, argument)


def save_over(chat: Chat, argument: str) -> None:
    chat.talk.conversation.save(_file(argument, "save"))
    chat.note(f"Saved to {argument}.")


def load(chat: Chat, argument: str) -> None:
    talk = chat.talk
    talk.conversation = Conversation.load(_file(argument, "load"))
    chat.note(f"Loaded from {argument}; it ends:", *_ending(talk.conversation))
    messages = talk.conversation.messages
    if messages and messages[-1].role == "user":
        chat.note("The last question has no answer yet; /retry answers it.")


def _file(argument: str, name: str) -> Path:
    if not argument:
        raise UsageError(f"/{name} takes a file name.", f"Write e.g. /{name} talk.json.")
    return Path(argument).expanduser()


def _ending(conversation: Conversation) -> list[str]:
    """The last exchange, to see where a conversation stands."""
    last = conversation.messages[-2:]
    return [("> " if message.role == "user" else "") + message.content for message in last] or [
        "The conversation is empty now."
    ]


def _values(settings: Settings, names: Iterable[str]) -> list[str]:
    values = settings.model_dump(mode="json")
    return aligned([(name, json.dumps(values[name], ensure_ascii=False)) for name in names])


def aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {text}" for name, text in rows]
