"""The trace as one HTML page that needs nothing else: open it, hover, click, step with the arrow keys. The page
draws every text as text; `document` says what else keeps it harmless."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TextIO

from adacd_cli.events import Candidate, Event, TokenStep
from adacd_cli.render.document import as_html, as_json, document
from adacd_cli.render.reasons import Trace, collect, confidence_test, reason, summary
from adacd_cli.render.safe import label, printable
from adacd_cli.render.screen import View
from adacd_cli.render.switch import others, reading
from adacd_cli.render.text import statistics
from adacd_cli.render.trace import describe_run


def write_html(events: Iterable[Event], out: TextIO, view: View) -> None:
    out.write(page(collect(events), view))
    out.flush()


def page(trace: Trace, view: View) -> str:
    started = trace.started
    settings = {
        "model": started.model,
        "revision": started.revision,
        "method": started.method,
        "profile": started.profile,
        "prompted tokens": started.prompted_tokens,
        "unprompted tokens": started.unprompted_tokens,
        **started.settings,
        "drawn seed": started.seed,
    }
    data = {
        "threshold": trace.threshold,
        "turn": None if trace.turn is None else trace.steps.index(trace.turn),
        "steps": [_step(step, trace.threshold) for step in trace.steps],
    }
    parts = {
        "title": as_html(f"adacd: {' '.join(view.prompt.split())[:80]}"),
        "run": as_html(describe_run(started)),
        "prompt": as_html(view.prompt),
        "answer": as_html(trace.finished.text),
        "thinking": as_html(trace.finished.thinking),
        "thinking_hidden": "" if trace.finished.thinking else "hidden",
        "summary": "\n".join(f"<p>{as_html(paragraph)}</p>" for paragraph in summary(trace)),
        "statistics": as_html(statistics(started, trace.finished)) if view.stats else "",
        "settings": "".join(
            f"<tr><th>{as_html(name)}</th><td>{as_html(str(value))}</td></tr>"
            for name, value in settings.items()
        ),
        "data": as_json(data),
    }
    return document("adacd_cli.render", "trace", parts)


def _step(step: TokenStep, threshold: float | None) -> dict[str, Any]:
    measures, seen = step.measures, reading(step)
    return {
        "index": step.index,
        "text": printable(step.text),
        "label": label(step.token),
        "decision": step.decision.value,
        "mark": step.decision.mark,
        "thinking": step.thinking,
        "changed": step.token_id != step.plain_token_id,
        "plain": label(step.plain_token),
        "top": None if step.prompted_top is None else label(step.prompted_top),
        "rank": measures.prompted_top_rank,
        "agreement": measures.agreement,
        "confidence": measures.confidence,
        "prompted": measures.prompted_confidence,
        "plausible": measures.plausible_count,
        "named": others(measures.named),
        "switch": seen and {"numbers": seen.numbers, "scale": seen.scale},
        "test": confidence_test(step, threshold),
        "reason": reason(step, threshold),
        "candidates": [_candidate(candidate, step.token_id) for candidate in step.candidates],
    }


def _candidate(candidate: Candidate, chosen_id: int) -> dict[str, Any]:
    prompted = candidate.prompted_logprob
    return {
        "label": label(candidate.text),
        "unprompted": math.exp(candidate.unprompted_logprob),
        "prompted": None if prompted is None else math.exp(prompted),
        "score": candidate.score,
        "kept": candidate.kept,
        "chosen": candidate.token_id == chosen_id,
    }
