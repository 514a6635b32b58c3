"""Devices, number formats, threads and memory, on machines that are not this one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adacd_cli.errors import AdacdError, DeviceError, MissingExtraError, OutOfMemoryError
from adacd_cli.loading import hardware, machine
from adacd_cli.loading.files import Checkpoint
from adacd_cli.loading.hardware import choose_device, choose_dtype, placement, weight_bytes
from adacd_cli.loading.machine import Load

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MANY = 100_000_000
"""Weights from which a CPU may compute in bfloat16."""


def _has(monkeypatch: pytest.MonkeyPatch, *, gpus: int = 0, mps: bool = False, free: int = 10**10) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (free, free))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def _error(kind: type[AdacdError], action: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(kind) as caught:
        action()
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize(
    ("gpus", "mps", "name", "device"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (2, True, "auto", "cuda"),
        (2, False, "cuda:1", "cuda:1"),
        (1, False, "cuda", "cuda"),
        (1, False, "cpu", "cpu"),
    ],
)
def test_devices(monkeypatch: pytest.MonkeyPatch, gpus: int, mps: bool, name: str, device: str) -> None:
    _has(monkeypatch, gpus=gpus, mps=mps)
    assert choose_device(name) == torch.device(device)


def test_devices_that_are_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    _has(monkeypatch, gpus=2)
    assert _error(DeviceError, lambda: choose_device("cuda:3")) == (
        "There is no device 'cuda:3' here.",
        "Available: auto, cpu, cuda:0, cuda:1.",
    )
    _has(monkeypatch)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert _error(DeviceError, lambda: choose_device("cuda")) == (
        "There is no device 'cuda' here: this PyTorch is built without CUDA.",
        "Available: auto, cpu.",
    )
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert _error(DeviceError, lambda: choose_device("cuda:0"))[0] == (
        "There is no device 'cuda:0' here: no CUDA GPU was found."
    )
    assert _error(DeviceError, lambda: choose_device("mps"))[0] == "There is no device 'mps' here."


@pytest.mark.parametrize(
    ("name", "stored", "device", "elements", "native", "dtype"),
    [
        ("auto", "BF16", CPU, MANY, True, torch.bfloat16),
        ("auto", "F16", CPU, MANY, True, torch.bfloat16),
        ("auto", "BF16", CPU, MANY - 1, True, torch.float32),
        ("auto", "GGUF", CPU, None, True, torch.bfloat16),
        ("auto", "F32", CPU, MANY, True, torch.float32),
        ("auto", "BF16", CPU, MANY, False, torch.float32),
        ("auto", "BF16", CUDA, MANY, False, "auto"),
        ("float16", "F32", CPU, MANY, False, torch.float16),
        ("bfloat16", "F32", CUDA, MANY, False, torch.bfloat16),
    ],
)
def test_number_formats(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    stored: str,
    device: torch.device,
    elements: int | None,
    native: bool,
    dtype: Any,
) -> None:
    monkeypatch.setattr(hardware, "_computes_bfloat16", lambda: native)
    assert choose_dtype(name, stored, device, elements) == dtype


@pytest.mark.parametrize(
    ("capability", "bf16", "amx", "native"),
    [
        ("AVX512", True, False, True),
        ("AVX512", False, True, True),
        ("AVX512", False, False, False),
        ("AVX2", True, True, False),  # PyTorch was told to leave the wide instructions alone
        ("DEFAULT", False, False, False),
    ],
)
def test_bfloat16_only_where_the_cpu_has_it(
    monkeypatch: pytest.MonkeyPatch, capability: str, bf16: bool, amx: bool, native: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert choose_dtype("auto", "BF16", CPU, MANY) == (torch.bfloat16 if native else torch.float32)


def test_weights_are_placed_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    _has(monkeypatch, gpus=2, free=1000)
    monkeypatch.setattr(hardware, "find_spec", lambda name: object())
    assert placement(CUDA, 700, "m") == {"device_map": {"": CUDA}}
    assert placement(CUDA, 900, "m") == {"device_map": "auto"}  # no room for caches on one of them
    assert placement(CUDA, None, "m") == {"device_map": "auto"}
    assert placement(torch.device("cuda:1"), 900, "m") == {"device_map": {"": torch.device("cuda:1")}}
    _has(monkeypatch, gpus=1, free=1000)
    assert placement(CUDA, 900, "m") == {"device_map": {"": CUDA}}
    assert placement(CPU, 900, "m") == {}
    monkeypatch.setattr(hardware, "find_spec", lambda name: None)
    assert placement(CUDA, 900, "m") == {}


def test_several_gpus_need_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    _has(monkeypatch, gpus=2, free=1000)
    monkeypatch.setattr(hardware, "find_spec", lambda name: None)
    assert _error(MissingExtraError, lambda: placement(CUDA, 2000, "m")) == (
        "A model across several GPUs needs accelerate, which is not installed.",
        "pip install accelerate",
    )


def test_weights_that_cannot_fit_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    hint = "Use --quantize bnb-4bit, --dtype bfloat16, or a smaller model."
    monkeypatch.setattr(hardware, "free_memory", lambda: 8 * 10**9)
    assert _error(OutOfMemoryError, lambda: placement(CPU, 16 * 10**9, "m")) == (
        "The weights of m need 16.0 GB, and 8.0 GB are free on cpu.",
        hint,
    )
    _has(monkeypatch, gpus=1, free=24 * 10**9)
    assert _error(OutOfMemoryError, lambda: placement(CUDA, 32 * 10**9, "m"))[0] == (
        "The weights of m need 32.0 GB, and 24.0 GB are free on cuda."
    )


def test_how_many_bytes_weights_take() -> None:
    plain = Checkpoint(Path(), {}, "BF16", elements=1000, stored_bytes=2000)
    assert weight_bytes(plain, torch.float32, None) == 4000
    assert weight_bytes(plain, "auto", None) == 2000
    assert weight_bytes(plain, torch.float32, "bnb-4bit") == 600
    quantised = Checkpoint(Path(), {"quantization_config": {}}, "U8", elements=500, stored_bytes=600)
    assert weight_bytes(quantised, torch.float32, None) == 600


@pytest.mark.parametrize(
    ("name", "library"),
    [("bnb-4bit", "bitsandbytes"), ("bnb-8bit", "bitsandbytes"), ("torchao-int8", "torchao")],
)
def test_quantisation_names_the_package_it_lacks(
    monkeypatch: pytest.MonkeyPatch, name: str, library: str
) -> None:
    monkeypatch.setattr(hardware, "find_spec", lambda package: None if package == library else object())
    assert _error(MissingExtraError, lambda: hardware.quantization_config(name, torch.float32, CPU)) == (
        f"--quantize {name} needs {library}, which is not installed.",
        f"pip install {library}",
    )


def test_torchao_int4_is_for_gpus() -> None:
    assert _error(DeviceError, lambda: hardware.quantization_config("torchao-int4", torch.float32, CPU)) == (
        "--quantize torchao-int4 runs on a CUDA GPU only, and the device is cpu.",
        "Use --quantize torchao-int8 or bnb-4bit.",
    )


def _cores(
    monkeypatch: pytest.MonkeyPatch,
    *,
    total: int = 16,
    allowed: int = 16,
    quota: int | None = None,
    others: float = 0.0,
    openmp: str = "",
) -> int:
    monkeypatch.setattr("os.cpu_count", lambda: total)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(allowed)), raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(machine, "_quota", lambda: quota)
    monkeypatch.setattr(Load, "busy_cores", lambda self: others)
    monkeypatch.setenv("OMP_NUM_THREADS", openmp)
    return Load().free_cores()


def test_threads_are_the_free_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _cores(monkeypatch) == 16
    assert _cores(monkeypatch, others=3.4) == 13
    assert _cores(monkeypatch, others=40) == 1
    assert _cores(monkeypatch, allowed=4) == 4
    assert _cores(monkeypatch, allowed=4, others=3) == 4  # 13 cores are free: more than we may use
    assert _cores(monkeypatch, quota=2) == 2
    assert _cores(monkeypatch, openmp="3") == 3
    assert _cores(monkeypatch, openmp="auto") == 16


def test_others_are_as_busy_as_they_were_on_average_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """In two seconds the machine worked for seven and this process for three: others kept two cores busy."""
    clock = iter([10.0, 12.0, 12.0])
    work = iter([(100.0, 1.0), (107.0, 4.0)])
    monkeypatch.setattr("adacd_cli.loading.machine.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(machine, "_busy_seconds", lambda: next(work))
    assert Load().busy_cores() == 2.0


def test_without_the_kernels_numbers_the_load_average_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_busy_seconds", lambda: None)
    monkeypatch.setattr("os.getloadavg", lambda: (1.5, 9.0, 9.0))
    assert Load().busy_cores() == 1.5


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these files")


@on_linux
def test_the_kernels_numbers_are_read() -> None:
    everyone, own = machine._busy_seconds() or (0.0, 0.0)
    assert everyone >= own > 0


@on_linux
def test_the_limits_of_a_container_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_cgroups", lambda controller: [tmp_path])
    assert machine._quota() is None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine._quota() is None
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert machine._quota() == 2
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 200000\nactive_file 100000\n")
    assert machine.free_memory() == 400_000
