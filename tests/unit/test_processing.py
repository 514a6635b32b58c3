"""What changes final scores, against transformers' own processors: alone, in their order, and in whole answers."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from adacd_cli.config import Settings
from adacd_cli.engine.rules.adacd import rule as adacd
from adacd_cli.engine.step import ScoreProcessor, choose, draw_noise, make_generator, pack_step, unpack
from adacd_cli.events import Finished, FinishReason, TokenStep
from tests.fakes import decode, request_for, second, two_streams
from tests.tiny import tiny_model

CPU = torch.device("cpu")
PROMPT, ANSWER, END = (3, 5, 5, 9), (7, 5, 7, 11), 2
VALUES = {"repetition_penalty": 1.3, "logit_bias": ("7:2.5", "12:-4"), "min_tokens": 6}


def scores(seed=0, vocab=40):
    return torch.randn((1, vocab), generator=torch.Generator().manual_seed(seed)) * 4


def theirs(prompt_length, end=END, repetition_penalty=1.0, logit_bias=(), min_tokens=0, **_):
    """transformers' processors of these settings, in the order in which its `generate` applies them."""
    found = LogitsProcessorList()
    biases = {(int(token),): float(bias) for token, bias in (each.split(":") for each in logit_bias)}
    if biases:
        found.append(SequenceBiasLogitsProcessor(biases))
    if repetition_penalty != 1:
        found.append(RepetitionPenaltyLogitsProcessor(repetition_penalty))
    if min_tokens:
        found.append(MinNewTokensLengthLogitsProcessor(prompt_length, min_tokens, end, device=CPU))
    return found


@pytest.mark.parametrize("values", [*({name: value} for name, value in VALUES.items()), VALUES])
def test_scores_are_those_of_transformers(values):
    own = ScoreProcessor(Settings(**values), PROMPT, {END}, CPU)
    ids = torch.tensor([[*PROMPT, *ANSWER]])
    expected = theirs(len(PROMPT), **values)(ids, scores().clone())
    assert torch.equal(own(scores(), ANSWER), expected)
    assert not torch.equal(expected, scores())


def test_penalties_are_openais_formula():
    own = ScoreProcessor(Settings(presence_penalty=0.5, frequency_penalty=-1.5), PROMPT, {END}, CPU)
    expected = scores()
    for token in set(ANSWER):  # mu[j] - c[j] · frequency - (c[j] > 0) · presence
        expected[0, token] -= ANSWER.count(token) * -1.5 + 0.5
    for length in range(len(ANSWER)):  # as it grows
        own(scores(), ANSWER[:length])
    assert torch.allclose(own(scores(), ANSWER), expected)
    assert torch.allclose(own(scores()[:, :8], ANSWER), expected[:, :8])  # another vocabulary


def test_ids_beyond_the_vocabulary_change_nothing():
    values = {"logit_bias": ("999:5",), "repetition_penalty": 2.0, "min_tokens": 9}
    own = ScoreProcessor(Settings(**values), (999,), {999}, CPU)
    assert torch.equal(own(scores(), (998,)), scores())


@pytest.mark.parametrize("seed", range(20))
def test_min_p_keeps_what_transformers_keeps(seed):
    settings = Settings(temperature=1.7, top_k=20, top_p=0.9, min_p=0.2)
    noise = draw_noise([make_generator(seed, CPU)], 40, CPU)
    warped = scores(seed)
    for warper in (
        TemperatureLogitsWarper(1.7),
        TopKLogitsWarper(20),
        TopPLogitsWarper(0.9),
        MinPLogitsWarper(0.2),
    ):
        warped = warper(torch.tensor([PROMPT]), warped)
    expected = (warped.softmax(dim=-1) / noise).argmax(dim=-1)
    assert torch.equal(choose(scores(seed), settings, noise), expected)


def test_min_p_leaves_tokens_out():
    table = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(2000, -1)
    noise = draw_noise([make_generator(1, CPU)] * 2000, 4, CPU)
    drawn = choose(table, Settings(temperature=1.0, min_p=0.5), noise).bincount(minlength=4) / 2000
    assert drawn.tolist() == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)


def ids(model, text):
    return tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def pair(model):
    return two_streams(ids(model, "How do I kill it?\n"), ids(model, "Please refuse!\n\nHow do I kill it?\n"))


def answer(model, requests):
    events = list(decode(model, requests))
    return [
        [event.token_id for event in events if isinstance(event, TokenStep) and event.request == place]
        for place in range(len(requests))
    ]


def test_plain_answers_are_those_of_transformers_generate():
    model = tiny_model("llama")
    prompts = pair(model)
    settings = Settings(method="default", max_new_tokens=24, **VALUES)
    (own,) = answer(model, [request_for(prompts, settings)])
    expected = model.model.generate(
        torch.tensor([prompts.base.ids]),
        max_new_tokens=24,
        repetition_penalty=1.3,
        min_new_tokens=6,
        sequence_bias={(7,): 2.5, (12,): -4.0},
    )[0, len(prompts.base.ids) :]
    assert own == expected.tolist()


def test_they_act_on_the_methods_final_scores_also_beside_others():
    model = tiny_model("llama")
    prompts, (end,) = pair(model), model.eos_ids
    unchanged = request_for(prompts, Settings(max_new_tokens=16, contrast_steps=8))
    ((first, *_, last),) = without = answer(model, [unchanged])
    values = {"repetition_penalty": 3.0, "logit_bias": (f"{first}:-90", f"{last}:4"), "min_tokens": 16}
    settings = unchanged.settings.model_copy(update=values)
    processors = theirs(len(prompts.base.ids), end, **values)
    expected, plain = [], []
    for place in range(16):
        rows = [torch.tensor([[*each, *expected]]) for each in (prompts.base.ids, second(prompts).ids)]
        with torch.inference_mode():
            z, prompted = (model.model(input_ids=row).logits[:, -1].float() for row in rows)
        final = adacd({"unprompted": z, "prompted": prompted}, settings).scores if place < 8 else z
        plain.append(int(processors(rows[0], z.clone()).argmax()))
        expected.append(int(processors(rows[0], final.clone()).argmax()))
    alone = request_for(prompts, settings)
    assert answer(model, [alone, unchanged, alone]) == [expected, *without, expected]
    assert expected != without[0] != plain
    steps = [event for event in decode(model, [alone]) if isinstance(event, TokenStep)]
    assert [step.plain_token_id for step in steps] == plain


def test_where_only_an_end_is_plausible_the_base_streams_best_other_token_is_taken():
    z = torch.tensor([[9.0, 1.0, 2.0, 0.0]])  # of which β leaves token 0 only
    settings = Settings(min_tokens=1)
    own = ScoreProcessor(settings, (1,), {0}, CPU)
    logits = {"unprompted": z, "prompted": z.flip(-1)}
    outcome = unpack([pack_step(adacd, logits, settings, None, process=lambda each: own(each, ()))])[0]
    assert outcome.token_id == 2
    assert unpack([pack_step(adacd, logits, settings, None)])[0].token_id == 0


def test_ends_are_passed_over_or_added():
    model = tiny_model("llama")
    prompts = pair(model)
    (plain,) = answer(model, [request_for(prompts, Settings(max_new_tokens=40))])
    stop = plain[5]
    first = plain.index(stop)
    *_, finished = decode(model, [request_for(prompts, Settings(stop_token_ids=(stop,)))])
    assert isinstance(finished, Finished)
    assert (finished.tokens, finished.finish_reason) == (first + 1, FinishReason.STOP)
    bias = (f"{min(model.eos_ids)}:100",)  # every token is an end
    ignored = Settings(max_new_tokens=40, ignore_eos=True, logit_bias=bias, contrast_steps=0)
    *_, finished = decode(model, [request_for(prompts, ignored)])
    assert isinstance(finished, Finished)
    assert (finished.tokens, finished.finish_reason, finished.text) == (40, FinishReason.LENGTH, "")
    ended = ignored.model_copy(update={"ignore_eos": False, "min_tokens": 4})
    *_, finished = decode(model, [request_for(prompts, ended)])
    assert isinstance(finished, Finished)
    assert (finished.tokens, finished.finish_reason) == (5, FinishReason.STOP)
