"""The faster products: the same numbers, only inside the engine's forwards, and never a stale copy."""

from __future__ import annotations

import threading

import pytest
import torch

from adacd_cli.backends.torch import matmul
from adacd_cli.backends.torch.matmul import fast_small_batch, speed_up

PLENTY = 10**12


class Model(torch.nn.Module):
    """Two linear layers, one with a bias, of sizes whose products are not all alike."""

    def __init__(self, dtype):
        super().__init__()
        self.first = torch.nn.Linear(96, 160, dtype=dtype)
        self.second = torch.nn.Linear(160, 48, bias=False, dtype=dtype)

    def forward(self, x):
        return self.second(self.first(x))


@pytest.fixture
def small_counts(monkeypatch):
    """Small models are sped up as well."""
    monkeypatch.setattr(matmul, "_LEAST_BYTES", 0)


def ways(model):
    return [{way.__name__ for way in layer.ways} for layer in (model.first, model.second)]


def always(way):
    return lambda weights: (way,) * matmul._FEW


@torch.inference_mode()
def agree(model, dtype):
    plain = Model(dtype)
    for name in ("first", "second"):
        own, other = getattr(plain, name), getattr(model, name)
        own.weight = torch.nn.Parameter(other.weight.clone())
        own.bias = other.bias
    for shape in ((1, 1, 96), (2, 1, 96), (4, 1, 96), (1, 5, 96), (40, 1, 96), (96,), (0, 1, 96)):
        x = torch.randn(shape, dtype=dtype)
        with fast_small_batch():
            fast = model(x)
        assert fast.shape == plain(x).shape
        close = 1e-5 if dtype is torch.float32 else 1e-2
        torch.testing.assert_close(fast, plain(x), rtol=close, atol=close)
        assert torch.equal(model(x), plain(x))  # whoever else calls it gets PyTorch's own


@pytest.mark.parametrize("way", [matmul._turned, matmul._plain])
def test_float32_gives_the_same_numbers(small_counts, monkeypatch, way):
    monkeypatch.setattr(matmul, "_fastest", always(way))
    model = Model(torch.float32)
    speed_up(model, PLENTY)
    assert ways(model) == [{way.__name__, "_packed"}] * 2
    agree(model, torch.float32)


def test_bfloat16_gives_the_same_numbers(small_counts):
    model = Model(torch.bfloat16)
    speed_up(model, PLENTY)
    assert [type(layer).__name__ for layer in (model.first, model.second)] == ["_PackedLinear"] * 2
    assert not [name for name, _ in model.named_parameters() if name.endswith("weight")]  # held once
    agree(model, torch.bfloat16)


def test_the_ways_are_tried_on_the_models_own_weights(small_counts):
    model = Model(torch.float32)
    speed_up(model, PLENTY)
    tried = getattr(model.first, "ways", ())
    assert set(tried[: matmul._FEW]) <= {matmul._turned, matmul._plain}
    agree(model, torch.float32)


def test_a_changed_weight_is_copied_anew(small_counts, monkeypatch):
    monkeypatch.setattr(matmul, "_fastest", lambda weights: (matmul._packed,) * matmul._FEW)
    model = Model(torch.float32)
    speed_up(model, PLENTY)
    x = torch.ones(1, 96)
    with torch.no_grad(), fast_small_batch():
        before = model(x)
        model.second.weight.mul_(2)
        torch.testing.assert_close(model(x), 2 * before)


def test_a_packed_weight_refuses_a_change_that_would_be_lost(small_counts):
    model = Model(torch.bfloat16)
    speed_up(model, PLENTY)
    with torch.no_grad(), pytest.raises(RuntimeError, match="inference"):
        model.second.weight.mul_(2)


@pytest.mark.parametrize("free", [None, 1000])
def test_without_memory_for_copies_there_are_none(small_counts, monkeypatch, free):
    monkeypatch.setattr(matmul, "_fastest", always(matmul._turned))
    narrow, wide = Model(torch.bfloat16), Model(torch.float32)
    speed_up(narrow, free)
    speed_up(wide, free)
    assert type(narrow.first).__name__ == "_PackedLinear"  # in the place of the original
    assert ways(wide) == [{"_turned", "_plain"}] * 2


def test_a_small_model_and_other_layers_are_left_alone():
    model = Model(torch.float32)
    speed_up(model, PLENTY)
    assert type(model.first) is torch.nn.Linear

    class Own(torch.nn.Linear):
        pass

    layer = Own(8, 8)
    speed_up(torch.nn.Sequential(layer), PLENTY)
    assert type(layer) is Own


def test_another_dtype_than_the_weights_is_pytorchs_to_refuse(small_counts):
    model = Model(torch.bfloat16)
    speed_up(model, PLENTY)
    with fast_small_batch(), pytest.raises(RuntimeError, match="dtype"):
        model(torch.ones(1, 96))


def test_a_thread_that_decodes_leaves_the_others_their_own_way():
    inside, done = threading.Event(), threading.Event()

    def decode():
        with fast_small_batch():
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=decode)
    thread.start()
    inside.wait(10)
    here = matmul._here.active
    done.set()
    thread.join()
    assert here is False
