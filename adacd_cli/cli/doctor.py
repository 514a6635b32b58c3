"""`adacd doctor`: whether machine, model and chat template are fit for AdaCD."""

from __future__ import annotations

import json
import sys

import typer

from adacd_cli.cli.options import switch, with_settings
from adacd_cli.cli.running import interrupts_said, progress_line
from adacd_cli.cli.streams import check_stdout
from adacd_cli.config import CONTROLS, Resolved
from adacd_cli.doctor.checkup import Checkup
from adacd_cli.doctor.findings import Section, Status, put_section, put_verdict, to_json
from adacd_cli.render.screen import Screen


@with_settings(
    omit=(
        *("method", "temperature", "top_p", "top_k", "seed", "stop"),
        *("expert", "draft", "direction", "stats"),
        *CONTROLS,
    )
)
def doctor(
    resolved: Resolved,
    quick: bool = switch("Ask the model nothing: only check machine, files and prompts.", "--quick"),
    as_json: bool = switch("Write one JSON object.", "--json"),
) -> None:
    """Check whether machine, model and chat template are fit for AdaCD; exit code 1 if something fails."""
    check_stdout()
    settings = resolved.settings
    checkup = Checkup(settings, quick=quick)
    screen, sections = Screen(sys.stdout, settings.display), list[Section]()
    for check in checkup.sections:
        with progress_line(settings) as progress, interrupts_said():
            sections.append(check(progress))
        if not as_json:
            put_section(screen, sections[-1], getattr(sys.stdout, "encoding", None))
    if as_json:
        found = to_json(sections, checkup.machine, checkup.model)
        sys.stdout.write(json.dumps(found, ensure_ascii=False, indent=2) + "\n")
    else:
        put_verdict(screen, sections)
    if any(each.status is Status.FAILURE for section in sections for each in section.findings):
        raise typer.Exit(1)
