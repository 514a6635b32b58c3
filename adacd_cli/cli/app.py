"""The command `adacd`: its commands, each imported when it is called, and the one boundary that shows errors. A
command is a line in COMMANDS and a function of that name (see `cli.options`), in a module of that name unless
_MODULES names another. It raises the errors of `errors.py` and prints none."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import typer
import typer.core
import typer.main

from adacd_cli import __version__
from adacd_cli.cli.errors import guarded, taking_part
from adacd_cli.errors import UsageError
from adacd_cli.suggest import nearest

COMMANDS = {
    "generate": "Answer a prompt.",
    "compare": "Show Default and AdaCD side by side.",
    "explain": "Show why each token was chosen.",
    "chat": "Talk with the model.",
    "serve": "Serve the model to OpenAI's clients, and a page to try it.",
    "eval": "Measure methods on data sets: refusals, safety, cost.",
    "judge": "Judge answers made elsewhere.",
    "bench": "Measure how fast a model decodes here.",
    "doctor": "Say whether machine and model are fit for AdaCD.",
    "datasets": "List the data sets of eval.",
    "fit": "Find what works on a model, and keep it as a profile.",
    "profiles": "List, show, export and remove profiles.",
    "direction": "Make the directions of method surgical.",
    "config": "Show the settings and where they come from.",
}
_MODULES = {
    **dict.fromkeys(("generate", "compare", "explain", "chat"), "answer"),
    **dict.fromkeys(("datasets", "profiles", "config"), "lists"),
}
_GROUPS = {  # those that are called as `adacd NAME COMMAND`: their command, and the group's help
    "direction": ("build", "Make the directions that method surgical removes."),
    "config": ("show", "Show every setting and where its value comes from."),
}

_HELP = {"help_option_names": ["-h", "--help"]}
_STYLE: dict[str, Any] = {"context_settings": _HELP, "rich_markup_mode": None}


def _write_options(command: Any, ctx: Any, formatter: Any) -> None:
    panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for parameter in command.get_params(ctx):
        is_argument = isinstance(parameter, typer.core.TyperArgument)
        heading = parameter.rich_help_panel or ("Arguments" if is_argument else "Options")
        panels.setdefault(heading, []).append((_names(parameter), parameter.help or ""))
    for heading, rows in panels.items():
        if rows:
            with formatter.section(heading):
                formatter.write_dl(rows, col_max=28)


def _names(parameter: Any) -> str:
    if isinstance(parameter, typer.core.TyperArgument):
        return f"[{parameter.display_name_raw}]"
    flags = ", ".join(sorted(parameter.opts, key=lambda flag: flag.startswith("--")))
    switch = f" / {', '.join(parameter.secondary_opts)}" if parameter.secondary_opts else ""
    return f"{flags}{switch}" if parameter.is_flag else f"{flags} {parameter.metavar or 'TEXT'}"


class PlainCommand(typer.core.TyperCommand):
    """A command whose help is plain lines, options under the headings of their panels, and no flag is cut short:
    typer's own tables cut long flags at 80 columns, and its plain form knows no headings and no metavars. Options
    whose metavar is in square brackets may stand without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads `--ray --quiet` as `--ray= --quiet`: typer's parser knows no optional values."""
        options = [each for each in self.get_params(ctx) if (each.metavar or "").startswith("[")]
        flags = {flag for each in options for flag in each.opts}
        end = args.index("--") if "--" in args else len(args)
        for place, (word, following) in enumerate(zip(args[:end], [*args[1:], "-"], strict=False)):
            if word in flags and following.startswith("-"):
                args[place] = f"{word}="
        return super().parse_args(ctx, args)

    format_options = _write_options


class PlainGroup(typer.core.TyperGroup):
    """A group of commands with this help text, which it also shows when no command is given."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)


class CommandGroup(PlainGroup):
    """Lists every command without importing it, imports the one that is called, and guards its run."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> typer.core.TyperCommand | None:
        text = COMMANDS.get(cmd_name)
        return typer.core.TyperCommand(cmd_name, help=text) if text else None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name = args[0]
        if name in COMMANDS:
            return name, _load(name), args[1:]
        if ctx.resilient_parsing:  # completing after an unknown word
            return None, None, args[1:]
        if name.startswith("-"):
            raise UsageError(f"There is no option {name}.", "`adacd --help` lists the options.")
        near = nearest(name, COMMANDS)
        hint = f"Did you mean `adacd {near}`?" if near else f"Commands: {', '.join(COMMANDS)}."
        raise UsageError(f"There is no command {name!r}.", hint)

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> Any:
        """Runs the command line and exits the process with its code; typer's own main shows no error here."""
        words = list(sys.argv[1:] if args is None else args)
        options = words[: words.index("--")] if "--" in words else words  # what follows is literal text
        by_variable = os.environ.get("ADACD_DEBUG", "") not in ("", "0", "false")
        self._main_shell_completion({}, "adacd")
        sys.exit(guarded(lambda: self._run(words), debug="--debug" in options or by_variable))

    def _run(self, words: list[str]) -> int:
        try:
            with taking_part(words), self.make_context("adacd", words) as ctx:
                self.invoke(ctx)
        except typer.Exit as finished:
            return finished.exit_code
        return 0


def _load(name: str) -> Any:
    function = getattr(import_module(f"adacd_cli.cli.{_MODULES.get(name, name)}"), name)
    subcommand, group_help = _GROUPS.get(name, (None, None))
    group = typer.Typer(cls=PlainGroup, help=group_help, add_completion=False, **_STYLE)
    if subcommand:
        group.callback()(lambda: None)  # a group, although it has one command
    group.command(subcommand or name, cls=PlainCommand, context_settings=_HELP)(function)
    command = typer.main.get_command(group)
    command.name = name
    return command


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"adacd {__version__}")
        raise typer.Exit()


_VERSION = "Print the version."
_ENDING: dict[str, Any] = {"callback": _print_version, "is_eager": True}
app = typer.Typer(cls=CommandGroup, **_STYLE)


@app.callback()
def adacd(
    version: bool = typer.Option(False, "--version", "-V", help=_VERSION, **_ENDING),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
) -> None:
    """Chat with models that stop refusing harmless questions, and see why, token by token."""
