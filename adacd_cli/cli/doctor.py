"""`adacd doctor`: whether this machine, this model and its chat template are fit for AdaCD."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from adacd_cli.cli.options import with_settings
from adacd_cli.cli.outputs import check_stdout
from adacd_cli.cli.running import interrupts_said, progress_line
from adacd_cli.config import Resolved
from adacd_cli.render.screen import Screen


@with_settings(
    omit=(
        *("method", "temperature", "top_p", "top_k", "seed", "stop"),
        *("expert", "draft", "direction", "stats"),
    )
)
def command(
    resolved: Resolved,
    quick: Annotated[
        bool, typer.Option("--quick", help="Ask the model nothing: only machine, files and prompts.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Say whether machine, model and chat template are fit for AdaCD; exit code 1 if something fails."""
    check_stdout()
    settings = resolved.settings
    from adacd_cli.doctor.examination import Examination
    from adacd_cli.doctor.finding import Status
    from adacd_cli.doctor.report import as_json as to_json
    from adacd_cli.doctor.report import put_section, put_verdict

    examination = Examination(settings, quick=quick)
    screen = Screen(sys.stdout, settings.display)
    encoding = getattr(sys.stdout, "encoding", None)
    for stage in examination.stages:
        with progress_line(settings) as progress, interrupts_said():
            section = stage(progress)
        if not as_json:
            put_section(screen, section, encoding)
    if as_json:
        found = to_json(examination.verdict, examination.sections, examination.machine, examination.model)
        sys.stdout.write(json.dumps(found, ensure_ascii=False, indent=2) + "\n")
    else:
        put_verdict(screen, examination.verdict)
    findings = [finding for section in examination.sections for finding in section.findings]
    if any(finding.status is Status.FAILURE for finding in findings):
        raise typer.Exit(1)
