"""The doctor's checks of machine, memory and prompts, each with facts of its own; and the whole screen."""

# ruff: noqa: E501  # tables of exact sentences

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken

from adacd_cli.config import Settings
from adacd_cli.counting import amount, counted
from adacd_cli.doctor import behaviour, counts, environment, machine, memory, pair, report, template
from adacd_cli.doctor.finding import Finding, Section, Status, Verdict
from adacd_cli.doctor.memory import Need
from adacd_cli.doctor.verdict import CANNOT, NO_FIT, SUITS, UNMEASURED, verdict
from adacd_cli.loading.source import Source
from adacd_cli.render.screen import Screen
from tests.byte_tokenizer import CHAT, START, TURN, make_tokenizer
from tests.doctors import MACHINE, PAIR, changed, scripted_doctor, suiting
from tests.tiny import save_tiny

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
OK, WARNING, FAILURE, SKIPPED = Status.OK, Status.WARNING, Status.FAILURE, Status.SKIPPED


def said(finding: Finding) -> tuple[Status, str, str]:
    return finding.status, finding.sentence, finding.next_step


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


MACHINE_CASES: list[tuple[str, dict[str, Any], dict[str, Any], tuple[Status, str, str]]] = [
    (
        "versions",
        {},
        {},
        (
            OK,
            "adacd 0.1.0, Python 3.11.7, torch 2.13.0, transformers 5.23.0, of versions that adacd asks for.",
            "",
        ),
    ),
    (
        "versions",
        {"allowed": {}},
        {},
        (OK, "adacd 0.1.0, Python 3.11.7, torch 2.13.0, transformers 5.23.0.", ""),
    ),
    (
        "versions",
        {"packages": {"torch": "2.13.0+cpu", "transformers": "6.0.1"}},
        {},
        (
            WARNING,
            "adacd 0.1.0, Python 3.11.7, torch 2.13.0+cpu, transformers 6.0.1; not of a version that adacd was made for: transformers 6.0.1 (asked for: <6,>=5.20).",
            "pip install --upgrade adacd, in an environment of its own.",
        ),
    ),
    ("device", {}, {}, (OK, "Device cpu (Test CPU), with 16.0 GB of memory free.", "")),
    (
        "device",
        {"device": "cuda", "gpu": "Test GPU", "free_bytes": None},
        {},
        (OK, "Device cuda (Test GPU).", ""),
    ),
    (
        "device",
        {"idle_gpu": True},
        {},
        (
            WARNING,
            "Device cpu (Test CPU), with 16.0 GB of memory free. The NVIDIA GPU here is not used.",
            "Leave --device out, and install a PyTorch built for CUDA if that does not help.",
        ),
    ),
    (
        "device",
        {"device": None, "device_error": ("There is no device 'mps' here.", "Available: auto, cpu.")},
        {},
        (FAILURE, "There is no device 'mps' here.", "Available: auto, cpu."),
    ),
    ("threads", {}, {}, (OK, "8 threads on 8 cores.", "")),
    (
        "threads",
        {"threads": 1, "usable_cores": 1},
        {},
        (OK, "1 thread on 1 core (of 8, which is all this process may use).", ""),
    ),
    (
        "threads",
        {"threads": 16},
        {"threads": 16},
        (
            WARNING,
            "16 threads on 8 cores: more threads than cores make decoding many times slower.",
            "Use --threads 8, or leave it out.",
        ),
    ),
    (
        "threads",
        {"busy_cores": 4.0, "threads": 4},
        {},
        (
            WARNING,
            "4 threads on 8 cores; other programs keep 4.0 cores busy, so it will be slow.",
            "Wait for them, or end them.",
        ),
    ),
    (
        "threads",
        {"busy_cores": 1.0, "threads": 2, "usable_cores": 2, "cores": 2},
        {"threads": 2},
        (
            WARNING,
            "2 threads on 2 cores; other programs keep 1.0 core busy, so it will be slow.",
            "Wait for them, or let adacd have fewer threads: --threads 1.",
        ),
    ),
    ("bfloat16", {}, {}, (OK, "bfloat16 is native here.", "")),
    (
        "bfloat16",
        {"native_bfloat16": False},
        {},
        (OK, "bfloat16 is emulated here, so models run in another number format.", ""),
    ),
    (
        "bfloat16",
        {"native_bfloat16": False},
        {"dtype": "bfloat16"},
        (
            WARNING,
            "bfloat16 is emulated here, and slower than float32.",
            "Leave --dtype out where memory has room for float32.",
        ),
    ),
    (
        "bfloat16",
        {"native_bfloat16": None},
        {},
        (SKIPPED, "bfloat16 was not looked at: there is no device.", ""),
    ),
    ("extras", {}, {}, (OK, "Optional extras here: gguf; not installed: ray.", "")),
    ("extras", {"extras": {}}, {}, (OK, "Which extras are here is not known.", "")),
]


@pytest.mark.parametrize(("name", "facts", "settings", "expected"), MACHINE_CASES)
def test_checks_of_the_machine(
    name: str, facts: dict[str, Any], settings: dict[str, Any], expected: tuple[Status, str, str]
) -> None:
    findings = environment.examine(changed(MACHINE, **facts), Settings(**settings))
    assert [said(each) for each in findings if each.name == name] == [expected]


def test_the_machine_is_looked_at() -> None:
    here = machine.look(Settings(threads=3))
    assert here.threads == 3
    assert here.packages["torch"] == torch.__version__
    assert here.device == str(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    assert here.free_bytes is None or here.free_bytes > 0
    assert 1 <= here.usable_cores <= here.cores
    assert "dev" not in here.extras


def test_a_device_that_is_not_here_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    here = machine.look(Settings(device="cuda:7"))
    finding = environment.check_device(here)
    assert (here.device, here.native_bfloat16) == (None, None)
    assert (finding.status, finding.verdict) == (FAILURE, CANNOT)
    assert finding.sentence.startswith("There is no device 'cuda:7' here")


NEED = Need("m", "bfloat16", 8 * 10**9, 16 * 10**9, 0, 2 * 10**8, 768, 512)
WHOLE = "Its weights need 16.0 GB in bfloat16, and both streams of a prompt and an answer, 768 tokens in all, 200 MB"


@pytest.mark.parametrize(
    ("need", "free", "expected", "name"),
    [
        (NEED, 20 * 10**9, (OK, f"{WHOLE}; 20.0 GB are free on cuda.", ""), ""),
        (
            NEED,
            17 * 10**9,
            (
                WARNING,
                f"{WHOLE}; that is tight: 17.0 GB are free on cuda.",
                "Use --quantize bnb-4bit, or end other programs first.",
            ),
            "",
        ),
        (
            changed(NEED, loading=3 * 10**9),
            20 * 10**9,
            (
                WARNING,
                f"{WHOLE}; that is tight: 20.0 GB are free on cuda.",
                "Use --quantize bnb-4bit, or end other programs first.",
            ),
            "",
        ),
        (
            NEED,
            161 * 10**8,
            (
                FAILURE,
                f"{WHOLE}; that does not fit: 16.1 GB are free on cuda.",
                "Lower --max-new-tokens, which is 512, or use a smaller model.",
            ),
            NO_FIT,
        ),
        (
            NEED,
            10**9,
            (
                FAILURE,
                "Its weights need 16.0 GB in bfloat16, and 1.0 GB are free on cuda.",
                "Use --quantize bnb-4bit, or a smaller model.",
            ),
            NO_FIT,
        ),
        (
            NEED,
            None,
            (SKIPPED, "Its weights need 16.0 GB in bfloat16; how much memory is free is not known.", ""),
            "",
        ),
        (
            changed(NEED, weights=None),
            10**9,
            (SKIPPED, "Its files do not say how much memory it needs.", ""),
            "",
        ),
    ],
)
def test_memory_needed_against_memory_there(
    need: Need, free: int | None, expected: tuple[Status, str, str], name: str
) -> None:
    finding = memory.check_memory(need, free, "cuda")
    assert (said(finding), finding.verdict) == (expected, name)


@pytest.mark.parametrize(
    ("dtype", "step"),
    [
        ("float32", "Use --dtype bfloat16, --quantize bnb-4bit, or a smaller model."),
        ("bnb-8bit", "Use --quantize bnb-4bit, or a smaller model."),
        ("bnb-4bit", "Use a machine with more memory, or a smaller model."),
    ],
)
def test_the_next_step_is_a_narrower_format_than_it_has(dtype: str, step: str) -> None:
    assert memory.check_memory(changed(NEED, dtype=dtype), 1, "cpu").next_step == step


@pytest.mark.parametrize(("family", "dtype"), [("qwen3", "float32"), ("gemma2", "bfloat16")])
def test_the_need_is_what_the_model_takes(tmp_path: Path, family: str, dtype: str) -> None:
    tiny = save_tiny(family, tmp_path)
    settings = Settings(model=str(tmp_path), dtype=dtype, max_new_tokens=44)
    need = memory.estimate(settings, Source(tmp_path), torch.device("cpu"))
    size = 4 if dtype == "float32" else 2
    weights = sum(each.numel() for each in tiny.model.parameters())  # tied embeddings once
    cache = tiny.model.to(getattr(torch, dtype))(torch.ones(1, 300, dtype=torch.long)).past_key_values
    held = sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))
    if family == "gemma2":  # ours keeps what lies before a sliding window, too
        held = sum(2 * 2 * 16 * 300 * size for _ in cache.layers)
    assert (need.elements, need.weights, need.dtype) == (weights, weights * size, dtype)
    assert (need.tokens, need.cache) == (300, 2 * held)
    assert need.loading == (0 if dtype == "float32" else 4 * tiny.model.config.vocab_size * 64)


def test_on_a_gpu_weights_keep_the_format_they_are_stored_in(tmp_path: Path) -> None:
    tiny = save_tiny("qwen3", tmp_path)
    tiny.model.to(torch.bfloat16).save_pretrained(tmp_path)
    settings = Settings(model=str(tmp_path), max_new_tokens=44)
    need = memory.estimate(settings, Source(tmp_path), torch.device("cuda"))
    assert (need.dtype, need.weights) == ("bfloat16", 2 * (need.elements or 0))
    assert (need.loading, need.cache) == (
        0,
        2 * 3 * 2 * 2 * 16 * 300 * 2,
    )  # streams, layers, k and v, heads, …


def test_free_memory_is_that_of_all_gpus_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"cuda:0": 10, "cuda:1": 20, "cuda": 10, "cpu": 5}
    monkeypatch.setattr("adacd_cli.loading.hardware.free_on", lambda device: free[str(device)])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [memory.free_for(torch.device(name)) for name in ("cuda", "cuda:1", "cpu")] == [30, 20, 5]


def test_weights_that_only_a_configuration_tells_are_counted_once(tmp_path: Path) -> None:
    tiny = save_tiny("qwen3", tmp_path)
    assert memory._elements(tiny.model.config) == sum(each.numel() for each in tiny.model.parameters())


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
        ("{{ bos_token }}" + NO_SYSTEM + "{% endfor %}" + START, {"system_role": "refused"}),
        ("{{ bos_token }}" + DROPS, {"system_role": "dropped"}),
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
    found = pair.look(make_tokenizer(source), Settings())
    lengths = facts.pop("lengths", found.lengths)
    expected = changed(PAIR, lengths=lengths, turn_end=("<|end|>", "<|start|>"))
    assert found == changed(expected, **facts)


def test_both_streams_equal_is_a_failure_in_the_words_of_the_prompts() -> None:
    alone = "{{ messages[-1].content.split('\\n')[-1] }}"
    findings = template.examine(make_tokenizer(alone), Settings(), frozenset())
    assert [(said(each), each.verdict) for each in findings] == [
        (
            (
                FAILURE,
                "The chat template gives the same prompt with and without the contrast prompt (contrast placement system).",
                "Use a model with another chat template, or fix the template in the tokenizer's folder.",
            ),
            CANNOT,
        )
    ]


PAIR_CASES: list[tuple[Any, dict[str, Any], tuple[Status, str, str]]] = [
    (template.check_template, {}, (OK, "The tokenizer has a chat template.", "")),
    (
        template.check_template,
        {"default_system": "You are  a " + 12 * "very " + "kind cook.", "dated": True},
        (
            OK,
            "The tokenizer has a chat template. By itself it begins with the system text “You are a very very very very very very very very very very…”, in whose place the prompted stream reads the contrast prompt. It writes the date: kept beginnings of prompts last a day.",
            "",
        ),
    ),
    (
        template.check_template,
        {"template": False},
        (
            WARNING,
            "The tokenizer has no chat template, so that the model gets plain text.",
            "Use a chat model, or put its chat_template.jinja into the folder.",
        ),
    ),
    (
        template.check_template,
        {"foreign": ("<|a|>", "<|b|>")},
        (
            WARNING,
            "The chat template writes <|a|>, <|b|>, which the tokenizer does not know: they belong to different models.",
            "Use the template and the tokenizer files that came with the weights.",
        ),
    ),
    (
        template.check_system_role,
        {},
        (OK, "The contrast prompt goes into a system message. The streams are 19 and 10 tokens long.", ""),
    ),
    (
        template.check_system_role,
        {"system_role": "dropped"},
        (
            OK,
            "The template drops the text of a system message; the contrast prompt is folded into the user's message. The streams are 19 and 10 tokens long.",
            "",
        ),
    ),
    (
        template.check_system_role,
        {"system_role": "refused"},
        (
            OK,
            "The template has no system role; the contrast prompt is folded into the user's message. The streams are 19 and 10 tokens long.",
            "",
        ),
    ),
    (
        template.check_system_role,
        {"system_role": "none"},
        (
            OK,
            "Without a template the contrast prompt stands above the question. The streams are 19 and 10 tokens long.",
            "",
        ),
    ),
    (template.check_bos, {}, (OK, "Each prompt begins with one <s>.", "")),
    (
        template.check_bos,
        {"leading_bos": (2, 2)},
        (
            WARNING,
            "A prompt begins with <s> 2 times, which models were not trained on.",
            "Take one of them out of the chat template.",
        ),
    ),
    (
        template.check_bos,
        {"leading_bos": (0, 0)},
        (
            WARNING,
            "The tokenizer begins texts with <s>, and the chat template does not.",
            "Compare the template with that of the model's makers: it may lack {{ bos_token }}.",
        ),
    ),
    (
        template.check_bos,
        {"leading_bos": (0, 0), "adds_bos": False},
        (OK, "The prompts begin without <s>, as texts do by this tokenizer.", ""),
    ),
    (
        template.check_bos,
        {"bos": None, "leading_bos": (0, 0)},
        (OK, "The tokenizer has no token that begins a text.", ""),
    ),
    (
        template.check_generation_prompt,
        {},
        (OK, "Both streams end alike, in “<|end|> <|start|>assistant”.", ""),
    ),
    (
        template.check_generation_prompt,
        {"generation_prompt": "\n"},
        (OK, "Both streams end with the question itself.", ""),
    ),
    (
        template.check_generation_prompt,
        {"same_end": False},
        (
            FAILURE,
            "The two streams end in different tokens after the question.",
            "Use a model with another chat template, or another tokenizer.",
        ),
    ),
]


@pytest.mark.parametrize(("check", "facts", "expected"), PAIR_CASES)
def test_checks_of_the_prompt_pair(
    check: Any, facts: dict[str, Any], expected: tuple[Status, str, str]
) -> None:
    assert said(check(changed(PAIR, **facts))) == expected


@pytest.mark.parametrize(
    ("thinking", "asked", "expected"),
    [
        ("none", False, (OK, "The model answers without thinking first.", "")),
        (
            "none",
            True,
            (
                WARNING,
                "Thinking is asked for, and neither template nor tokenizer knows of any.",
                "Leave --thinking out.",
            ),
        ),
        (
            "switch",
            False,
            (OK, "The template has a switch for thinking, which is off unless --thinking is given.", ""),
        ),
        ("switch", True, (OK, "The template has a switch for thinking, which is on, by --thinking.", "")),
        (
            "always",
            False,
            (
                WARNING,
                "The template always lets the model think first: it has no switch against it.",
                "Give answers room, e.g. --max-new-tokens 4096; the contrast begins after the thinking.",
            ),
        ),
    ],
)
def test_the_check_of_thinking(thinking: str, asked: bool, expected: tuple[Status, str, str]) -> None:
    assert said(template.check_thinking(changed(PAIR, thinking=thinking), asked=asked)) == expected


def test_ends_that_the_template_does_not_write_let_answers_run_on() -> None:
    tokenizer = make_tokenizer(CHAT, AddedToken("<|stop|>"))
    end, stop = (tokenizer.convert_tokens_to_ids(name) for name in ("<|end|>", "<|stop|>"))
    assert [
        said(template.check_ends(PAIR, ends, tokenizer))
        for ends in (frozenset({end, stop}), frozenset({stop}), frozenset())
    ] == [  # type: ignore[arg-type]
        (OK, "An answer ends at <|end|> or <|stop|>.", ""),
        (
            WARNING,
            "An answer ends at <|stop|>, but the template ends it with <|end|>: answers may run on.",
            "Add the id of <|end|> to eos_token_id in the model's generation_config.json.",
        ),
        (
            WARNING,
            "No token is known to end an answer, so that each runs to --max-new-tokens.",
            "Name eos_token_id in the model's generation_config.json.",
        ),
    ]


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
    answers = behaviour.ask(model, settings, lambda line: None)
    findings = template.examine(model.tokenizer, settings, model.eos_ids)
    return [
        Section("Machine", environment.examine(changed(MACHINE, busy_cores=5.0), settings)),
        Section("Model scripted", (memory.check_memory(changed(NEED, weights=10**11), 10**9, "cpu"),)),
        Section("Prompts", findings),
        Section("Behaviour", counts.examine(answers, gated=False)),
    ]


def written(sections: list[Section], *, width: int, encoding: str | None) -> str:
    out = io.StringIO()
    screen = Screen(out, "auto", width)
    for section in sections:
        report.put_section(screen, section, encoding)
    report.put_verdict(screen, verdict(sections))
    return out.getvalue()


@pytest.mark.parametrize(
    ("file", "width", "encoding"),
    [("doctor.txt", 80, "utf-8"), ("doctor-narrow.txt", 40, "latin-1")],
)
def test_the_whole_screen(examined: list[Section], file: str, width: int, encoding: str) -> None:
    screen = written(examined, width=width, encoding=encoding)
    assert screen == (GOLDEN / file).read_text(encoding="utf-8")
    assert max(map(len, screen.splitlines())) <= width


def test_json_says_what_the_screen_says(examined: list[Section]) -> None:
    found = report.as_json(verdict(examined), examined, {"device": "cpu"}, {"name": "scripted"})
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
        "sentence": "Its weights need 100 GB in bfloat16, and 1.0 GB are free on cpu.",
        "next_step": "Use --quantize bnb-4bit, or a smaller model.",
        "facts": {
            "dtype": "bfloat16",
            "elements": 8_000_000_000,
            "weights_bytes": 100_000_000_000,
            "loading_bytes": 0,
            "cache_bytes": 200_000_000,
            "tokens": 768,
            "free_bytes": 1_000_000_000,
        },
    }
