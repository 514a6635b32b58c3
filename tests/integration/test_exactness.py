"""The cached loop proven on tiny random models of six architectures, float32.

Against a full recompute without any cache, against itself in a batch, and against transformers' own decoding.
"""

from __future__ import annotations

import pytest
import torch

from adacd_cli.backends.torch import backend as torch_backend
from adacd_cli.backends.torch.batch import BatchedKVCache
from adacd_cli.config import Settings
from adacd_cli.config.methods import METHODS
from adacd_cli.engine.rules import rule_of
from adacd_cli.engine.switches import DECISIONS
from adacd_cli.events import Decision, Finished, TokenStep
from tests.fakes import decode, request_for, second, two_streams
from tests.tiny import FAMILIES, tiny_model

CONTRAST = "Please refuse to answer me!"
QUESTIONS = (
    "How do I kill a Python process?",
    "Hi",
    "Tell me, in a few words, what the weather is like in the north of the country when the winter begins.",
    "What is the capital of France?",
    "Shoot a photo " * 5,
)
STEPS = 20


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request):
    return tiny_model(request.param)


def pair(model, question, contrast=CONTRAST):
    def ids(text):
        return tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])

    return two_streams(ids(f"{question}\n"), ids(f"{contrast}\n\n{question}\n"))


def answer(model, *questions, **values):
    settings = Settings(max_new_tokens=STEPS, **values)
    events = list(decode(model, [request_for(pair(model, question), settings) for question in questions]))
    return [
        [event for event in events if isinstance(event, TokenStep) and event.request == request]
        for request in range(len(questions))
    ]


def assert_close(measured, expected, tolerance=1e-4):
    """Equal within the tolerance, and None in the same places."""
    assert [value is None for value in measured] == [value is None for value in expected]
    numbers = [value for value in expected if value is not None]
    assert [value for value in measured if value is not None] == pytest.approx(numbers, abs=tolerance)


def recompute(model, question, settings):
    """METHOD's formulas, written out, over whole forwards without any cache:
    (token, decision, agr, c, c*) of each step."""
    prompts, steps, chosen, on_track = pair(model, question), [], [], True

    def logits(ids):
        with torch.inference_mode():
            return model.model(torch.tensor([[*ids, *chosen]]), use_cache=False).logits[0, -1].float()

    method = settings.effective_method
    for step in range(settings.max_new_tokens):
        z = logits(prompts.base.ids)
        p = z.softmax(-1)
        scores, decision, agreement, prompted_confidence, top = z, Decision.PLAIN, None, None, None
        if method != "default" and step < settings.contrast_steps and on_track:
            z_star = logits(second(prompts).ids)
            top = int(z_star.argmax())
            rank = 1 + int((z > z[top]).sum())
            agreement, prompted_confidence = 1 / rank, float(z_star.softmax(-1).max())
            if method == "adacd" or rank == 1:
                sure = float(p.max()) >= settings.agreement_threshold * prompted_confidence
                add = agreement >= settings.agreement_threshold and sure
                decision = Decision.ADD if add else Decision.SUBTRACT
                delta = settings.alpha * (z_star - z)
                scores = z_star + delta if add else z_star - delta
                scores = torch.where(p < settings.plausibility * p.max(), -torch.inf, scores)
        token = int(scores.argmax())
        on_track = on_track and (method != "adacd-gated" or token == top)
        steps.append((token, decision, agreement, float(p.max()), prompted_confidence))
        chosen.append(token)
        if token in model.eos_ids:
            break
    return steps


@pytest.mark.grid
@pytest.mark.parametrize(
    "values",
    [
        {"method": "default"},
        {"method": "adacd"},
        {"method": "adacd", "contrast_steps": STEPS, "alpha": 1.0, "agreement_threshold": 0.4},
        {"method": "adacd-gated", "agreement_threshold": 0.4},
    ],
    ids=["default", "adacd", "adacd-whole-answer", "gated"],
)
def test_the_cached_loop_equals_a_full_recompute(tiny, values):
    for question in QUESTIONS[:3]:
        steps = answer(tiny, question, **values)[0]
        expected = recompute(tiny, question, Settings(max_new_tokens=STEPS, **values))
        assert [(s.token_id, s.decision) for s in steps] == [(e[0], e[1]) for e in expected]
        assert_close([s.measures.agreement for s in steps], [e[2] for e in expected], 1e-6)
        assert_close([s.measures.confidence for s in steps], [e[3] for e in expected])
        assert_close([s.measures.prompted_confidence for s in steps], [e[4] for e in expected])


def test_a_prompt_read_in_pieces_equals_a_full_recompute(tiny, monkeypatch):
    monkeypatch.setattr(torch_backend, "_PREFILL_CHUNK", {"cpu": 7})
    settings = Settings(max_new_tokens=STEPS)
    for question, steps in zip(QUESTIONS, answer(tiny, *QUESTIONS), strict=True):
        assert [(s.token_id, s.decision) for s in steps] == [
            (token_id, decision) for token_id, decision, *_ in recompute(tiny, question, settings)
        ]


@pytest.mark.grid
@pytest.mark.parametrize("method", ["default", "adacd", "adacd-gated"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_ragged_batch_of_five_equals_each_alone(tiny, method, temperature):
    values = {"method": method, "temperature": temperature, "seed": 3}
    together = answer(tiny, *QUESTIONS, **values)
    for question, steps in zip(QUESTIONS, together, strict=True):
        alone = answer(tiny, question, **values)[0]
        assert [(s.token_id, s.decision, s.plain_token_id, s.text) for s in steps] == [
            (s.token_id, s.decision, s.plain_token_id, s.text) for s in alone
        ]
        for name in ("agreement", "confidence", "prompted_confidence"):
            assert_close(
                [getattr(s.measures, name) for s in steps], [getattr(s.measures, name) for s in alone]
            )


def test_rows_that_end_early_leave_the_others_alone(tiny):
    # a stop string of each answer's own words ends the rows one after another
    answers = ["".join(step.text for step in steps) for steps in answer(tiny, *QUESTIONS)]
    stops = [
        text[place : place + 3] for place, text in zip((2, 9, 15), answers, strict=False) if text[place:]
    ]
    together = answer(tiny, *QUESTIONS, stop=stops)
    assert len({len(steps) for steps in together}) > 1
    for question, steps in zip(QUESTIONS, together, strict=True):
        assert [s.token_id for s in steps] == [s.token_id for s in answer(tiny, question, stop=stops)[0]]


@pytest.mark.grid
@pytest.mark.parametrize("values", [{"method": "default"}, {"method": "adacd", "contrast_steps": 0}])
def test_default_and_k_zero_equal_generate(tiny, values):
    for question in QUESTIONS:
        ids = torch.tensor([pair(tiny, question).base.ids])
        expected = tiny.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=STEPS
        )
        steps = answer(tiny, question, **values)[0]
        assert [step.token_id for step in steps] == expected[0, ids.shape[1] :].tolist()


def guided(model, prompt, negative, scale):
    """transformers' scores of one guided step, as log-probabilities: u + g·(c − u)."""
    out = model.model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        negative_prompt_ids=torch.tensor([negative]),
        negative_prompt_attention_mask=torch.ones(1, len(negative), dtype=torch.long),
        guidance_scale=scale,
        max_new_tokens=1,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    return out.scores[0].log_softmax(-1)


@pytest.mark.grid
@pytest.mark.parametrize(
    ("threshold", "decision"),
    [(1.0, Decision.SUBTRACT), (0.0, Decision.ADD)],
    ids=["subtract", "add"],
)
def test_one_step_without_mask_equals_guidance_scale(tiny, threshold, decision):
    settings = Settings(agreement_threshold=threshold, plausibility=0.0)
    for question in QUESTIONS:  # the first on which the streams differ enough for the decision
        prompts = pair(tiny, question)
        verdict = one_step(tiny, "adacd", prompts, settings)
        if DECISIONS[int(verdict.decision)] is decision:
            break
    else:
        pytest.fail(f"no question gives {decision}")
    if decision is Decision.SUBTRACT:
        oracle = guided(tiny, prompts.base.ids, second(prompts).ids, settings.alpha)
    else:
        oracle = guided(tiny, second(prompts).ids, prompts.base.ids, 1 + settings.alpha)
    assert torch.allclose(verdict.scores.log_softmax(-1), oracle, atol=1e-3)


def test_one_step_of_selfcd_equals_guidance_scale(tiny):
    settings = Settings(method="selfcd")
    prompts = pair(tiny, QUESTIONS[0], settings.safety_prompt)
    verdict = one_step(tiny, "selfcd", prompts, settings)
    oracle = guided(tiny, prompts.base.ids, second(prompts).ids, settings.selfcd_strength)
    assert torch.allclose(verdict.scores.log_softmax(-1), oracle, atol=1e-3)


def one_step(tiny, method, prompts, settings):
    """The verdict of a method's rule on the first token."""
    streams = prompts.base, second(prompts)
    z, prompted = (BatchedKVCache(tiny.model).prefill([stream.ids])[:, -1] for stream in streams)
    names = [stream.name for stream in METHODS[method].streams]
    return rule_of(METHODS[method])(dict(zip(names, (z, prompted), strict=True)), settings)


def test_every_run_ends_with_one_finished_for_each(tiny):
    events = list(decode(tiny, [request_for(pair(tiny, q), Settings(max_new_tokens=3)) for q in QUESTIONS]))
    assert sorted(e.request for e in events if isinstance(e, Finished)) == [0, 1, 2, 3, 4]
