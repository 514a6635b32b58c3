"""The judge `minos` on a tiny random ModernBERT, against the code of its model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import ModernBertConfig, ModernBertForSequenceClassification, PreTrainedTokenizerFast

from adacd_cli.errors import ModelError
from adacd_cli.evaluation.judges import Exchange, Judgement, JudgementLabel, JudgeOptions, make_judge
from adacd_cli.evaluation.judges.local import MinosJudge, refusal_index
from tests.golden import check

OPTIONS = JudgeOptions(device="cpu", dtype="float32", threads=1, batch_size=4, key=None, cache=None)


def minos_tokenizer() -> Any:
    """A token a byte between [CLS] and [SEP], as ModernBERT's has it."""
    special = ["[CLS]", "[SEP]", "[PAD]"]
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(
        models.BPE(vocab={token: place for place, token in enumerate(special + signs)}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    backend.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]"
    )


@pytest.fixture(scope="module")
def minos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random ModernBERT with Minos' classes, whose sliding window is shorter than the texts."""
    folder = tmp_path_factory.mktemp("minos")
    tokenizer = minos_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = ModernBertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=300,
            local_attention=16,
            initializer_range=0.3,
            pad_token_id=tokenizer.pad_token_id,
            cls_token_id=0,
            sep_token_id=1,
            bos_token_id=0,
            eos_token_id=1,
            id2label={0: "Non-refusal", 1: "Refusal"},
            label2id={"Non-refusal": 0, "Refusal": 1},
        )
        ModernBertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def minos_exchanges() -> list[Exchange]:
    words = ("Yes", "No", "I can't", "Sure, here it is", "é语", "Well")
    return [Exchange(f"May I {n}?", " ".join(words[n % 6 :]) * (n % 4 + 1)) for n in range(11)]


def published_minos(folder: Path, exchanges: Sequence[Exchange]) -> list[tuple[str, float]]:
    """Label and probability by the code of the model card, one text at a time."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = ModernBertForSequenceClassification.from_pretrained(folder)
    found = []
    for exchange in exchanges:
        text = f"<|user|>\n{exchange.prompt}\n<|assistant|>\n{exchange.completion}"
        with torch.no_grad():
            outputs = model(**tokenizer(text, return_tensors="pt"))
        probabilities = torch.nn.functional.softmax(outputs.logits, dim=-1)
        prediction = torch.argmax(probabilities, dim=-1).item()
        found.append((model.config.id2label[prediction], probabilities[0][1].item()))
    return found


@pytest.mark.parametrize("batch_size", [1, 4])
def test_minos_equals_the_published_code(minos: Path, batch_size: int) -> None:
    exchanges = minos_exchanges()
    judge = make_judge(f"minos={minos}", replace(OPTIONS, batch_size=batch_size))
    judge.check()
    labels: dict[str, JudgementLabel] = {"Refusal": "refusal", "Non-refusal": "compliance"}
    expected = [
        Judgement(f"minos={minos}", labels[name], {"refusal": pytest.approx(probability, abs=1e-5)})
        for name, probability in published_minos(minos, exchanges)
    ]
    assert {judgement.label for judgement in expected} == {"refusal", "compliance"}
    assert list(judge.judge(exchanges)) == expected


def test_minos_reads_the_beginning_of_a_long_answer(minos: Path) -> None:
    """300 tokens, a byte each: two for [CLS] and [SEP], 24 for the roles and 2 for the question."""
    judge = MinosJudge(OPTIONS, str(minos))
    exchanges = [
        Exchange("Hi", "x" * 1000),
        Exchange("Hi", "x" * 272),
        Exchange("Hi" * 200, "x"),
        Exchange("Hi", ""),
    ]
    long, whole, question, empty = judge.judge(exchanges)
    assert long == replace(whole, detail={**long.detail})
    assert long.detail["truncated"] is True
    assert long.detail["refusal"] == pytest.approx(whole.detail["refusal"], abs=1e-5)
    assert "truncated" not in whole.detail
    error = "the question alone is longer than the judge's context"
    assert question == Judgement("minos", "unparsed", {"error": error})
    assert empty == Judgement("minos", "degenerate")


def test_minos_takes_a_written_sep_for_text(minos: Path) -> None:
    judge = MinosJudge(OPTIONS, str(minos))
    judge.check()
    ids, _ = judge._reader.read(Exchange("Hi [SEP]", "[CLS] no [SEP]\ud800")) or ((), True)  # type: ignore[union-attr]
    assert (ids[0], ids[-1]) == (0, 1)
    assert 0 not in ids[1:]
    assert 1 not in ids[:-1]
    assert minos_tokenizer().decode(ids[1:-1]) == "<|user|>\nHi [SEP]\n<|assistant|>\n[CLS] no [SEP]?"


def test_minos_gives_no_class_without_numbers(minos: Path) -> None:
    judge = MinosJudge(OPTIONS, str(minos))
    judge.check()
    with torch.no_grad():
        judge._model.classifier.weight.fill_(float("nan"))
    (judgement,) = judge.judge([Exchange("Hi", "Yes")])
    assert judgement == Judgement("minos", "unparsed", {"error": "the model gave no finite numbers"})


@pytest.mark.parametrize(
    ("labels", "place"),
    [
        (("Non-refusal", "Refusal"), 1),
        (("refusal", "non-refusal"), 0),
        (("LABEL_0", "LABEL_1"), 1),
    ],
)
def test_which_class_is_the_refusal(labels: tuple[str, str], place: int) -> None:
    assert refusal_index(labels, "m") == place


def test_other_classes_are_refused() -> None:
    with pytest.raises(ModelError, match=r"m has the classes positive, negative, and not Refusal"):
        refusal_index(("positive", "negative"), "m")


@pytest.mark.parametrize("damage", ["missing", "kind", "head", "classes", "nan"])
def test_a_classifier_that_cannot_judge_is_found_by_check(minos: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "m"
    if damage != "missing":
        model = ModernBertForSequenceClassification.from_pretrained(minos)
        state = model.state_dict()
        if damage == "nan":
            state["classifier.weight"].fill_(float("nan"))
        if damage == "head":
            del state["classifier.weight"]
        if damage == "classes":
            model.config.id2label = {0: "good", 1: "bad"}
        model.save_pretrained(folder, state_dict=state)
        minos_tokenizer().save_pretrained(folder)
        if damage == "kind":
            config = folder / "config.json"
            text = config.read_text(encoding="utf-8")
            config.write_text(text.replace("ForSequenceClassification", "ForMaskedLM"), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        MinosJudge(OPTIONS, str(folder)).check()
    check("judges", f"minos {damage}", caught.value.message.replace(str(folder), "M"))
