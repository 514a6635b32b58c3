"""The trace as one HTML page that needs nothing else: open it, hover, click, step with the arrow keys.

The page reads its data from a JSON element whose `<` is escaped, draws every text as text, and its content
security policy allows its own style and script only, by hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from typing import Any, TextIO

from adacd_cli.events import Candidate, Event, Finished, TokenStep
from adacd_cli.render.reasons import Trace, collect, confidence_test, reason, summary
from adacd_cli.render.safe import label, printable
from adacd_cli.render.text import statistics
from adacd_cli.render.trace import describe_run
from adacd_cli.render.view import View


def write_html(events: Iterable[Event], out: TextIO, view: View) -> Finished:
    """Writes the page when the last event has come.

    Returns:
        the Finished event.
    """
    trace = collect(list(events))
    out.write(page(trace, view))
    out.flush()
    return trace.finished


def page(trace: Trace, view: View) -> str:
    """The whole document."""
    style, script = _part("trace.css"), _part("trace.js")
    parts = {
        "title": _text(f"adacd: {' '.join(view.prompt.split())[:80]}"),
        "run": _text(describe_run(trace.started)),
        "prompt": _text(view.prompt),
        "answer": _text(trace.finished.text),
        "thinking": _text(trace.finished.thinking),
        "thinking_hidden": "" if trace.finished.thinking else "hidden",
        "summary": "\n".join(f"<p>{_text(paragraph)}</p>" for paragraph in summary(trace)),
        "statistics": _text(statistics(trace.started, trace.finished)) if view.stats else "",
        "settings": "".join(
            f"<tr><th>{_text(name)}</th><td>{_text(str(value))}</td></tr>" for name, value in _settings(trace)
        ),
        "data": _json(_data(trace)),
        "style": style,
        "script": script,
        "style_hash": _hash(style),
        "script_hash": _hash(script),
    }
    # one pass, so that a text of the model that looks like a placeholder stays a text
    return re.sub("@@([a-z_]+)@@", lambda match: parts[match[1]], _part("trace.html"))


def _part(name: str) -> str:
    return (files("adacd_cli.render") / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(text: str) -> str:
    """Text as HTML; lone surrogates, which UTF-8 cannot carry, become U+FFFD."""
    return escape(printable(text.encode("utf-8", "replace").decode("utf-8")))


def _json(value: Any) -> str:
    """JSON that ends no script element: ASCII only, and no `<`, `>` or `&`."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _settings(trace: Trace) -> list[tuple[str, Any]]:
    started = trace.started
    about = {
        "model": started.model,
        "revision": started.revision,
        "method": started.method,
        "prompted tokens": started.prompted_tokens,
        "unprompted tokens": started.unprompted_tokens,
    }
    return [*about.items(), *started.settings.items(), ("drawn seed", started.seed)]


def _data(trace: Trace) -> dict[str, Any]:
    turn = trace.turn
    return {
        "threshold": trace.threshold,
        "turn": None if turn is None else trace.steps.index(turn),
        "steps": [_step(step, trace.threshold) for step in trace.steps],
    }


def _step(step: TokenStep, threshold: float) -> dict[str, Any]:
    measures = step.measures
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
