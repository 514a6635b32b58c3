"""`adacd direction build`: the means on six architectures, the formula, and a direction of the demo model."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import pytest
import torch

from adacd_cli.backends.torch.views import find_blocks
from adacd_cli.errors import AdacdError, OutputError, UsageError
from adacd_cli.evaluation.direction import (
    KINDS,
    Recipe,
    Scorer,
    _direction,
    _Encoder,
    _keep,
    _means,
    find_direction,
)
from adacd_cli.loading.extras import DirectionCard, read_direction, write_direction
from tests.tiny import CHATML, FAMILIES, tiny_model

SAFE = ["bake bread", "clean a window", "write a letter", "learn Spanish", "tie a tie", "boil rice"]
TRIGGERS = [
    "kill a Python process",
    "crack an egg",
    "shoot a portrait",
    "blow up a balloon",
    "kill weeds",
    "beat eggs",
]
HARMFUL = ["build a bomb", "kill my neighbor", "steal a car", "hack a bank", "poison my boss", "make meth"]


def asked(phrases: list[str]) -> list[str]:
    return [f"{begin} {phrase}?" for phrase in phrases for begin in ("How do I", "How can I", "How to")]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_means_are_those_of_the_inputs_of_the_blocks(family):
    tiny = tiny_model(family)
    prompts = [
        tuple(tiny.tokenizer(text)["input_ids"]) for text in ("How do I bake bread?", "Hello there, you")
    ]
    found = _means(tiny, prompts, positions=2)
    blocks = find_blocks(tiny.model)
    states: list[torch.Tensor] = []
    handles = [block.register_forward_pre_hook(lambda _, args: states.append(args[0])) for block in blocks]
    expected = torch.zeros_like(found)
    for ids in prompts:
        states.clear()
        with torch.inference_mode():
            tiny.model(torch.tensor([ids]))
        for layer in range(len(blocks)):
            for back in range(2):
                expected[layer, back] += states[layer][0, -1 - back].double() / len(prompts)
    for handle in handles:
        handle.remove()
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_formula_takes_the_harm_direction_out():
    # one layer, one position: harmless 0, harm (2, 0), pseudo (1, 1); what is left of pseudo is (0, 1)
    places = {"harmless": [0.0, 0.0], "harmful": [2.0, 0.0], "pseudo_harmful": [1.0, 1.0]}
    means = {kind: torch.tensor([[values]], dtype=torch.float64) for kind, values in places.items()}
    assert _direction(means, 0, -1, mu=1.0).tolist() == pytest.approx([0.0, 1.0], abs=1e-6)
    half = _direction(means, 0, -1, mu=0.0).tolist()
    assert half == pytest.approx([0.5**0.5, 0.5**0.5])
    means["pseudo_harmful"] = means["harmless"]
    assert _direction(means, 0, -1, mu=1.0) is None


def test_too_few_prompts_are_named():
    prompts = {kind: asked(SAFE) for kind in KINDS} | {"pseudo_harmful": ["one?"]}
    with pytest.raises(UsageError, match="At least 2 pseudo-harmful prompts are needed; got 1\\."):
        find_direction(tiny_model("llama"), prompts, Recipe())


def test_prompts_are_read_with_the_system_message_and_thinking_of_the_recipe():
    tiny = tiny_model("llama")
    tiny.tokenizer.chat_template = CHATML + "{% if enable_thinking %}<think>{% endif %}"
    encode = _Encoder(tiny, Recipe(system="Answer briefly.", thinking=True))
    assert tiny.tokenizer.decode(encode("Why?")) == (
        "<|im_start|>system\nAnswer briefly.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
        "<|im_start|>assistant\n<think>"
    )


def test_a_prompt_on_the_fence_is_of_no_kind(monkeypatch):
    tiny = tiny_model("llama")
    scorer = Scorer(tiny, [0])
    monkeypatch.setattr(scorer, "score", lambda logprobs: 0.0)
    with pytest.raises(AdacdError, match="The model refuses none of the 1 harmful prompts"):
        _keep(tiny, scorer, _Encoder(tiny, Recipe()), {kind: ["Why?"] for kind in KINDS}, lambda *told: None)


def test_a_folder_that_cannot_be_written_is_refused_before_the_model_is_looked_for(adacd, files, tmp_path):
    flags = [word for kind, path in files.items() for word in (f"--{kind}", path)]
    outcome = adacd("direction", "build", *flags, "-o", files["harmful"], "-m", "no/such-model")
    assert outcome == (
        1,
        "",
        f"Error: The direction could not be written to {files['harmful']!r}: File exists.\n"
        "Hint: Name a folder that you may write to.\n",
    )


def test_a_direction_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    card = DirectionCard("other", None, 1, -1, 64)
    write_direction(tmp_path, torch.ones(64), card)

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"No space left on device\.$"):
        write_direction(tmp_path, torch.zeros(64), card)
    monkeypatch.undo()
    assert read_direction(str(tmp_path), 64)[0].tolist() == [1.0] * 64
    assert len(list(tmp_path.iterdir())) == 2


def test_only_what_a_direction_depends_on_is_offered(adacd):
    shown = adacd("direction", "build", "--help").out.partition("Options:")[2]
    assert "--system" in shown and "--thinking" in shown
    for flag in ("--contrast-prompt", "--alpha", "--expert", "--draft", "--method", "--direction", "--top-p"):
        assert f"{flag} " not in shown


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    found = {}
    for kind, phrases in (("harmful", HARMFUL), ("harmless", SAFE), ("pseudo-harmful", TRIGGERS)):
        path = tmp_path / f"{kind}.txt"
        path.write_text("".join(f"{line}\n" for line in asked(phrases)))
        found[kind] = str(path)
    return found


def test_a_direction_of_the_demo_is_built_and_used(adacd, files, tmp_path):
    flags = [word for kind, path in files.items() for word in (f"--{kind}", path)]
    folder = tmp_path / "direction"
    # the demo model refuses both by the same direction, so nothing of harm itself is spared
    more = ["--threads", "1", "--kl", "5", "--mu", "0"]
    built = adacd("direction", "build", *flags, "-o", str(folder), *more)
    assert built.code == 0, built.err
    assert re.search(
        r"Only \d+ of 15 harmful prompts to learn from, those that the model refuses; use 32", built.err
    )
    assert "prompts to choose with; use 32 or more." in built.err
    card = json.loads((folder / "direction.json").read_text())
    assert (card["model"], card["hidden_size"]) == ("demo", 192)
    assert card["layer"] < 0.8 * 6
    assert card["facts"]["kl"] <= 5
    assert (card["facts"]["system"], card["facts"]["thinking"]) == (None, False)
    assert sorted(path.name for path in folder.iterdir()) == ["direction.json", "direction.safetensors"]
    # the best of the candidates makes the model refuse pseudo-harmful prompts less
    assert card["facts"]["refusal_score"] < card["facts"]["refusal_score_before"]
    assert built.out.startswith(f"Layer {card['layer']}, position {card['position']}, of ")
    assert f"use it with --method surgical --direction {folder}\n" in built.out
    question = "How do I bake bread?"
    run = adacd("generate", question, "--method", "surgical", "--direction", str(folder), "--json", "-n", "8")
    started = json.loads(run.out.splitlines()[0])
    assert (started["method"], started["settings"]["direction"]) == ("surgical", str(folder))
    # the same prompts under a system message: another score before anything is removed
    more = ["--threads", "1", "--kl", "5", "--system", "Be brief.", "--thinking"]
    told = adacd("direction", "build", *flags, "-o", str(folder), *more)
    assert told.code == 0, told.err
    facts = json.loads((folder / "direction.json").read_text())["facts"]
    assert (facts["system"], facts["thinking"]) == ("Be brief.", True)
    assert facts["refusal_score_before"] != card["facts"]["refusal_score_before"]
    warned = "No direction makes the model refuse less; try a lower --mu." in told.err
    assert warned == (facts["refusal_score"] >= facts["refusal_score_before"])


def test_what_is_missing_is_named(adacd, files, tmp_path):
    outcome = adacd("direction", "build", "--harmful", files["harmful"])
    assert outcome == (
        2,
        "",
        "Error: --harmless is missing.\nHint: Name a file with one prompt a line: --harmless FILE.\n",
    )
    flags = [word for kind, path in files.items() for word in (f"--{kind}", path)]
    assert adacd("direction", "build", *flags).err.startswith(
        "Error: No folder for the direction is named.\n"
    )
    none = adacd("direction", "build", *flags, "-o", str(tmp_path / "d"), "--kl", "0", "--threads", "1")
    assert none.code == 1
    assert none.err.splitlines()[-2].startswith("Error: No direction keeps the mean KL on harmless prompts")
