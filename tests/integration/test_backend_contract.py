"""The contract of a backend, over a script and over torch with models that keep their past in every way."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from adacd_cli.backends.torch.backend import TorchBackend
from adacd_cli.engine.backend import NOTHING, Extend
from tests.backend_contract import CONTRACT, IDS, OTHER, assert_close, fetch
from tests.fakes import ScriptedBackend
from tests.tiny import FAMILIES, long_rope, random_model, tiny_model

RUNNING_STATES = ("mamba", "mamba2", "lfm2", "jamba")
BORDER = 14
"""Tokens of the short keys of long RoPE: less than the contract feeds to a sequence."""

MODELS = {family: lambda family=family: tiny_model(family) for family in FAMILIES}
MODELS |= {kind: lambda kind=kind: random_model(kind) for kind in ("bloom", "gemma3_text", *RUNNING_STATES)}
MODELS |= {"long rope": lambda: long_rope(BORDER)}

every_check = pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]()


def whole(model):
    """The logits of the next token by one forward over all the ids."""

    def reference(ids):
        with torch.inference_mode():
            return model(torch.tensor([ids]), use_cache=False).logits[0, -1].float()

    return reference


@every_check
def test_torch_keeps_the_contract(model, check):
    check(TorchBackend(model), whole(model.model))


@pytest.mark.parametrize("can", [{}, {"free_run": True}, {"fork": False, "trim": False}], ids=str)
@every_check
def test_a_script_keeps_the_contract(check, can):
    def script(ids):
        return torch.randn(70, generator=torch.Generator().manual_seed(hash(ids) % 2**31)).tolist()

    check(ScriptedBackend(script, vocab_size=70, **can), lambda ids: torch.tensor(script(ids)))


def test_only_what_keeps_keys_and_values_can_be_forked_and_taken_back():
    for kind in ("llama", "mamba"):
        can = TorchBackend(random_model(kind)).capabilities
        assert (can.fork, can.trim, can.prefill_chunk is not None) == ((kind == "llama"),) * 3


def test_sequences_of_other_weights_stand_beside_those_of_the_model():
    tiny = tiny_model("llama")
    other = copy.deepcopy(tiny.model)
    with torch.no_grad():
        other.lm_head.weight.mul_(-1)
    backend = TorchBackend(replace(tiny, extras={("draft", "d"): other}))
    base, draft, second = backend.open(), backend.open(("draft", "d")), backend.open()
    for ids in (IDS, OTHER, (5,), (6,)):
        fed = {each: [*backend.tokens(each), *ids] for each in (base, draft, second)}
        found = fetch(backend, *(Extend(each, ids) for each in fed))
        for logits, each in zip(found, fed, strict=True):
            assert_close(logits, whole(other if each == draft else tiny.model), fed[each])
    fork = backend.open(("draft", "d"), like=draft, length=len(IDS))
    (logits,) = fetch(backend, Extend(fork, OTHER))
    assert_close(logits, whole(other), (*IDS, *OTHER))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fork_gives_the_logits_and_tokens_of_a_sequence_of_its_own(family):
    tiny = tiny_model(family)
    texts = [(*IDS, *IDS, *OTHER), (*IDS, *IDS, 8, 9), (*IDS, *IDS)]
    found = []
    for forked in (False, True):
        backend = TorchBackend(tiny)
        source = backend.open()
        fetch(backend, Extend(source, texts[0], NOTHING))
        length = 2 * len(IDS) - 1 if forked else 0
        sequences = [backend.open(like=source, length=length) for _ in texts]
        logits = [
            fetch(backend, Extend(each, text[length:]))[0]
            for each, text in zip(sequences, texts, strict=True)
        ]
        steps, chosen = [torch.cat([each.at() for each in logits])], []
        for _ in range(8):
            chosen.append(steps[-1].argmax(-1).tolist())
            pairs = zip(sequences, chosen[-1], strict=True)
            logits = fetch(backend, *(Extend(each, (token,)) for each, token in pairs))
            steps.append(torch.cat([each.at() for each in logits]))
        found.append((torch.stack(steps), chosen))
    (unforked, tokens), (forked, same) = found
    assert same == tokens
    torch.testing.assert_close(forked, unforked, atol=1e-4, rtol=0)
