"""The doctor's checks of machine, memory and prompts, each with facts of its own; and the whole screen."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken

from adacd_cli.config import Settings
from adacd_cli.counting import amount, counted
from adacd_cli.doctor import behaviour, machine, prompts
from adacd_cli.doctor.findings import (
    CANNOT,
    NO_FIT,
    SUITS,
    UNMEASURED,
    Finding,
    Section,
    Status,
    Verdict,
    put_section,
    put_verdict,
    to_json,
    verdict,
)
from adacd_cli.doctor.machine import Need
from adacd_cli.loading.files import Source
from adacd_cli.render.screen import Screen
from tests.byte_tokenizer import CHAT, START, TURN, make_tokenizer
from tests.doctors import MACHINE, PROMPTS, changed, scripted_doctor, suiting
from tests.golden import check
from tests.tiny import save_tiny

OK, WARNING, FAILURE, SKIPPED = Status.OK, Status.WARNING, Status.FAILURE, Status.SKIPPED


def seen(finding: Finding, name: str) -> Status:
    """The finding's status; its words are compared with the golden file's."""
    check("doctor", name, f"{finding.sentence}\n{finding.next_step}".strip())
    return finding.status


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 tokens"), (1, "1 token"), (2, "2 tokens"), (12000, "12,000 tokens")],
)
def test_a_count_has_its_noun(number: int, text: str) -> None:
    assert counted(number, "token") == text


def test_an_irregular_noun_brings_its_plural() -> None:
    assert (counted(1, "entry", "entries"), counted(3, "entry", "entries")) == ("1 entry", "3 entries")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 MB"),
        (13_700_000, "14 MB"),
        (999_600_000, "1.0 GB"),
        (99_400_000_000, "99.4 GB"),
        (10**12, "1,000 GB"),
    ],
)
def test_an_amount_has_two_or_three_figures(size: int, text: str) -> None:
    assert amount(size) == text


@pytest.mark.parametrize(
    ("name", "case", "facts", "settings", "status"),
    [
        ("versions", "supported", {}, {}, OK),
        ("versions", "unknown", {"required": {}}, {}, OK),
        ("versions", "too new", {"torch": "2.13.0+cpu", "transformers": "6.0.1"}, {}, WARNING),
        ("device", "cpu", {}, {}, OK),
        ("device", "gpu", {"device": "cuda", "gpu": "Test GPU", "free_bytes": None}, {}, OK),
        ("device", "idle gpu", {"idle_gpu": True}, {}, WARNING),
        ("device", "none", {"device": None, "device_error": ("No mps here.", "Take cpu.")}, {}, FAILURE),
        ("threads", "all cores", {}, {}, OK),
        ("threads", "one", {"threads": 1, "usable_cores": 1}, {}, OK),
        ("threads", "too many", {"threads": 16}, {"threads": 16}, WARNING),
        ("threads", "busy", {"busy_cores": 4.0, "threads": 4}, {}, WARNING),
        (
            "threads",
            "busy, fewer would do",
            {"busy_cores": 1.0, "threads": 2, "usable_cores": 2, "cores": 2},
            {"threads": 2},
            WARNING,
        ),
        ("bfloat16", "native", {}, {}, OK),
        ("bfloat16", "emulated", {"native_bfloat16": False}, {}, OK),
        ("bfloat16", "emulated and set", {"native_bfloat16": False}, {"dtype": "bfloat16"}, WARNING),
        ("bfloat16", "no device", {"native_bfloat16": None}, {}, SKIPPED),
        ("extras", "some", {}, {}, OK),
        ("extras", "unknown", {"extras": {}}, {}, OK),
    ],
)
def test_checks_of_the_machine(
    name: str, case: str, facts: dict[str, Any], settings: dict[str, Any], status: Status
) -> None:
    findings = machine.check(changed(MACHINE, **facts), Settings(**settings))
    assert [seen(each, f"{name}: {case}") for each in findings if each.name == name] == [status]


def test_the_machine_is_looked_at() -> None:
    here = machine.inspect_machine(Settings(threads=3))
    assert here["threads"] == 3
    assert here["torch"] == torch.__version__
    assert here["device"] == str(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    assert here["free_bytes"] is None or here["free_bytes"] > 0
    assert 1 <= here["usable_cores"] <= here["cores"]
    assert "dev" not in here["extras"]


def test_an_extra_needs_nothing_that_is_for_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    other = "linux" if sys.platform == "win32" else "win32"
    lines = [
        f'no-such-package>=1; sys_platform == "{other}" and extra == "gguf"',
        'torch>=2; extra == "gguf"',
        'no-such-package; extra == "ray"',
    ]
    monkeypatch.setattr(machine, "requires", lambda name: lines)
    assert machine.inspect_machine(Settings())["extras"] == {"gguf": True, "ray": False}


def test_a_device_that_is_not_here_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    here = machine.inspect_machine(Settings(device="cuda:7"))
    finding = machine.check_device(here)
    assert (here["device"], here["native_bfloat16"]) == (None, None)
    assert (finding.status, finding.verdict) == (FAILURE, CANNOT)
    assert finding.sentence.startswith("There is no device 'cuda:7' here")


NEED = Need("bfloat16", 8 * 10**9, 16 * 10**9, 0, 2 * 10**8, 768, 512)


@pytest.mark.parametrize(
    ("case", "need", "free", "status", "name"),
    [
        ("fits", NEED, 20 * 10**9, OK, ""),
        ("tight", NEED, 17 * 10**9, WARNING, ""),
        ("tight to load", changed(NEED, loading_bytes=3 * 10**9), 20 * 10**9, WARNING, ""),
        ("no room for an answer", NEED, 161 * 10**8, FAILURE, NO_FIT),
        ("no room for the weights", NEED, 10**9, FAILURE, NO_FIT),
        ("free memory unknown", NEED, None, SKIPPED, ""),
        ("weights unknown", changed(NEED, weights_bytes=None), 10**9, SKIPPED, ""),
    ],
)
def test_memory_needed_against_memory_that_is_free(
    case: str, need: Need, free: int | None, status: Status, name: str
) -> None:
    finding = machine.check_memory(need, free, "cuda")
    assert (seen(finding, f"memory: {case}"), finding.verdict) == (status, name)


@pytest.mark.parametrize(
    ("dtype", "flags"),
    [
        ("float32", ["--dtype", "bfloat16", "--quantize", "bnb-4bit"]),
        ("bnb-8bit", ["--quantize", "bnb-4bit"]),
        ("bnb-4bit", []),
    ],
)
def test_the_next_step_is_a_narrower_format_than_it_has(dtype: str, flags: list[str]) -> None:
    step = machine.check_memory(changed(NEED, dtype=dtype), 1, "cpu").next_step.replace(",", "").split()
    found = [word for word in step if word.startswith(("--", "bnb", "bfloat"))]
    assert found == flags


@pytest.mark.parametrize(("family", "dtype"), [("qwen3", "float32"), ("gemma2", "bfloat16")])
def test_the_need_is_what_the_model_takes(tmp_path: Path, family: str, dtype: str) -> None:
    tiny = save_tiny(family, tmp_path)
    settings = Settings(model=str(tmp_path), dtype=dtype, max_new_tokens=44)
    need = machine.estimate(settings, Source(tmp_path), torch.device("cpu"))
    size = 4 if dtype == "float32" else 2
    weights = sum(each.numel() for each in tiny.model.parameters())  # tied embeddings once
    cache = tiny.model.to(getattr(torch, dtype))(torch.ones(1, 300, dtype=torch.long)).past_key_values
    held = sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))
    if family == "gemma2":  # ours keeps what lies before a sliding window, too
        held = sum(2 * 2 * 16 * 300 * size for _ in cache.layers)
    assert (need.elements, need.weights_bytes, need.dtype) == (weights, weights * size, dtype)
    assert (need.tokens, need.cache_bytes) == (300, 2 * held)
    assert need.loading_bytes == (0 if dtype == "float32" else 4 * tiny.model.config.vocab_size * 64)


def test_on_a_gpu_weights_keep_the_format_they_are_stored_in(tmp_path: Path) -> None:
    tiny = save_tiny("qwen3", tmp_path)
    tiny.model.to(torch.bfloat16).save_pretrained(tmp_path)
    settings = Settings(model=str(tmp_path), max_new_tokens=44)
    need = machine.estimate(settings, Source(tmp_path), torch.device("cuda"))
    assert (need.dtype, need.weights_bytes) == ("bfloat16", 2 * (need.elements or 0))
    assert (need.loading_bytes, need.cache_bytes) == (
        0,
        2 * 2 * 2 * 2 * 16 * 300 * 2,
    )  # streams, layers, k and v, heads, …


def test_free_memory_is_that_of_all_gpus_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"cuda:0": 10, "cuda:1": 20, "cuda": 10, "cpu": 5}
    monkeypatch.setattr("adacd_cli.loading.hardware.free_on", lambda device: free[str(device)])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [machine.free_for(torch.device(name)) for name in ("cuda", "cuda:1", "cpu")] == [30, 20, 5]


def test_weights_that_only_a_configuration_tells_are_counted_once(tmp_path: Path) -> None:
    tiny = save_tiny("qwen3", tmp_path)
    assert machine._elements(tiny.model.config) == sum(each.numel() for each in tiny.model.parameters())


NO_SYSTEM = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}" + TURN
DROPS = "{% for m in messages %}{% if m.role != 'system' %}" + TURN + "{% endif %}{% endfor %}" + START
DEFAULT = "{% if messages[0].role != 'system' %}<|start|>system\nI am Bot.<|end|>\n{% endif %}" + CHAT
SWITCH = CHAT + "{% if not enable_thinking %}<think></think>{% endif %}"


@pytest.mark.parametrize(
    ("source", "facts"),
    [
        (CHAT, {"bos": "<s>", "leading_bos": (0, 0), "lengths": (77, 40)}),
        ("{{ bos_token }}" + CHAT, {}),
        ("{{ bos_token }}{{ bos_token }}" + CHAT, {"leading_bos": (2, 2)}),
        ("{{ bos_token }}" + NO_SYSTEM + "{% endfor %}" + START, {"system_role": "folded"}),
        ("{{ bos_token }}" + DROPS, {"system_role": "folded"}),
        ("{{ bos_token }}" + DEFAULT, {"default_system": "I am Bot."}),
        ("{{ bos_token }}{{ strftime_now('%Y') }}" + CHAT, {"dated": True}),
        (
            "{{ bos_token }}" + SWITCH,
            {"thinking": "switch", "generation_prompt": "<|end|>\n<|start|>assistant\n<think></think>"},
        ),
        (
            "{{ bos_token }}" + CHAT + "<think>",
            {"thinking": "always", "generation_prompt": "<|end|>\n<|start|>assistant\n<think>"},
        ),
        (
            "{{ bos_token }}" + CHAT.replace("<|end|>", "<|eot|>"),
            {"foreign": ("<|eot|>",), "turn_end": (), "generation_prompt": "<|eot|>\n<|start|>assistant\n"},
        ),
        (None, {"template": False, "system_role": "none", "generation_prompt": "", "turn_end": ()}),
    ],
)
def test_what_a_template_does_is_seen(source: str | None, facts: dict[str, Any]) -> None:
    found = prompts.inspect_prompts(make_tokenizer(source), Settings())
    lengths = facts.pop("lengths", found.lengths)
    expected = changed(PROMPTS, lengths=lengths, turn_end=("<|end|>", "<|start|>"))
    assert found == changed(expected, **facts)


def test_both_streams_equal_is_a_failure() -> None:
    alone = "{{ messages[-1].content.split('\\n')[-1] }}"
    (finding,) = prompts.check(make_tokenizer(alone), Settings(), frozenset())
    assert (finding.status, finding.verdict, finding.facts) == (FAILURE, CANNOT, {"error": "PromptError"})


LONG = "You are  a " + 12 * "very " + "kind cook."


@pytest.mark.parametrize(
    ("case", "check", "facts", "status"),
    [
        ("found", prompts.check_template, {}, OK),
        ("own text", prompts.check_template, {"default_system": LONG, "dated": True}, OK),
        ("none", prompts.check_template, {"template": False}, WARNING),
        ("foreign", prompts.check_template, {"foreign": ("<|a|>", "<|b|>")}, WARNING),
        ("used", prompts.check_system_role, {}, OK),
        ("folded", prompts.check_system_role, {"system_role": "folded"}, OK),
        ("none", prompts.check_system_role, {"system_role": "none"}, OK),
        ("once", prompts.check_bos, {}, OK),
        ("twice", prompts.check_bos, {"leading_bos": (2, 2)}, WARNING),
        ("missing", prompts.check_bos, {"leading_bos": (0, 0)}, WARNING),
        ("never", prompts.check_bos, {"leading_bos": (0, 0), "adds_bos": False}, OK),
        ("none", prompts.check_bos, {"bos": None, "leading_bos": (0, 0)}, OK),
        ("same", prompts.check_generation_prompt, {}, OK),
        ("empty", prompts.check_generation_prompt, {"generation_prompt": "\n"}, OK),
        ("different", prompts.check_generation_prompt, {"same_end": False}, FAILURE),
    ],
)
def test_checks_of_the_prompts(case: str, check: Any, facts: dict[str, Any], status: Status) -> None:
    finding = check(changed(PROMPTS, **facts))
    assert seen(finding, f"{finding.name}: {case}") is status


@pytest.mark.parametrize("placement", ["user-start", "user-end"])
def test_where_the_contrast_prompt_stands(placement: str) -> None:
    assert seen(prompts.check_system_role(PROMPTS, placement), f"system role: {placement}") is OK


@pytest.mark.parametrize(
    ("thinking", "requested", "status"),
    [
        ("none", False, OK),
        ("none", True, WARNING),
        ("switch", False, OK),
        ("switch", True, OK),
        ("always", False, WARNING),
    ],
)
def test_the_check_of_thinking(thinking: str, requested: bool, status: Status) -> None:
    finding = prompts.check_thinking(changed(PROMPTS, thinking=thinking), requested=requested)
    assert seen(finding, f"thinking: {thinking}{', requested' if requested else ''}") is status


def test_ends_that_the_template_does_not_write_let_answers_run_on() -> None:
    tokenizer = make_tokenizer(CHAT, AddedToken("<|stop|>"))
    end, stop = (tokenizer.convert_tokens_to_ids(name) for name in ("<|end|>", "<|stop|>"))
    cases = {
        "known": frozenset({end, stop}),
        "another": frozenset({stop}),
        "none": frozenset[int](),
    }
    statuses = [
        seen(prompts.check_ends(PROMPTS, ends, tokenizer), f"end of turn: {case}")
        for case, ends in cases.items()
    ]
    assert statuses == [OK, WARNING, WARNING]


def test_the_gravest_finding_decides() -> None:
    plain = Finding("a", OK, "Fine.")
    suits = Finding("b", OK, "It suits.", verdict=SUITS)
    skip = Finding("c", SKIPPED, "Not asked.", verdict=UNMEASURED)
    fails = Finding("d", FAILURE, "It fails.", verdict=CANNOT)
    assert verdict([Section("x", (plain, suits))]) == Verdict(SUITS, "It suits.")
    assert verdict([Section("x", (plain, suits)), Section("y", (skip,))]) == Verdict(UNMEASURED, "Not asked.")
    assert verdict([Section("x", (skip, fails)), Section("y", (suits,))]) == Verdict(CANNOT, "It fails.")


@pytest.fixture(scope="module")
def examined() -> list[Section]:
    """Everything about a scripted model on a scripted machine."""
    model, settings = scripted_doctor(suiting), Settings(model="scripted")
    answers = behaviour.run_questions(model, settings, lambda line: None)
    findings = prompts.check(model.tokenizer, settings, model.eos_ids)
    return [
        Section("Machine", machine.check(changed(MACHINE, busy_cores=5.0), settings)),
        Section("Model scripted", (machine.check_memory(changed(NEED, weights_bytes=10**11), 10**9, "cpu"),)),
        Section("Prompts", findings),
        Section("Behaviour", behaviour.check(answers)),
    ]


def written(sections: list[Section], *, width: int, encoding: str | None) -> str:
    out = io.StringIO()
    screen = Screen(out, "auto", width)
    for section in sections:
        put_section(screen, section, encoding)
    put_verdict(screen, sections)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "width", "encoding"),
    [("the whole screen", 80, "utf-8"), ("the whole screen, narrow", 40, "latin-1")],
)
def test_the_whole_screen(examined: list[Section], name: str, width: int, encoding: str) -> None:
    screen = written(examined, width=width, encoding=encoding)
    check("doctor", name, screen)
    assert max(map(len, screen.splitlines())) <= width


def test_json_says_what_the_screen_says(examined: list[Section]) -> None:
    found = to_json(examined, {"device": "cpu"}, {"name": "scripted"})
    findings = [finding for section in examined for finding in section.findings]
    assert {key: found[key] for key in ("verdict", "reason", "machine", "model")} == {
        "verdict": NO_FIT,
        "reason": findings[5].sentence,
        "machine": {"device": "cpu"},
        "model": {"name": "scripted"},
    }
    assert [
        (each["name"], each["status"], each["sentence"], each["next_step"]) for each in found["findings"]
    ] == [(each.name, each.status.value, each.sentence, each.next_step) for each in findings]
    assert found["findings"][5] == {
        "section": "Model scripted",
        "name": "memory",
        "status": "failure",
        "sentence": findings[5].sentence,
        "next_step": findings[5].next_step,
        "facts": {
            "dtype": "bfloat16",
            "elements": 8_000_000_000,
            "weights_bytes": 100_000_000_000,
            "loading_bytes": 0,
            "cache_bytes": 200_000_000,
            "tokens": 768,
            "max_new_tokens": 512,
            "free_bytes": 1_000_000_000,
        },
    }
