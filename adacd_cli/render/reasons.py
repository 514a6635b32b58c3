"""A trace in words: the confidence test, why a step decided as it did, and a summary for a newcomer. Every renderer
takes its sentences from here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from adacd_cli.config.methods import method_of
from adacd_cli.events import Decision, Event, Finished, FinishReason, Started, TokenStep
from adacd_cli.render.screen import spoken
from adacd_cli.render.switch import Reading, looks, reading
from adacd_cli.render.text import count, ended


@dataclass(frozen=True)
class Trace:
    """The events of one request; its steps include those of the thinking."""

    started: Started
    steps: tuple[TokenStep, ...]
    finished: Finished

    @property
    def threshold(self) -> float | None:
        return threshold_of(self.started)

    @property
    def decided(self) -> TokenStep | None:
        """The step that a switch decided at, once for the answer; None where none did."""
        return next((step for step in self.steps if reading(step)), None)

    @property
    def turn(self) -> TokenStep | None:
        """The first step that took another token than Default would have; None when there is none."""
        return next((step for step in self.steps if step.token_id != step.plain_token_id), None)


def threshold_of(started: Started) -> float | None:
    """λ of a run, in [0, 1]; None where the agreement of the streams decides nothing."""
    if not method_of(started.method).switched or started.settings.get("switch", "agreement") != "agreement":
        return None
    return float(started.settings.get("agreement_threshold", 0.0))


def confidence_test(step: TokenStep, threshold: float | None) -> str:
    """`0.66 < 0.9×0.99`: the plain stream's confidence against λ times the prompted one's; "" without them. A third
    digit is shown where two would contradict the sign."""
    confidence, prompted = step.measures.confidence, step.measures.prompted_confidence
    if threshold is None or prompted is None or step.measures.agreement is None:
        return ""
    # by the decision itself where it depended on it: the engine compared in float32
    passed = confidence >= threshold * prompted
    if step.decision is not Decision.PLAIN and step.measures.agreement >= threshold:
        passed = step.decision is Decision.ADD
    for digits in (2, 3):
        left, right = f"{confidence:.{digits}f}", f"{prompted:.{digits}f}"
        if (float(left) >= threshold * float(right)) == passed:
            break
    sign = "≥" if passed else "<"
    return f"{left} {sign} {threshold:.3g}×{right}"


def reason(step: TokenStep, threshold: float | None) -> str:
    """One or two sentences on why the step added, subtracted or did neither; the threshold is λ."""
    if (seen := reading(step)) is not None:
        return _switched(step, seen)
    measures, rank = step.measures, step.measures.prompted_top_rank
    top = spoken(step.prompted_top or "")
    if measures.agreement is None:
        leaning = {
            Decision.ADD: "the answer leaned towards the second stream",
            Decision.SUBTRACT: "the answer was pushed away from the second stream",
            Decision.PLAIN: "the plain stream's own token was taken",
        }[step.decision]
        if measures.named:
            numbers = ", ".join(f"{name} {value:.3g}" for name, value in measures.named.items())
            return f"With {numbers}, {leaning}."
        if rank is None:
            return "Plain decoding: only the plain stream was used."
        ranked = "puts first, too" if rank == 1 else f"ranks {_ordinal(rank)}"
        return f"The second stream wants {top}, which the plain stream {ranked}; {leaning}."
    assert rank is not None, "agreement is 1 / rank"
    agreement = f"agr {measures.agreement:.2f}" if rank < 100 else f"agr 1/{rank}"
    apart = f"The refusal-prompted stream wants {top}, which the plain stream ranks only {_ordinal(rank)}"
    if step.decision is Decision.PLAIN:
        return f"{apart}: no refusal is near, and plain decoding took over."
    if threshold is None:
        still = f"The prompted stream wants {top}, and the answer leans towards it"
        if step.decision is Decision.SUBTRACT:
            still = (
                f"Both streams still have the same top token, {top}, and the answer is pushed away from it"
            )
        return f"{still}, as decided at the first token."
    limit = f"λ = {threshold:.3g}"
    if measures.agreement < threshold:
        why = "The two do not agree on refusing, so the refusal direction was subtracted."
        return f"{apart} ({agreement} < {limit}). {why}"
    both = f"Both streams have the same top token, {top}"
    if rank > 1:
        both = f"The plain stream ranks the prompted stream's {top} {_ordinal(rank)} ({agreement} ≥ {limit})"
    test = confidence_test(step, threshold)
    if step.decision is Decision.ADD:
        return f"{both}, and the plain one is sure enough of it ({test}), so the refusal direction was added."
    return (
        f"{both}, but the plain one is less sure of its own ({test}). Agreement that weak does not count, "
        "so the refusal direction was subtracted."
    )


def _switched(step: TokenStep, seen: Reading) -> str:
    """Why the switch had the answer contrasted, or not; the numbers first."""
    if step.decision is Decision.SUBTRACT:
        then = ", so the refusal was pushed away"
    elif step.decision is Decision.ADD:
        then = ", so the answer was turned towards a refusal"
    elif step.measures.agreement is not None:  # to be subtracted, and there is nothing to subtract
        top, rank = spoken(step.prompted_top or ""), _ordinal(step.measures.prompted_top_rank or 0)
        apart = f"the refusal-prompted stream wants {top}, which the plain stream ranks only {rank}"
        then = f", but {apart}: no refusal is near, and plain decoding took over"
    else:
        then = {
            Decision.ADD: ", and the model was about to refuse, so the refusal stays in its own words",
            Decision.SUBTRACT: ", and the model was about to answer, so the answer stays its own",
            Decision.PLAIN: ", so the model's own words stay",
        }[seen.zone]
    return f"{looks(seen)}{then}."


def summary(trace: Trace) -> list[str]:
    """What happened, in paragraphs: what was contrasted, where the answer turned and why, how it ended."""
    contrasted = trace.finished.added + trace.finished.subtracted
    turned = [_turned(trace), _left_track(trace)] if contrasted else []
    decided = trace.decided
    if contrasted and decided is not None and decided != trace.turn:
        turned.insert(0, reason(decided, trace.threshold))
    paragraphs = [_contrasted(trace), *turned, _ended(trace)]
    if contrasted and trace.threshold is not None and 0.5 < trace.threshold <= 1:
        paragraphs.append(
            "With λ in (0.5, 1], agr ≥ λ simply means that both streams have the same top token."
        )
    return [paragraph for paragraph in paragraphs if paragraph]


def _contrasted(trace: Trace) -> str:
    added, subtracted = trace.finished.added, trace.finished.subtracted
    contrasted, tokens = added + subtracted, trace.finished.tokens
    if not tokens:
        return ""
    if not contrasted and trace.decided is not None:
        return f"Nothing was contrasted. {reason(trace.decided, trace.threshold)}"
    if not contrasted:
        return f"Nothing was contrasted: {_why_nothing(trace)}."
    rest = tokens - contrasted
    others = f" The other {count(rest)} {'is' if rest == 1 else 'are'} plain decoding." if rest else ""
    second = "prompted" if method_of(trace.started.method).switched else "second"
    every = f"{count(contrasted)} contrasted, {'and' if contrasted == 1 else 'all of them'}"
    if not subtracted:
        why = "both streams agreed with confidence, and " if trace.threshold is not None else ""
        return f"{every} added (+): {why}the answer leaned towards the {second} stream.{others}"
    if not added:
        return f"{every} subtracted (−): the answer was pushed away from the {second} stream.{others}"
    return (
        f"{count(contrasted)} contrasted: {added} added (+, towards the prompted stream) and "
        f"{subtracted} subtracted (−, away from it).{others}"
    )


def _why_nothing(trace: Trace) -> str:
    method = method_of(trace.started.method)
    if len(method.streams) == 1:
        return f"method {method.name} is plain decoding" + {
            "prompt": " under a system message that asks for help",
            "surgical": " with a direction removed from the model",
        }.get(method.name, "")
    if method.window_setting and trace.started.settings.get(method.window_setting) == 0:
        return "the contrast window is 0 tokens long"
    if all(step.thinking for step in trace.steps):
        return "the answer had not begun when the thinking was cut off"
    if method.follows_track:
        return "the two streams began with different top tokens, so no refusal was near"
    return "every step was left to plain decoding"


def _turned(trace: Trace) -> str:
    turn = trace.turn
    if turn is None:
        return "No token was changed: Default would have taken the same ones, so this is its answer too."
    later = sum(step.token_id != step.plain_token_id for step in trace.steps) - 1
    are = "is" if later == 1 else "are"
    more = f" {count(later)} after it {are} not what Default would have taken there either."
    return (
        f"The answer turned at step {turn.index}: Default would have taken {spoken(turn.plain_token)}, and "
        f"{spoken(turn.token)} was taken. {reason(turn, trace.threshold)}{more if later else ''}"
    )


def _left_track(trace: Trace) -> str:
    if not method_of(trace.started.method).follows_track and trace.decided is None:
        return ""
    for step in trace.steps:
        if step.measures.prompted_top_id not in (None, step.token_id):
            return (
                f"At step {step.index} the answer left the refusal's track: {spoken(step.token)} is not the "
                f"prompted stream's {spoken(step.prompted_top or '')}. From there on it is plain decoding."
            )
    return "The answer stayed on the refusal's track through the whole window."


def _ended(trace: Trace) -> str:
    finished, after = trace.finished, f"after {count(trace.finished.tokens)}"
    if finished.finish_reason is FinishReason.CANCELLED:
        return f"Cancelled {after if finished.tokens else 'before the first token'}."
    if finished.context_full:
        return f"The answer stopped at the context's end, {after}."
    if finished.finish_reason is FinishReason.LENGTH:
        cut = f"The answer was cut off at max_new_tokens, {after}."
        return cut if finished.tokens else "No token was decoded: max_new_tokens is 0."
    return f"The answer {ended(trace.started)} {after}."


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def collect(events: Iterable[Event]) -> Trace:
    """The trace of one request's events; ValueError where Started or Finished is missing."""
    match [event for event in events if isinstance(event, (Started, TokenStep, Finished))]:
        case [Started() as started, *steps, Finished() as finished]:
            return Trace(started, tuple(step for step in steps if isinstance(step, TokenStep)), finished)
    raise ValueError("a request's events begin with Started and end with Finished")
