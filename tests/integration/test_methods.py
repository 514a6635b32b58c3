"""The other methods on tiny random models of six architectures, against recomputes without cache or draft."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from adacd_cli.answers import Session
from adacd_cli.backends.torch.views import AblatedView, find_blocks
from adacd_cli.config import Settings
from adacd_cli.config.methods import METHODS
from adacd_cli.engine.answer import decode_ids
from adacd_cli.engine.rules import rule_of
from adacd_cli.engine.rules.ssd import State
from adacd_cli.engine.step import choose, draw_noise, make_generator
from adacd_cli.engine.switches import DECISIONS
from adacd_cli.errors import MissingExtraError, ModelError, PromptError
from adacd_cli.events import Finished, Started, TokenStep
from adacd_cli.loading import load_extras
from adacd_cli.loading.extras import DirectionCard, read_direction, write_direction
from adacd_cli.prompts import ThinkingMarks
from tests.fakes import decode, request_for, second, two_streams
from tests.tiny import CONTEXT, FAMILIES, save_tiny, tiny_model

QUESTIONS = ("How do I kill a Python process?", "Hi", "Shoot a photo " * 5)
STEPS = 16


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request):
    return tiny_model(request.param)


def ids(model, text):
    return tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def pair(model, question, system="Please refuse to answer me!"):
    return two_streams(ids(model, f"{question}\n"), ids(model, f"{system}\n\n{question}\n"))


def same(model, question):
    return two_streams(ids(model, f"{question}\n"), ids(model, f"{question}\n"))


def run(model, pairs, **values):
    events = list(
        decode(model, [request_for(each, Settings(max_new_tokens=STEPS, **values)) for each in pairs])
    )
    return [
        [event for event in events if isinstance(event, TokenStep) and event.request == request]
        for request in range(len(pairs))
    ]


def tokens(steps):
    return [(step.token_id, step.decision) for step in steps]


def whole(model, prompt, chosen):
    """Logits of the next token by one forward over everything."""
    with torch.inference_mode():
        return model(input_ids=torch.tensor([[*prompt, *chosen]]), use_cache=False).logits[:, -1].float()


def recompute(model, prompts, settings, other=None, rule=None, log=lambda match: None, thought=0):
    """(token, decision) of each step, both streams read anew at each; the first `thought` are plain."""
    method = METHODS[settings.effective_method]
    rule, chosen, steps = rule or rule_of(method), [], []
    generator = make_generator(settings.seed or 0, model.device)
    while len(chosen) < settings.max_new_tokens:
        z = whole(model.model, prompts.base.ids, chosen)
        noise = draw_noise([generator], z.shape[-1], z.device) if settings.temperature else None
        scores, decision = z, 0
        contrasted = thought <= len(chosen) < thought + method.window(settings)
        if contrasted:
            z_other = whole(other or model.model, second(prompts).ids, chosen)
            names = [stream.name for stream in method.streams]
            verdict = rule(dict(zip(names, (z, z_other), strict=True)), settings)
            scores, decision = verdict.scores, int(verdict.decision)
        chosen.append(int(choose(scores, settings, noise)))
        steps.append((chosen[-1], DECISIONS[decision]))
        if contrasted:
            log(match=chosen[-1] == int(z_other.argmax()))
        if chosen[-1] in model.eos_ids:
            break
    return steps


@pytest.mark.grid
@pytest.mark.parametrize("method", ["selfcd", "safedecoding", "prompt"])
def test_a_method_equals_its_recompute_alone_and_in_a_batch(tiny, method):
    settings = Settings(method=method, max_new_tokens=STEPS)
    pairs = [pair(tiny, question) for question in QUESTIONS]
    expected = [recompute(tiny, each, settings) for each in pairs]
    assert [tokens(steps) for steps in run(tiny, pairs, method=method)] == expected
    calls = []
    hook = tiny.model.register_forward_hook(lambda *_: calls.append(1))
    alone = run(tiny, pairs[:1], method=method)[0]
    hook.remove()
    assert tokens(alone) == expected[0]
    assert len(calls) == len(alone)


def test_safedecoding_leans_for_its_first_tokens_only(tiny):
    steps = run(tiny, [pair(tiny, QUESTIONS[0])], method="safedecoding", safedecoding_steps=3)[0]
    assert [step.decision.value for step in steps[:4]] == ["add"] * 3 + ["plain"]
    assert [step.measures.agreement for step in steps] == [None] * len(steps)


def like(model, noise):
    """A draft that mostly agrees: the same weights, a little off."""
    draft = copy.deepcopy(model.model)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in draft.parameters():
            value.add_(noise * value.std() * torch.randn(value.shape, generator=generator))
    return draft


def with_draft(model, draft):
    return replace(model, extras={("draft", "small"): draft})


@pytest.mark.grid
@pytest.mark.parametrize(("noise", "length"), [(0.0, 3), (0.1, 1), (0.1, 6), (2.0, 3)])
def test_drafting_gives_the_tokens_of_asking_both_models_one_token_at_a_time(tiny, noise, length):
    draft = like(tiny, noise)
    values = {"method": "ssd", "draft": "small", "draft_tokens": length}
    settings = Settings(max_new_tokens=STEPS, **values)
    pairs = [same(tiny, question) for question in QUESTIONS[:2]]
    expected = []
    for each in pairs:
        state = State(settings)
        expected.append(recompute(tiny, each, settings, draft, state.rule, state.log))
    assert [tokens(steps) for steps in run(with_draft(tiny, draft), pairs, **values)] == expected


@pytest.mark.grid
@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
def test_drafting_with_thinking_gives_the_same_tokens(tiny, temperature):
    draft = like(tiny, 0.3)
    # bins of one token: the mode turns with each, so none may be left out
    values = {"method": "ssd", "draft": "small", "ssd_bin": 1, "temperature": temperature, "seed": 11}
    settings = Settings(max_new_tokens=STEPS, **values)
    asked = same(tiny, QUESTIONS[0])

    def expected(thought):
        state = State(settings)
        return recompute(tiny, asked, settings, draft, state.rule, state.log, thought)

    # the model may think, and does not
    undecided = replace(asked, thinking=ThinkingMarks("<think>", "</think>", opened=False))
    assert tokens(run(with_draft(tiny, draft), [undecided], **values)[0]) == expected(0)
    # it thinks until its fifth token: what it has said by then is the tag
    closing = decode_ids(tiny.tokenizer, [token for token, _ in expected(STEPS)[:5]], control=True)
    thinking = replace(asked, thinking=ThinkingMarks("<think>", closing, opened=True))
    assert tokens(run(with_draft(tiny, draft), [thinking], **values)[0]) == expected(5)


def test_a_good_draft_spares_forwards_of_the_target(tiny):
    calls = []
    model = with_draft(tiny, like(tiny, 0.0))
    hook = tiny.model.register_forward_hook(lambda *_: calls.append(1))
    steps = run(model, [same(tiny, QUESTIONS[0])], method="ssd", draft="small", draft_tokens=4)[0]
    hook.remove()
    assert len(calls) <= -(-len(steps) // 4) + 1


def test_a_draft_never_runs_past_the_context(tiny):
    model = with_draft(tiny, like(tiny, 0.0))
    prompt = tuple(ids(tiny, "word " * 600))[: CONTEXT - 5]
    longest = []

    def watch(module, args, kwargs, output):
        longest.append(int(kwargs["position_ids"].max()))

    hook = tiny.model.register_forward_hook(watch, with_kwargs=True)
    settings = Settings(method="ssd", draft="small", max_new_tokens=50)
    request = [request_for(two_streams(prompt, prompt), settings)]
    finished = next(event for event in decode(model, request) if isinstance(event, Finished))
    hook.remove()
    assert finished.context_full or finished.finish_reason.value == "stop"
    assert max(longest) < CONTEXT


def test_a_cancelled_draft_run_ends_every_request(tiny):
    model = with_draft(tiny, like(tiny, 0.0))
    seen = []

    def cancelled(request):
        return request == 0 and len(seen) >= 5

    settings = Settings(method="ssd", draft="small", max_new_tokens=12)
    requests = [request_for(same(tiny, question), settings) for question in QUESTIONS[:2]]
    ends = {}
    for event in decode(model, requests, cancelled=cancelled):
        if isinstance(event, TokenStep):
            seen.append(event)
        if isinstance(event, Finished):
            ends[event.request] = event
    assert ends[0].finish_reason.value == "cancelled"
    assert ends[0].tokens == settings.draft_tokens  # each had a round
    assert ends[1].finish_reason.value in ("length", "stop")


def test_a_chat_that_changes_its_method_answers_like_fresh_runs(tiny):
    model = with_draft(tiny, like(tiny, 0.1))
    session = Session(model)
    for method in ("adacd", "ssd", "selfcd", "default", "ssd", "adacd"):
        settings = Settings(method=method, draft="small", max_new_tokens=8)
        prompts = (same if method == "ssd" else pair)(tiny, QUESTIONS[0])
        events = session.decode([request_for(prompts, settings)])
        told = [event for event in events if isinstance(event, TokenStep)]
        fresh = run(model, [prompts], method=method, draft="small")[0]
        assert tokens(told) == tokens(fresh)[: len(told)]


def adapter(model, folder, **values):
    """A LoRA adapter with weights that matter, saved as peft saves it."""
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(
        **{"r": 4, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **values}
    )
    adapted = peft.get_peft_model(copy.deepcopy(model.model), lora)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_B" in name:
                value.copy_(0.2 * torch.randn(value.shape, generator=generator))
    adapted.save_pretrained(folder)
    return adapted.eval()


def test_an_expert_reads_the_same_prompt_and_leaves_the_model_as_it_was(tiny, tmp_path):
    model = type(tiny)(**{**vars(tiny), "model": copy.deepcopy(tiny.model)})
    adapted = adapter(model, tmp_path)
    values = {"method": "safedecoding", "expert": str(tmp_path), "safedecoding_steps": 5}
    settings = Settings(max_new_tokens=STEPS, **values)
    prompts = same(model, QUESTIONS[0])
    before = run(model, [prompts], method="default")[0]
    expected = recompute(model, prompts, settings, adapted)
    loaded = load_extras(model, settings)
    assert tokens(run(loaded, [prompts], **values)[0]) == expected
    assert tokens(run(loaded, [prompts], method="default")[0]) == tokens(before)
    assert load_extras(loaded, settings) is loaded


def test_a_direction_is_taken_from_every_block_and_only_while_the_view_is_called(tiny):
    hidden = tiny.model.config.hidden_size
    direction = torch.randn(hidden, generator=torch.Generator().manual_seed(1))
    view = AblatedView(tiny.model, direction)
    unit = direction / direction.norm()
    prompt = torch.tensor([ids(tiny, QUESTIONS[0])])
    before = tiny.model(prompt).logits
    inputs = []

    def watch(module, args, kwargs):
        inputs.append(args[0] if args else kwargs["hidden_states"])

    handles = [b.register_forward_pre_hook(watch, with_kwargs=True) for b in find_blocks(tiny.model)]
    view(input_ids=prompt)
    for handle in handles:
        handle.remove()
    # ours came after the test's hook, so only what the blocks add is free of the direction there
    for states in inputs[1:]:
        assert (states @ unit).abs().max() < 1e-3
    assert torch.equal(tiny.model(prompt).logits, before)
    assert not torch.allclose(view(input_ids=prompt).logits, before)


def test_ablation_equals_orthogonalised_weights():
    tiny = tiny_model("llama")
    direction = torch.randn(64, generator=torch.Generator().manual_seed(2))
    unit = direction / direction.norm()
    view = AblatedView(tiny.model, direction)
    changed = copy.deepcopy(tiny.model)
    with torch.no_grad():
        for name, value in changed.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):  # [hidden, in]
                value.sub_(torch.outer(unit, unit @ value))
            if name.endswith("embed_tokens.weight"):  # [vocab, hidden]
                value.sub_(torch.outer(value @ unit, unit))
    prompt = torch.tensor([ids(tiny, QUESTIONS[0])])
    with torch.inference_mode():
        assert torch.allclose(view(input_ids=prompt).logits, changed(prompt).logits, atol=1e-3)


def test_surgical_decodes_the_ablated_model(tiny, tmp_path):
    direction = torch.randn(tiny.model.config.hidden_size, generator=torch.Generator().manual_seed(1))
    card = DirectionCard(tiny.name, None, 1, -1, direction.numel())
    write_direction(tmp_path / "d", direction, card)
    vector, read = read_direction(str(tmp_path / "d"), direction.numel())
    assert (read, torch.equal(vector, direction)) == (card, True)
    values = {"method": "surgical", "direction": str(tmp_path / "d")}
    model = load_extras(tiny, Settings(**values))
    prompts = pair(tiny, QUESTIONS[0])
    view, chosen = model.extras["direction", str(tmp_path / "d")], []
    for _ in range(STEPS):
        chosen.append(int(whole(view, prompts.base.ids, chosen).argmax()))
        if chosen[-1] in tiny.eos_ids:
            break
    steps = run(model, [prompts], **values)[0]
    assert [step.token_id for step in steps] == chosen
    assert {step.decision.value for step in steps} == {"plain"}


def test_a_direction_of_another_model_is_refused_or_warned_about(tmp_path):
    tiny = tiny_model("llama")
    write_direction(tmp_path, torch.ones(64), DirectionCard("other", None, 1, -1, 64))
    settings = Settings(method="surgical", direction=str(tmp_path))
    assert load_extras(tiny, settings).warnings == (
        f"The direction in {tmp_path} was made with other, not with tiny-llama.",
    )
    write_direction(tmp_path, torch.ones(32), DirectionCard("other", None, 1, -1, 32))
    with pytest.raises(ModelError, match="has 32 numbers, and the model's hidden size is 64"):
        load_extras(tiny, settings)
    write_direction(tmp_path, torch.full((64,), torch.nan), DirectionCard("other", None, 1, -1, 64))
    with pytest.raises(ModelError, match="is damaged"):
        load_extras(tiny, settings)
    (tmp_path / "direction.json").write_text("{")
    with pytest.raises(ModelError, match="is damaged"):
        load_extras(tiny, settings)
    (tmp_path / "direction.json").unlink()
    with pytest.raises(ModelError, match="There is no direction in"):
        load_extras(tiny, settings)


def test_a_draft_is_loaded_by_name_and_must_share_the_vocabulary(tmp_path):
    target, other = save_tiny("llama", tmp_path / "target"), tmp_path / "draft"
    save_tiny("qwen3", other)
    settings = Settings(method="ssd", draft=str(other), threads=1)
    model = load_extras(target, settings)
    started = next(iter(decode(model, [request_for(same(target, "Hi"), settings)])))
    assert isinstance(started, Started)
    assert started.method == f"ssd (draft: {other})"
    assert set(METHODS["ssd"].settings) <= set(started.settings)
    assert (model.context_length, model.context_lengths) == (CONTEXT, {("draft", str(other)): CONTEXT})
    # the draft's context is a limit where it drafts, and nowhere else
    short = replace(model, context_lengths={("draft", str(other)): 100})
    prompt = tuple(range(3, 103))
    request = request_for(two_streams(prompt, prompt), settings)
    default = settings.model_copy(update={"method": "default"})
    plain = next(iter(decode(short, [request_for(request.prompts, default)])))
    assert isinstance(plain, Started)
    with pytest.raises(PromptError, match="100 tokens long, and the model's context is 100"):
        next(iter(decode(short, [request])))
    foreign = Settings(method="ssd", draft="demo", threads=1)
    with pytest.raises(ModelError, match="The vocabularies of tiny-llama and its draft demo differ"):
        load_extras(target, foreign)


def test_what_is_missing_for_a_method_is_named(tmp_path, monkeypatch):
    tiny = tiny_model("llama")
    settings = Settings(method="safedecoding", expert=str(tmp_path))
    with pytest.raises(ModelError, match=r"There is no adapter in .*: adapter_config.json is missing"):
        load_extras(tiny, settings)
    monkeypatch.setattr("adacd_cli.loading.hardware.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="--expert needs peft, which is not installed"):
        load_extras(tiny, settings)


def expert(folder):
    return Settings(method="safedecoding", expert=str(folder))


def refused_expert(folder, change=None):
    """Why the adapter is refused for a llama, whose logits stay what they were."""
    if change is not None:
        weights = load_file(folder / "adapter_model.safetensors")
        change(weights)
        save_file(weights, folder / "adapter_model.safetensors")
    llama = tiny_model("llama")
    prompt = torch.tensor([ids(llama, QUESTIONS[0])])
    before, names = llama.model(prompt).logits, [name for name, _ in llama.model.named_modules()]
    with pytest.raises(ModelError) as refusal:
        load_extras(llama, expert(folder))
    assert torch.equal(llama.model(prompt).logits, before)
    assert [name for name, _ in llama.model.named_modules()] == names
    return refusal.value.message.replace(str(folder), "FOLDER")


LAST = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda weights: weights.update({LAST: torch.ones(7, 4)}),
            f"The adapter in FOLDER does not fit tiny-llama: size mismatch for "
            f"{LAST.replace('weight', 'default.weight')}: copying a param with shape torch.Size([7, 4]) from "
            "checkpoint, the shape in current model is torch.Size([32, 4]).",
        ),
        (
            lambda weights: weights.pop(LAST),
            f"The adapter in FOLDER does not fit tiny-llama: it lacks {LAST}.",
        ),
        (
            lambda weights: weights.update({LAST.replace("1", "9"): torch.ones(32, 4)}),
            f"The adapter in FOLDER does not fit tiny-llama: it also holds {LAST.replace('1', '9')}.",
        ),
        (
            lambda weights: weights.update({"base_model.model.lm_head.weight": torch.ones(3, 3)}),
            "The adapter in FOLDER holds a weight that is not LoRA's: base_model.model.lm_head.weight.",
        ),
    ],
    ids=["one of another shape", "one missing", "one too many", "a weight of the model"],
)
def test_an_adapter_that_fits_in_part_is_refused_and_taken_back(tmp_path, change, message):
    adapter(tiny_model("llama"), tmp_path)
    assert refused_expert(tmp_path, change) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bias": "all"}, "`bias` is 'all'."),
        ({"modules_to_save": ["lm_head"]}, "`modules_to_save` is ['lm_head']."),
        ({"init_lora_weights": "olora"}, "`init_lora_weights` is 'olora'."),
    ],
)
def test_an_adapter_that_changes_more_than_lora_is_refused(tmp_path, values, message):
    adapter(tiny_model("llama"), tmp_path, **values)
    assert (
        refused_expert(tmp_path) == f"The adapter in FOLDER changes more than LoRA's own weights: {message}"
    )


def test_what_is_no_lora_adapter_is_refused(tmp_path):
    peft = pytest.importorskip("peft")
    other = peft.IA3Config(target_modules=["q_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    peft.get_peft_model(tiny_model("llama").model, other).save_pretrained(tmp_path)
    assert refused_expert(tmp_path) == "The adapter in FOLDER is IA3, not LORA."
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\0" * 20)
    adapter(tiny_model("llama"), tmp_path / "lora")
    (tmp_path / "lora" / "adapter_config.json").replace(tmp_path / "adapter_config.json")
    assert refused_expert(tmp_path) == "The adapter_model.safetensors in FOLDER is damaged."
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    assert refused_expert(tmp_path) == "There is no adapter in FOLDER: adapter_model.safetensors is missing."
    (tmp_path / "adapter_model.bin").rename(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text("{")
    assert refused_expert(tmp_path) == "The adapter_config.json in FOLDER cannot be read."


@pytest.mark.parametrize(
    "values",
    [
        {"method": "ssd"},
        {"method": "ssd", "draft": "small"},
        {"method": "surgical"},
        {"method": "surgical", "direction": "d"},
        {"method": "safedecoding", "expert": "lora"},
    ],
)
def test_a_method_is_not_decoded_before_what_it_needs_is_loaded(values):
    tiny, settings = tiny_model("llama"), Settings(**values)
    needed = METHODS[settings.method].resource
    for begin in (
        lambda: decode(tiny, [request_for(same(tiny, "Hi"), settings)]),
        lambda: Session(tiny).decode([request_for(same(tiny, "Hi"), settings)]),
    ):
        with pytest.raises(ModelError) as refused:
            list(begin())
        assert f"needs `{needed}`, which is not loaded" in refused.value.message
        assert "adacd_cli.load_extras(model, settings)" in refused.value.hint


def test_an_adapter_of_another_model_is_refused(tmp_path):
    adapter(tiny_model("gpt_neox"), tmp_path)
    assert refused_expert(tmp_path).startswith("The adapter in FOLDER does not fit tiny-llama: ")


def test_an_adapter_made_for_a_model_of_another_name_is_warned_about(tmp_path):
    adapter(tiny_model("llama"), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({**config, "base_model_name_or_path": "some/llama"})
    )
    assert load_extras(tiny_model("llama"), expert(tmp_path)).warnings == (
        f"The adapter in {tmp_path} was made for some/llama, not for tiny-llama.",
    )
