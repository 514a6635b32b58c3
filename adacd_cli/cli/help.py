"""The help text: plain lines, options under the headings of their panels, no flag ever cut short.

typer's own tables cut long flags at 80 columns; its plain form knows no headings and no metavars.
"""

from __future__ import annotations

from typing import Any

import typer.core

HELP_FLAGS = {"help_option_names": ["-h", "--help"]}


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
    """A command with this help text, and with options that may stand without a value: those whose metavar
    is in square brackets."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._with_values(ctx, args))

    def _with_values(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments with `--ray --quiet` as `--ray= --quiet`: typer's parser knows no optional values."""
        bare = {
            flag: (parameter.metavar or "").startswith("[")
            for parameter in self.get_params(ctx)
            if isinstance(parameter, typer.core.TyperOption) and not parameter.is_flag
            for flag in parameter.opts
        }
        words: list[str] = []
        while len(words) < len(args) and (word := args[len(words)]) != "--":
            following = args[len(words) + 1 : len(words) + 2]
            if bare.get(word) and (not following or following[0].startswith("-")):
                words.append(f"{word}=")
            else:
                words += [word, *following] if word in bare else [word]
        return words + args[len(words) :]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_options(self, ctx, formatter)


class PlainGroup(typer.core.TyperGroup):
    """A group of commands with this help text, which it also shows when no command is given."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)
