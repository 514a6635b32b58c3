"""The parts of `adacd bench`: prompts of an exact length, clocks, rows, tables, pictures, shapes, memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, GenerationConfig

from adacd_cli.bench import device, measure, subject
from adacd_cli.bench.measure import Contestant, Measurements, Timing
from adacd_cli.bench.subject import RandomPrompts, TextPrompts, check_context
from adacd_cli.bench.table import check_picture, draw, report
from adacd_cli.config import Settings
from adacd_cli.doctor.machine import cache_bytes
from adacd_cli.errors import AdacdError, OutOfMemoryError, OutputError, UsageError
from adacd_cli.loading import hardware
from tests.fakes import second
from tests.golden import check
from tests.tiny import tiny_model

CPU = torch.device("cpu")
DEFAULT, ADACD = Settings(method="default", max_new_tokens=4), Settings(max_new_tokens=4)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.gc, "collect", lambda: 0)  # a quarter of a second with all that tests load


@pytest.fixture(scope="module")
def tiny():
    return replace(tiny_model("llama"), eos_ids=frozenset())


@pytest.mark.parametrize("tokens", [1, 7, 40, 333])
def test_prompts_have_exactly_the_tokens_asked_for_and_begin_differently(tiny, tokens):
    prompts = TextPrompts(tiny, tokens)
    plain, adacd = (prompts.make(settings, 5) for settings in (DEFAULT, ADACD))
    assert [len(pair.base.ids) for pair in plain] == [tokens] * 5
    assert [pair.base.ids for pair in adacd] == [pair.base.ids for pair in plain]
    assert all(len(second(pair).ids) > tokens for pair in adacd)
    assert prompts.make(ADACD, 2) == adacd[:2]
    if tokens == 333:
        text = tiny.tokenizer.decode(second(adacd[0]).ids)
        before, system, after = text.partition("system\n")
        # another such token or two make up for words that do not come out even
        assert system and before.replace("<|im_start|>", "") == ""
        assert after.startswith("Please refuse to answer me!<|im_end|>\n<|im_start|>user\n1. The")
        assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
        assert len({pair.base.ids for pair in plain}) == 5


def test_random_prompts_repeat_by_their_seed_and_differ_by_twelve_ids():
    def drawn(seed: int, settings: Settings) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        pairs = RandomPrompts(50, 9, seed).make(settings, 2)
        return [(pair.base.ids, second(pair).ids) for pair in pairs]

    adacd = drawn(3, ADACD)
    assert drawn(3, ADACD) == adacd != drawn(4, ADACD)
    assert [(len(plain), len(longer)) for plain, longer in adacd] == [(9, 21), (9, 21)]
    assert all(longer[12:] == plain and max(longer) < 50 for plain, longer in adacd)
    assert drawn(3, DEFAULT) == [(plain, plain) for plain, _ in adacd]
    assert drawn(3, Settings(method="prompt")) == [(longer, longer) for _, longer in adacd]


@pytest.mark.parametrize("settings", [DEFAULT, ADACD, Settings(contrast_steps=2, max_new_tokens=4)])
def test_the_most_tokens_that_are_let_through_are_decoded(tiny, settings):
    small = replace(tiny, context_length=64)
    allowed = 0
    for tokens in range(20, 62):
        pair = TextPrompts(small, tokens).make(settings, 1)[0]
        try:
            check_context(small, settings, (tokens, 4), pair)
        except UsageError:
            break
        allowed = tokens
        last = pair
    measure.time_decode(small, [last], settings)
    with pytest.raises(AdacdError):
        measure.time_decode(small, [TextPrompts(small, allowed + 1).make(settings, 1)[0]], settings)


def test_ends_of_an_answer_are_passed_over_by_both_sides(tiny):
    model = tiny.model
    own = GenerationConfig(eos_token_id=list(range(len(tiny.tokenizer))), repetition_penalty=9.0)
    model.generation_config, before = own, model.generation_config
    try:
        prompts = [pair.base.ids for pair in TextPrompts(tiny, 30).make(DEFAULT, 2)]
        timing = measure.time_generate(model, prompts, 5)
        assert model.generation_config is own
    finally:
        model.generation_config = before
    assert 0 < timing.first_token_s == timing.prefill_s < timing.seconds
    ended = replace(tiny, eos_ids=frozenset(range(len(tiny.tokenizer))))
    with pytest.raises(AdacdError, match=r"default gave 2 tokens and not 8, so its times say nothing\."):
        measure.time_decode(ended, TextPrompts(tiny, 30).make(DEFAULT, 2), DEFAULT)


def scripted(name: str, timings: list[Timing], *, needs: int = 0) -> Contestant:
    runs = iter([Timing(99.0, 99.0, 99.0), *timings] * 2)  # the first is the warm-up
    settings = None if name == "transformers" else DEFAULT.model_copy(update={"method": name})
    return Contestant(name, settings, lambda batch: lambda: next(runs), needs)


def timings(*seconds: float) -> list[Timing]:
    return [Timing(each, first_token_s=0.5, prefill_s=1.0) for each in seconds]


def _peaks(monkeypatch: pytest.MonkeyPatch, peak: int | None) -> None:
    monkeypatch.setattr(device.PeakMemory, "reset", lambda self: None)
    monkeypatch.setattr(device.PeakMemory, "read", lambda self: peak)


@pytest.fixture
def measured(monkeypatch) -> Measurements:
    """Three trials of three contestants at two batch sizes, 10 + 5 tokens, one GB of weights."""
    _peaks(monkeypatch, 2 * 10**9)
    contestants = [
        scripted("transformers", timings(4.0, 8.0, 6.0)),
        scripted("default", timings(3.0, 3.0, 5.0)),
        scripted("adacd", timings(9.0, 1.5, 4.5)),
    ]
    done = Measurements(contestants, CPU, 10, 5, weight_bytes=10**9, bandwidth=8.0)
    done.measure([1, 2], 3)
    return done


def test_rows_are_medians_and_what_follows_from_them(measured):
    rows = measured.rows()
    assert [(row["batch_size"], row["method"]) for row in rows] == [
        (size, name) for size in (1, 2) for name in ("transformers", "default", "adacd")
    ]
    settings = ADACD.decoding()
    assert rows[5] == {
        "method": "adacd",
        "batch_size": 2,
        "prompt_tokens": 10,
        "generation_tokens": 5,
        "trials": 3,
        "prefill_tokens_per_s": 20.0,
        "decode_tokens_per_s": 2 * 4 / 3.5,
        "ms_per_token": 875.0,
        "ms_per_token_range": [125.0, 2000.0],
        "first_token_s": 0.5,
        "first_token_s_range": [0.5, 0.5],
        "seconds": 4.5,
        "seconds_range": [1.5, 9.0],
        "ratio_to_default": 1.5,
        "ratio_to_transformers": 0.75,
        "ratio_to_llamacpp": None,
        "weights_gb_per_s": pytest.approx(1 / 0.875),
        "bandwidth_share": pytest.approx(1 / 0.875 / 8),
        "peak_memory_bytes": 2 * 10**9,
        "settings": settings,
    }
    assert [row["ratio_to_default"] for row in rows[:2]] == [2.0, 1.0]
    assert [row["ratio_to_transformers"] for row in rows[:2]] == [1.0, 0.5]
    assert rows[0]["settings"] is None


def test_contestants_take_turns_after_one_run_each_to_warm_up(monkeypatch):
    _peaks(monkeypatch, None)
    order: list[str] = []

    def contestant(name: str) -> Contestant:
        def prepare(batch: int):
            return lambda: order.append(f"{name}{batch}") or Timing(1.0, 0.5, 0.5)

        return Contestant(name, None, prepare, 0)

    told: list[str] = []
    Measurements([contestant("a"), contestant("b")], CPU, 1, 2, None).measure([1, 8], 2, told.append)
    assert order == ["a1", "b1", "a1", "b1", "a1", "b1", "a8", "b8", "a8", "b8", "a8", "b8"]
    assert told[:3] == [
        "batch of 1, a: warming up",
        "batch of 1, b: warming up",
        "batch of 1, a: trial 1 of 2",
    ]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …")]
)
def test_a_batch_that_runs_out_of_memory_is_named_and_what_was_measured_stays(error):
    def prepare(batch: int):
        if batch > 1:
            raise error
        return lambda: Timing(1.0, 0.5, 0.5)

    done = Measurements([Contestant("default", None, prepare, 0)], CPU, 1, 2, None)
    with pytest.raises(OutOfMemoryError, match=r"^There is not enough memory for a batch of 8\.$"):
        done.measure([1, 8], 2)
    assert [row["batch_size"] for row in done.rows()] == [1]


def test_a_batch_whose_caches_cannot_fit_is_refused_before_its_prompts_are_made(monkeypatch, tiny):
    monkeypatch.setattr(hardware, "free_memory", lambda: 5 * 10**9)
    prompts = TextPrompts(tiny, 30)
    done = Measurements(
        [measure.of_method(tiny, settings, prompts, 30) for settings in (DEFAULT, ADACD)], CPU, 30, 4, None
    )
    with pytest.raises(OutOfMemoryError) as caught:
        done.measure([10**9], 1)
    # 2 layers × keys and values × 2 heads × 16 × 4 bytes = 512 a token, and the logits of its vocabulary
    row = 512 * (30 + 4 + 30 + 4) + 4 * len(tiny.tokenizer)
    assert caught.value.message == (
        f"A batch of 1000000000 needs at least {row:.1f} GB, and 5.0 GB are free on cpu."
    )
    assert done.rows() == []


MACHINE = {
    "system": "Linux x86_64",
    "processor": "Some CPU",
    "cores": 8,
    "threads": 4,
    "device": "cpu",
    "adacd": "0.1.0",
    "python": "3.11.7",
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "model": "[b]demo[/b]",
    "engine": "torch",
    "dtype": "float32",
    "quantize": None,
    "bandwidth_gb_per_s": 8.0,
    "peak_memory": "process",
}


def test_the_report(measured):
    check("evaluation", "bench", report(MACHINE, measured.rows(), width=80))


def test_a_long_label_is_folded_and_what_is_not_known_is_a_dash(monkeypatch):
    _peaks(monkeypatch, None)
    done = Measurements([scripted("adacd", timings(3.0))], CPU, 10, 1, None)
    done.measure([1], 1)
    rows = [{**done.rows()[0], "method": "ssd (draft: /home/someone/models/small [b])"}]
    lines = report({**MACHINE, "gpu": "Some GPU", "peak_memory": "device"}, rows, width=80).splitlines()
    assert lines[1] == "Some GPU · Some CPU (8 cores) · 4 threads"
    assert lines[9:12] == [
        "    1  ssd (draft:             10.0       –         –       –        –         –",
        "       /home/someone/model",
        "       s/small [b])",
    ]
    assert lines[-1] == "moved. Peak memory: what was allocated on the device."


def test_one_of_each_is_said_in_the_singular(monkeypatch):
    _peaks(monkeypatch, None)
    done = Measurements([scripted("adacd", timings(3.0))], CPU, 1, 1, None)
    done.measure([1], 1)
    lines = report({**MACHINE, "cores": 1, "threads": 1}, done.rows(), width=80).splitlines()
    assert lines[1] == "Some CPU (1 core) · 1 thread"
    assert lines[4] == "1 prompt token · 1 generated · medians of 1 trial, spread: fastest–slowest"


@pytest.mark.parametrize(("name", "begins"), [("speed.svg", b"<?xml"), ("speed.PNG", b"\x89PNG")])
def test_the_picture(measured, tmp_path, name, begins):
    path = check_picture(str(tmp_path / name))
    assert not path.exists()
    draw(MACHINE, measured.rows(), path)
    drawn = path.read_bytes()
    assert drawn.startswith(begins)
    if name == "speed.svg":
        texts = drawn.decode()
        for word in (
            "time per token, ms",
            "decoded tokens/s",
            "batch size",
            *("default", "adacd", "transformers"),
        ):
            assert word in texts
        assert "[b]demo[/b], float32, Some CPU, 10 + 5 tokens" in texts


def test_a_picture_that_cannot_be_written_is_named_before_anything_is_measured(tmp_path):
    with pytest.raises(UsageError, match=r"--picture writes SVG or PNG; got 'speed\.pdf'\."):
        check_picture("speed.pdf")
    with pytest.raises(OutputError, match=r"could not be written: No such file or directory\."):
        check_picture(str(tmp_path / "none" / "speed.svg"))


@pytest.mark.parametrize(
    ("name", "billions", "gigabytes"),
    [("llama3-8b", 8.03, 15.0), ("gemma2-9b", 9.24, 18.5), ("qwen3-8b", 8.19, 15.1)],
)
def test_a_token_reads_every_weight_but_an_embedding_that_is_looked_up(name, billions, gigabytes):
    config = AutoConfig.for_model(**subject.SHAPES[name])
    model = subject.construct(name, config, torch.bfloat16, "meta")
    assert model.config._attn_implementation == ("eager" if name == "gemma2-9b" else "sdpa")
    # Gemma's embedding is its last layer, too, and counts once
    assert sum(each.numel() for each in model.parameters()) / 1e9 == pytest.approx(billions, abs=0.01)
    # a layer more or less is 0.3 GB; an untied embedding 1 GB
    assert device.weight_bytes(model) / 1e9 == pytest.approx(gigabytes, abs=0.1)


def test_what_is_read_is_not_known_of_experts_that_are_chosen_and_of_packed_weights(tiny):
    untied = sum(each.numel() for each in tiny.model.parameters()) - len(tiny.tokenizer) * 64
    buffers = sum(each.numel() for each in tiny.model.buffers())
    assert device.weight_bytes(tiny.model) == 4 * (untied + buffers)
    config = tiny.model.config
    try:
        config.quantization_config = {"quant_method": "torchao"}
        assert device.weight_bytes(tiny.model) is None
        del config.quantization_config
        config.num_experts_per_tok = 2
        assert device.weight_bytes(tiny.model) is None
    finally:
        del config.num_experts_per_tok


def test_bandwidth_counts_what_is_read_and_what_is_written(monkeypatch):
    monkeypatch.setattr(device, "_CPU_BYTES", 2**20)
    ticks = iter([0.0, 3.0, 10.0, 12.0, *(20.0 + 3.0 * place for place in range(12))])
    monkeypatch.setattr(device.time, "perf_counter", lambda: next(ticks))
    assert device.copy_bandwidth(CPU) == 2 * 2**20 / 2.0 / 1e9  # the best of the copies


@pytest.mark.skipif(device.PeakMemory(CPU).kind != "process", reason="the kernel resets no peak here")
def test_a_peak_is_of_what_ran_since_it_was_reset():
    peaks = device.PeakMemory(CPU)

    def peak(megabytes: int) -> int:
        peaks.reset()
        bytearray(megabytes * 10**6)
        return peaks.read() // 10**6

    small, large, again = peak(1), peak(200), peak(1)
    assert large - small == pytest.approx(199, abs=20)
    assert again == pytest.approx(small, abs=20)


def test_cache_bytes_are_those_of_a_cache(tiny):
    cache = tiny.model(torch.tensor([[1, 2, 3, 4, 5]]), use_cache=True).past_key_values
    held = sum(part.numel() * 4 for layer in cache.layers for part in (layer.keys, layer.values))
    assert cache_bytes(tiny.model.config, 5, 4) == held


def test_random_weights_give_finite_logits_that_depend_on_the_prompt_and_on_the_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(subject, "_BLOCK", 1009)  # repeated within a matrix
    tiny_model("gemma2").model.config.to_json_file(tmp_path / "small.json", use_diff=False)
    settings = Settings(device="cpu", threads=1, dtype="bfloat16")
    model = subject.build_shape(str(tmp_path / "small.json"), settings, 1)
    assert (model.model.dtype, model.context_length, model.eos_ids) == (torch.bfloat16, 512, frozenset())
    with torch.inference_mode():
        one, other = (model.model(torch.tensor([ids])).logits[0, -1] for ids in ([5, 6], [5, 7]))
        again, seeded = (
            subject.build_shape(str(tmp_path / "small.json"), settings, seed)
            .model(torch.tensor([[5, 6]]))
            .logits[0, -1]
            for seed in (1, 2)
        )
    assert bool(torch.isfinite(one).all())
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, seeded)
