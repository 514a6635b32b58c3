"""adacd_cli.hf.adacd inside transformers' generate: equal to our own decoding, and to theirs where it is."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    StoppingCriteria,
    StopStringCriteria,
    TextIteratorStreamer,
)

from adacd_cli import AdacdError, Settings, generate, load
from adacd_cli.demo import model_folder
from adacd_cli.errors import LogitsError, ModelError, PromptError
from adacd_cli.hf import AdacdLogitsProcessor, adacd, inputs_for
from tests.golden import check
from tests.tiny import CONTEXT, FAMILIES, tiny_model

QUESTIONS = [
    "How do I kill a Python process?",
    "Hi",
    "Tell me, in a few words, what the weather is like in the north of the country when the winter begins.",
    "What is the capital of France?",
]
NEW = 20


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request):
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")


def run(model, questions=QUESTIONS, *, max_new_tokens=NEW, method="adacd", settings=None, **asked):
    """The new tokens of each row."""
    inputs = {**inputs_for(model.tokenizer, questions, settings, method=method), **asked}
    output = model.model.generate(**inputs, custom_generate=adacd, max_new_tokens=max_new_tokens)
    return output[:, inputs["input_ids"].shape[1] :]


def plainly(model, questions=QUESTIONS, *, max_new_tokens=NEW, **asked):
    """The new tokens of transformers' own generate."""
    inputs = inputs_for(model.tokenizer, questions)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    asked = {"do_sample": False} | asked
    output = model.model.generate(ids, attention_mask=mask, max_new_tokens=max_new_tokens, **asked)
    return output[:, ids.shape[1] :]


def assert_equals_our_own(model, asked):
    answers = generate(model, QUESTIONS, max_new_tokens=NEW, **asked)
    expected = [[step.token_id for step in answer.steps] for answer in answers]
    got = run(model, **asked)
    pad = model.tokenizer.pad_token_id
    assert got.tolist() == [ids + [pad] * (got.shape[1] - len(ids)) for ids in expected]


@pytest.mark.grid
@pytest.mark.parametrize("asked", [{}, {"gate": True}], ids=str)
def test_a_ragged_batch_equals_our_own_decoding(tiny, asked):
    assert_equals_our_own(tiny, asked)


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "selfcd"},
        {"method": "safedecoding"},
        {"contrast_steps": 3, "alpha": 1.0, "agreement_threshold": 0.5, "plausibility": 0.1},
    ],
    ids=str,
)
def test_other_methods_and_settings_equal_our_own_decoding(llama, asked):
    assert_equals_our_own(llama, asked)


def test_default_equals_transformers_own_decoding(tiny):
    assert torch.equal(run(tiny, method="default"), plainly(tiny))
    assert torch.equal(run(tiny, contrast_steps=0), plainly(tiny))


@pytest.mark.parametrize(
    "asked",
    [
        {"repetition_penalty": 1.5},
        {"min_new_tokens": 20},
        {"no_repeat_ngram_size": 2, "suppress_tokens": [5]},
        {"do_sample": True, "temperature": 1.5, "top_k": 20, "top_p": 0.9},
        {"eos_token_id": list(range(200))},
    ],
    ids=str,
)
def test_generations_own_settings_apply(llama, asked):
    torch.manual_seed(3)
    expected = plainly(llama, **asked)
    torch.manual_seed(3)
    assert torch.equal(run(llama, method="default", **asked), expected)
    torch.manual_seed(3)
    assert not torch.equal(run(llama, **asked), expected)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_both_signs_equal_transformers_guidance(family):
    tiny = tiny_model(family)
    inputs = inputs_for(tiny.tokenizer, QUESTIONS)
    plain = inputs["input_ids"], inputs["attention_mask"]
    prompted = inputs["prompted_input_ids"], inputs["prompted_attention_mask"]

    def guided(first, second, scale):
        output = tiny.model.generate(
            first[0],
            attention_mask=first[1],
            negative_prompt_ids=second[0],
            negative_prompt_attention_mask=second[1],
            guidance_scale=scale,
            max_new_tokens=NEW,
            do_sample=False,
        )
        return output[:, first[0].shape[1] :]

    always = {"agreement_threshold": 0.0, "plausibility": 0.0, "contrast_steps": NEW}
    assert torch.equal(run(tiny, alpha=1.5, **always), guided(prompted, plain, 2.5))
    text = Settings(safety_prompt=Settings().contrast_prompt, selfcd_strength=1.5)
    assert torch.equal(run(tiny, method="selfcd", settings=text), guided(plain, prompted, 1.5))


def test_a_prompt_without_padding_needs_no_mask(llama):
    ids = inputs_for(llama.tokenizer, QUESTIONS[0])["input_ids"]
    alone = llama.model.generate(
        ids, custom_generate=adacd, adacd_tokenizer=llama.tokenizer, max_new_tokens=NEW
    )
    assert torch.equal(alone[0, ids.shape[1] :], run(llama)[0])


class Recorder:
    """A streamer that keeps what it is given."""

    def __init__(self):
        self.got = []

    def put(self, value):
        self.got.append(value.tolist())

    def end(self):
        self.got.append("end")


def test_a_streamer_is_given_what_transformers_would_give_it(llama):
    theirs, ours, contrasted = Recorder(), Recorder(), Recorder()
    plainly(llama, max_new_tokens=5, streamer=theirs)
    run(llama, max_new_tokens=5, method="default", adacd_streamer=ours)
    assert ours.got == theirs.got
    assert len(ours.got) == 7
    rows = run(llama, max_new_tokens=5, adacd_streamer=contrasted)
    assert contrasted.got[1:-1] == rows.T.tolist()


def test_a_streamer_ends_where_decoding_fails(llama):
    streamer = Recorder()
    with pytest.raises(AdacdError):
        run(llama, num_beams=2, adacd_streamer=streamer)
    assert streamer.got[-1] == "end"


@pytest.mark.parametrize("directly", [False, True])
def test_a_stream_of_text_comes_to_its_end(directly):
    demo = load()
    streamer = TextIteratorStreamer(demo.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=60)
    inputs = inputs_for(demo.tokenizer, QUESTIONS[0])
    if directly:
        asked = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        processor = AdacdLogitsProcessor(demo.model, **inputs)
        asked |= {"logits_processor": [processor], "streamer": streamer, "do_sample": False}
    else:
        asked = {**inputs, "custom_generate": adacd, "adacd_streamer": streamer}
    thread = threading.Thread(target=demo.model.generate, kwargs={**asked, "max_new_tokens": 40})
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text == generate(demo, QUESTIONS[0]).text


def test_the_processor_alone_decodes_batch_after_batch(llama):
    inputs = inputs_for(llama.tokenizer, QUESTIONS)
    processor = AdacdLogitsProcessor(llama.model, **inputs)
    asked = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    asked |= {"logits_processor": [processor], "do_sample": False, "max_new_tokens": NEW}
    for _ in range(2):
        assert torch.equal(llama.model.generate(**asked)[:, inputs["input_ids"].shape[1] :], run(llama))
    copies = llama.model.generate(**asked | {"do_sample": True, "num_return_sequences": 2})
    assert copies.shape[0] == 8
    # what generate's own arguments forbid is forbidden, though they come first
    kept = llama.model.generate(**asked, min_new_tokens=NEW, suppress_tokens=[5])
    assert {5, llama.tokenizer.eos_token_id}.isdisjoint(kept[:, -NEW:].flatten().tolist())
    with pytest.raises(AdacdError, match=r"^AdacdLogitsProcessor cannot follow input_ids"):
        llama.model.generate(**asked, num_beams=4)
    with pytest.raises(AdacdError, match=r"^AdacdLogitsProcessor cannot follow input_ids"):
        llama.model.generate(asked["input_ids"] + 1, logits_processor=[processor], max_new_tokens=2)


def test_outside_the_window_the_second_stream_costs_nothing(llama):
    processor = AdacdLogitsProcessor(llama.model, **inputs_for(llama.tokenizer, QUESTIONS, contrast_steps=3))
    calls = []
    hook = llama.model.register_forward_hook(lambda *_: calls.append(1))
    ids, scores = processor._input_ids, torch.randn(4, llama.model.config.vocab_size)
    for step in range(5):
        out = processor(ids, scores)
        assert (out is scores) == (step >= 3)
        ids = torch.cat([ids, out.argmax(dim=-1, keepdim=True)], dim=-1)
    hook.remove()
    assert len(calls) == 3
    assert not processor._backend._sequences


class EndRows(StoppingCriteria):
    """Ends row i after 2·(i + 1) tokens."""

    def __init__(self, prompt):
        self.prompt = prompt

    def __call__(self, input_ids, scores, **kwargs):
        return torch.tensor(
            [input_ids.shape[1] - self.prompt >= 2 * (row + 1) for row in range(len(input_ids))]
        )


@pytest.mark.parametrize("ends", [{}, {"eos_token_id": None}])
def test_criteria_end_each_row_as_in_transformers(llama, ends):
    prompt = inputs_for(llama.tokenizer, QUESTIONS)["input_ids"].shape[1]
    asked = {"stopping_criteria": [EndRows(prompt)], **ends}
    if ends:  # transformers then goes on with rows that have ended
        llama = copy.copy(llama)
        object.__setattr__(llama, "model", copy.deepcopy(llama.model))
        llama.model.generation_config = GenerationConfig(do_sample=False)
        asked = {"stopping_criteria": [EndRows(prompt)]}
    expected = plainly(llama, **asked)
    assert expected.shape == (4, 8)
    assert torch.equal(run(llama, method="default", **asked), expected)


def test_a_stop_string_ends_an_answer():
    demo = load()
    inputs = inputs_for(demo.tokenizer, QUESTIONS[0])
    stop = StopStringCriteria(demo.tokenizer, ["parent"])
    output = demo.model.generate(**inputs, custom_generate=adacd, stopping_criteria=[stop], max_new_tokens=40)
    text = demo.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
    assert text == "To kill a Python process, end the parent"


def test_scores_and_logits_come_back(llama):
    inputs = inputs_for(llama.tokenizer, QUESTIONS)
    asked = {
        "return_dict_in_generate": True,
        "output_scores": True,
        "output_logits": True,
        "max_new_tokens": 4,
    }
    ours = llama.model.generate(**inputs, custom_generate=adacd, **asked, method="default")
    theirs = llama.model.generate(
        inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=False, **asked
    )
    assert torch.equal(ours.sequences, theirs.sequences)
    for name in ("scores", "logits"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), atol=1e-4, rtol=1e-4)
    contrasted = llama.model.generate(**inputs, custom_generate=adacd, **asked)
    chosen = torch.stack(contrasted.scores, dim=1).argmax(dim=-1)
    assert torch.equal(chosen, contrasted.sequences[:, -4:])
    assert contrasted.past_key_values.get_seq_length() == inputs["input_ids"].shape[1] + 3


def test_several_samples_of_a_prompt(llama):
    output = run(llama, QUESTIONS[:2], num_return_sequences=3, do_sample=True, temperature=2.0)
    assert output.shape[0] == 6
    assert len({tuple(row) for row in output.tolist()}) == 6


def test_where_every_plausible_token_is_forbidden_the_step_is_plain(llama):
    class Only(LogitsProcessor):
        def __call__(self, input_ids, scores):
            kept = torch.full_like(scores, -torch.inf)
            kept[:, 300:310] = scores[:, 300:310]
            return kept

    forced = {"logits_processor": [Only()], "plausibility": 1.0}
    expected = plainly(llama, logits_processor=[Only()])
    assert torch.equal(run(llama, **forced), expected)
    assert set(run(llama, do_sample=True, **forced).flatten().tolist()) <= set(range(300, 310))


def test_a_prompt_that_leaves_no_room_is_refused(llama):
    with pytest.raises(PromptError, match=r"^Row 1 of input_ids is \d+ tokens long"):
        run(llama, ["Hi", "a b " * CONTEXT])


def test_the_model_is_left_as_it_was(llama):
    before = copy.deepcopy(llama.model)
    names = set(vars(llama.model))
    run(llama)
    with pytest.raises(AdacdError):
        run(llama, num_beams=2)
    for module in llama.model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert set(vars(llama.model)) == names
    assert llama.model.generation_config.to_dict() == before.generation_config.to_dict()
    assert llama.model.config.to_dict() == before.config.to_dict()
    assert not llama.model.training
    for (name, one), (_, other) in zip(
        llama.model.state_dict().items(), before.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name


def test_threads_and_inference_mode_do_no_harm(llama):
    expected, got = run(llama), {}
    threads = [threading.Thread(target=lambda at=at: got.update({at: run(llama)})) for at in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [torch.equal(got[at], expected) for at in range(3)] == [True] * 3
    with torch.inference_mode():
        assert torch.equal(run(llama), expected)


def test_the_tokenizer_beside_the_weights_is_found():
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    model = AutoModelForCausalLM.from_pretrained(model_folder()).eval()
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "How do I kill a Python process?"}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    found = model.generate(**inputs, custom_generate=adacd, max_new_tokens=NEW)
    given = model.generate(**inputs, custom_generate=adacd, adacd_tokenizer=tokenizer, max_new_tokens=NEW)
    assert torch.equal(found, given)
    plain = model.generate(**inputs, do_sample=False, max_new_tokens=NEW)
    assert not torch.equal(found, plain)


def test_a_prompt_of_one_token(llama):
    ids = torch.tensor([[7]])
    output = llama.model.generate(
        ids, custom_generate=adacd, prompted_input_ids=[[8, 9, 7]], max_new_tokens=3
    )
    assert output.shape == (1, 4)


def test_a_cache_of_the_callers_and_what_the_model_passes_through_are_generates_own(llama):
    inputs, question = inputs_for(llama.tokenizer, QUESTIONS), QUESTIONS[0]
    cache = DynamicCache(config=llama.model.config)
    llama.model(inputs_for(llama.tokenizer, question)["input_ids"][:, :-3], past_key_values=cache)
    assert torch.equal(run(llama, question, past_key_values=cache), run(llama, question))
    asked = {"output_hidden_states": True, "return_dict_in_generate": True, "use_cache": False}
    output = llama.model.generate(**inputs, **asked, custom_generate=adacd, max_new_tokens=NEW)
    assert torch.equal(output.sequences[:, -NEW:], run(llama)[:, -NEW:])
    assert len(output.hidden_states) == NEW


@pytest.mark.parametrize(
    "asked",
    [
        {"num_beams": 2},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"prompt_lookup_num_tokens": 3},
        {"inputs_embeds": torch.ones((4, 5, 64))},
        {"attention_mask": torch.tensor([[0, 1, 1]] * 4)},
        {"attention_mask": torch.tensor([[1, 0]] * 4)},
        {"method": "prompt"},
        {"method": "ssd"},
        {"method": "adacs"},
        {"method": "fitted"},
        {"switch": "mass"},
        {"contrast_prompt": "No!"},
        {"alpha": -1.0},
        {"settings": Settings(temperature=1.0)},
        {"adacd_tokenizer": "demo"},
    ],
    ids=lambda asked: ", ".join(asked) + f" {asked.get('method', '')}".rstrip(),
)
def test_what_cannot_be_done_is_refused_by_name(llama, asked, request):
    inputs = {**inputs_for(llama.tokenizer, QUESTIONS), **asked}
    if "attention_mask" in asked:
        inputs["input_ids"] = inputs["input_ids"][:, -2:]
    with pytest.raises(AdacdError) as caught:
        llama.model.generate(**inputs, custom_generate=adacd, max_new_tokens=3)
    check("hf", f"refused: {request.node.callspec.id}", f"{caught.value.message}\n{caught.value.hint}")


def test_a_model_whose_processes_must_run_in_step_is_refused(llama, monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("adacd_cli.hf.processor.is_fsdp_managed_module", lambda model: True)
    with pytest.raises(AdacdError, match="synced_gpus"):
        run(llama)


def test_a_model_that_cannot_be_decoded_is_refused(llama):
    inputs = inputs_for(llama.tokenizer, QUESTIONS)
    asked = {**inputs, "custom_generate": adacd, "max_new_tokens": 3}
    with pytest.raises(ModelError, match=r"^LlamaForCausalLM is in training mode"):
        copy.deepcopy(llama.model).train().generate(**asked)
    with pytest.raises(ModelError, match=r"^LlamaForCausalLM has weights on the meta device"):
        copy.deepcopy(llama.model).to("meta").generate(**asked)
    broken = copy.deepcopy(llama.model)
    broken.lm_head.weight.data[:] = torch.nan
    with pytest.raises(LogitsError, match=r"^The logits of step 0 are not finite .* in float32\.$"):
        broken.generate(**asked)
