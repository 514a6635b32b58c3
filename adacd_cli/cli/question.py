"""What `explain` and `compare` share: one question to a loaded model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from adacd_cli.cli.inputs import read_prompt, read_prompts
from adacd_cli.cli.running import load_model, make_requests, show_prompts, warn
from adacd_cli.errors import UsageError

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine import LanguageModel, Request

PromptArgument = Annotated[str | None, typer.Argument(metavar="PROMPT", help="The question; - is stdin.")]
FileOption = Annotated[
    str | None,
    typer.Option("--file", "-f", metavar="FILE", help="Read the question from a file of one line."),
]
OutputOption = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file instead of stdout.")
]
ShowPromptsOption = Annotated[
    bool, typer.Option("--show-prompts", help="Show every stream's rendered prompt on stderr first.")
]


def read_question(prompt: str | None, file: str | None, *, command: str) -> str:
    """The one question of a command; UsageError where there is none, or more than one."""
    if file is None:
        return read_prompt(prompt, command=command)
    if prompt is not None:
        raise UsageError("There is both a prompt and a --file.", "Leave one of them out.")
    questions = read_prompts(file)
    if len(questions) > 1:
        raise UsageError(
            f"`adacd {command}` takes one prompt; the file has {len(questions)}, one a line.",
            "`adacd generate --file FILE --json` decodes them all.",
        )
    return questions[0]


def prepare(
    question: str, settings: Settings, *, prompts_shown: bool, candidates: int = 0
) -> tuple[LanguageModel, Request]:
    """Loads the model and makes the request; warnings, and both prompts on request, go to stderr."""
    model = load_model(settings)
    (request,) = make_requests(model, [question], settings, candidates=candidates)
    warn(request.prompts.warnings, settings)
    if prompts_shown:
        show_prompts(model.tokenizer, request.prompts)
    return model, request
