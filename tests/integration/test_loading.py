"""load() on tiny models: every family equals the model it was saved from, and what cannot run is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    LlamaForSequenceClassification,
    LlavaConfig,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

from adacd_cli.config import Settings
from adacd_cli.errors import AdacdError, ConfigurationError, MissingExtraError, ModelError, OutOfMemoryError
from adacd_cli.loading import hardware, load
from tests import processes
from tests.tiny import CONTEXT, FAMILIES, save_tiny, tiny_tokenizer

AGAIN = "Download or save the model again."
CHOOSE = "Choose a decoder-only chat model, such as Qwen/Qwen3-8B, or `demo`, the bundled model."


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny Llama, not to be changed."""
    folder = tmp_path_factory.mktemp("llama")
    save_tiny("llama", folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that a test may damage, named `m` from here."""
    copy = tmp_path / "m"
    copy.mkdir()
    for path in saved.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return copy


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _refusal(settings: Settings, kind: type[AdacdError] = ModelError) -> tuple[str, str]:
    with pytest.raises(kind) as caught:
        load(settings)
    assert type(caught.value) is kind
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_model_is_the_one_that_was_saved(
    family: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny = save_tiny(family, tmp_path)
    capfd.readouterr()
    stages: list[str] = []
    loaded = load(Settings(model=str(tmp_path), device="cpu"), progress=stages.append)
    assert capfd.readouterr() == ("", "")
    assert [stage for stage in stages if "%" not in stage] == [
        "Starting PyTorch",
        "Loading tokenizer",
        "Loading weights",
        "Trying one token",
    ]
    ids = torch.arange(100, 140)[None]
    with torch.inference_mode():
        assert torch.equal(loaded.model(ids).logits, tiny.model(ids).logits)
    assert loaded.model.dtype == torch.float32 and not loaded.model.training
    assert (loaded.name, loaded.revision, loaded.warnings) == (str(tmp_path), None, ())
    assert (loaded.eos_ids, loaded.context_length) == (tiny.eos_ids, CONTEXT)
    assert loaded.tokenizer.get_vocab() == tiny.tokenizer.get_vocab()
    assert loaded.model.config._attn_implementation == ("eager" if family == "gemma2" else "sdpa")


def test_a_local_model_asks_nothing_of_the_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *address, **_: asked.append(address) or [])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    load(Settings(model="m"))
    assert asked == []


def test_offline_reaches_libraries_that_are_not_imported_yet() -> None:
    """In a process of its own: the hub answers nobody here, and without the setting would be asked for."""
    code = """
import os, time
from adacd_cli.config import Settings
from adacd_cli.errors import ModelError
from adacd_cli.loading import load
start = time.monotonic()
try:
    load(Settings(model="own/elsewhere", offline=True))
except ModelError as error:
    print(error.message, time.monotonic() - start < 3, os.environ["HF_HUB_OFFLINE"])
"""
    environment = {key: value for key, value in os.environ.items() if "OFFLINE" not in key}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert run.stdout == "Model 'own/elsewhere' is not on this machine, and adacd is offline. True 1\n"
    assert run.stderr == ""


def test_ends_of_answers_are_gathered_from_all_three_places(folder: Path) -> None:
    _edit(folder / "config.json", eos_token_id=3)
    _edit(folder / "generation_config.json", eos_token_id=[4, 5])
    assert load(Settings(model="m")).eos_ids == {tiny_tokenizer().eos_token_id, 3, 4, 5}


def test_a_model_without_an_end_is_warned_of(folder: Path) -> None:
    _edit(folder / "config.json", eos_token_id=None)
    _edit(folder / "generation_config.json", eos_token_id=None)
    _edit(folder / "tokenizer_config.json", eos_token=None)
    note = "The model names no token that ends an answer: answers run to --max-new-tokens."
    assert load(Settings(model="m")).warnings == (note,)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_dtype_that_was_asked_for(folder: Path, dtype: str) -> None:
    assert load(Settings(model="m", dtype=dtype)).model.dtype == getattr(torch, dtype)


def test_threads(folder: Path) -> None:
    before = torch.get_num_threads()
    try:
        load(Settings(model="m", threads=2))
        assert torch.get_num_threads() == 2
        load(Settings(model="m"))
        assert torch.get_num_threads() == 1  # OMP_NUM_THREADS of the tests
    finally:
        torch.set_num_threads(before)


def _weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_missing_weights_are_refused(folder: Path) -> None:
    _weights(folder, lambda weights: weights.pop("lm_head.weight"))
    assert _refusal(Settings(model="m")) == (
        "The weights of m are not complete: lm_head.weight is missing.",
        AGAIN,
    )
    _weights(folder, lambda weights: weights.pop("model.norm.weight"))
    assert _refusal(Settings(model="m"))[0] == (
        "The weights of m are not complete: lm_head.weight (and 1 more) is missing."
    )


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    _weights(folder, lambda weights: weights.update({"model.norm.weight": torch.ones(32)}))
    assert _refusal(Settings(model="m")) == (
        "The weights of m do not fit its config.json: model.norm.weight is 32 and should be 64.",
        "Put back the config.json of these weights, or download or save the model again.",
    )


def test_weights_that_are_not_used_are_warned_of(folder: Path) -> None:
    _weights(folder, lambda weights: weights.update({"model.extra.weight": torch.ones(2)}))
    note = "The checkpoint holds tensors that this model does not use: model.extra.weight."
    assert load(Settings(model="m")).warnings == (note,)


def test_buffers_that_old_checkpoints_carry_are_not_mentioned(folder: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    _weights(folder, lambda weights: weights.update({name: torch.ones(8)}))
    assert load(Settings(model="m")).warnings == ()


def test_weights_that_are_not_numbers_are_found_by_one_token(folder: Path) -> None:
    _weights(folder, lambda weights: weights["model.norm.weight"].fill_(float("nan")))
    assert _refusal(Settings(model="m")) == (
        "m gives NaN or infinite logits in float32 on cpu.",
        "The checkpoint is probably damaged: download or save the model again.",
    )
    assert _refusal(Settings(model="m", dtype="bfloat16")) == (
        "m gives NaN or infinite logits in bfloat16 on cpu.",
        "Try --dtype float32; if it stays so, the checkpoint is damaged.",
    )


def test_a_tokenizer_of_another_vocabulary(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    rows = len(tokenizer)
    tokenizer.add_tokens(["<one>", "<two>"])
    tokenizer.save_pretrained(folder)
    assert _refusal(Settings(model="m")) == (
        "The tokenizer of m belongs to another model: "
        f"it has ids up to {rows + 1:,}, and the model has {rows:,} embeddings.",
        "Use the tokenizer files that came with the weights.",
    )


def test_a_padding_token_beyond_the_embeddings_is_let_be(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<beyond>"})
    tokenizer.save_pretrained(folder)
    assert load(Settings(model="m")).warnings == ()


def test_a_broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    message, hint = _refusal(Settings(model="m"))
    assert message.startswith("The tokenizer of m cannot be loaded: ")
    assert hint == "Put the model's tokenizer.json and tokenizer_config.json into its folder."


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"model_type": None}, "config.json of m names no model_type.", AGAIN),
        (
            {"model_type": "llama9"},
            "The installed transformers knows no model of type 'llama9', which m is.",
            "A newer one may: pip install --upgrade transformers.",
        ),
        (
            {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}},
            "m can only be loaded by Python code that comes with it.",
            "Read that code, and if you trust it add --trust-remote-code.",
        ),
        (
            {"num_attention_heads": 7},
            "config.json of m cannot be used: The hidden size (64) is not a multiple of the number of "
            "attention heads (7).",
            "Fix that in its config.json, or download or save the model again.",
        ),
        (
            {"architectures": ["LlamaModel"]},
            "m is of type llama (LlamaModel), not a causal language model.",
            CHOOSE,
        ),
    ],
)
def test_configurations_that_cannot_run(
    folder: Path, changes: dict[str, Any], message: str, hint: str
) -> None:
    _edit(folder / "config.json", **changes)
    assert _refusal(Settings(model="m")) == (message, hint)


SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
OTHERS: dict[str, tuple[Callable[[], Any], str]] = {
    "bert": (
        lambda: BertModel(BertConfig(vocab_size=100, **SMALL)),
        "of type bert (BertModel)",
    ),
    "masked": (
        lambda: BertForMaskedLM(BertConfig(vocab_size=100, **SMALL)),
        "of type bert (BertForMaskedLM)",
    ),
    "t5": (
        lambda: T5ForConditionalGeneration(
            T5Config(vocab_size=100, d_model=32, d_kv=16, d_ff=32, num_layers=1, num_heads=2)
        ),
        "an encoder-decoder model (T5ForConditionalGeneration)",
    ),
    "bart": (
        lambda: BartForConditionalGeneration(
            BartConfig(
                vocab_size=100,
                d_model=32,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=32,
                decoder_ffn_dim=32,
            )
        ),
        "an encoder-decoder model (BartForConditionalGeneration)",
    ),
    "vit": (
        lambda: ViTForImageClassification(ViTConfig(image_size=32, patch_size=16, **SMALL)),
        "of type vit (ViTForImageClassification)",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_models_of_another_kind(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, kind = OTHERS[name]
    build().save_pretrained(tmp_path / "m")
    tiny_tokenizer().save_pretrained(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    assert _refusal(Settings(model="m")) == (f"m is {kind}, not a causal language model.", CHOOSE)


def test_a_sequence_classifier(folder: Path) -> None:
    LlamaForSequenceClassification.from_pretrained(folder).save_pretrained(folder)
    assert _refusal(Settings(model="m")) == (
        "m is of type llama (LlamaForSequenceClassification), not a causal language model.",
        CHOOSE,
    )


def test_a_vision_language_model(folder: Path) -> None:
    LlavaConfig(architectures=["LlavaForConditionalGeneration"]).save_pretrained(folder)
    assert _refusal(Settings(model="m")) == (
        "m is of type llava (LlavaForConditionalGeneration), not a causal language model.",
        CHOOSE,
    )


def test_a_sentence_embedding_model(folder: Path) -> None:
    (folder / "modules.json").write_text("[]")
    (folder / "config_sentence_transformers.json").write_text("{}")
    assert _refusal(Settings(model="m")) == (
        "m is a sentence-embedding model (LlamaForCausalLM), not a causal language model.",
        CHOOSE,
    )


OWN_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_own_code_runs_only_when_it_is_trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on stdin"))
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    _edit(folder / "config.json", model_type="own", auto_map=classes, architectures=["OwnForCausalLM"])
    (folder / "own.py").write_text(OWN_CODE)
    assert _refusal(Settings(model="m"))[1] == "Read that code, and if you trust it add --trust-remote-code."
    assert type(load(Settings(model="m", trust_remote_code=True)).model).__name__ == "OwnForCausalLM"


def test_own_code_says_which_class_generates(folder: Path) -> None:
    """ChatGLM's `architectures` names a class that looks like an encoder."""
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    _edit(folder / "config.json", model_type="own", auto_map=classes, architectures=["OwnModel"])
    (folder / "own.py").write_text(OWN_CODE)
    loaded = load(Settings(model="m", trust_remote_code=True))
    assert (type(loaded.model).__name__, loaded.warnings) == ("OwnForCausalLM", ())


def test_a_broken_generation_config(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": 1')
    assert _refusal(Settings(model="m")) == (
        "generation_config.json of m is not valid JSON: Expecting ',' delimiter: line 1 column 19 (char 18).",
        AGAIN,
    )


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("odd", ["</s>", "2", 2.0, True, [2, [7]], [2, "7"], [False], {"id": 2}])
def test_an_end_that_is_no_id_is_named(folder: Path, file: str, odd: Any) -> None:
    _edit(folder / file, eos_token_id=odd)
    assert _refusal(Settings(model="m")) == (
        f"`eos_token_id` in {file} of m cannot be used: {odd!r} is neither a token's id nor a list of them.",
        "Write whole numbers there, e.g. 2 or [2, 7]; the model's tokenizer.json has the ids.",
    )


def test_more_threads_than_cores_are_warned_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        for cores, named in (2, "2 cores"), (1, "1 core"):
            monkeypatch.setattr("adacd_cli.loading.machine.usable_cores", lambda cores=cores: cores)
            assert load(Settings(model="m", threads=cores, device="cpu")).warnings == ()
            assert load(Settings(model="m", threads=cores + 1, device="cpu")).warnings == (
                f"--threads {cores + 1} is more than the {named} here, "
                "which makes decoding many times slower.",
            )
    finally:
        torch.set_num_threads(before)


def log_after_loading() -> None:
    from transformers.utils import logging

    load(Settings(model="m"))
    logger = logging.get_logger("transformers.models.mamba2.modeling_mamba2")
    logger.warning("The fast path is not available, which is falling back")
    logger.error("broken")


def test_transformers_logs_nothing_while_decoding(folder: Path) -> None:
    """In a process of its own: pytest takes log lines away from stderr."""
    assert processes.run(program=log_after_loading) == (0, "", "[transformers] broken\n")


def test_a_quantised_model_is_not_quantised_again(folder: Path) -> None:
    _edit(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    assert _refusal(Settings(model="m", quantize="bnb-4bit"), ConfigurationError) == (
        "`quantize` bnb-4bit cannot be used with m: it is quantised already.",
        "Leave --quantize out.",
    )


def test_a_gguf_file_names_the_packages_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.gguf").write_bytes(b"GGUF\x03\0\0\0")
    monkeypatch.setattr(hardware, "find_spec", lambda package: None)
    assert _refusal(Settings(model="m.gguf", engine="torch"), MissingExtraError) == (
        "A GGUF file needs gguf and accelerate, which are not installed.",
        "pip install gguf accelerate",
    )


def test_a_broken_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    monkeypatch.chdir(tmp_path)
    Path("m.gguf").write_bytes(b"GGUF\x03\0\0\0")
    message, hint = _refusal(Settings(model="m.gguf", engine="torch"))
    assert message.startswith("The GGUF file m.gguf cannot be used: ")
    assert hint == "Download it again, or use the model's safetensors."


GGUF = os.environ.get("ADACD_TEST_GGUF", "")


@pytest.mark.skipif(not GGUF, reason="ADACD_TEST_GGUF names no GGUF file")
def test_a_gguf_file_runs() -> None:
    loaded = load(Settings(model=GGUF, dtype="float32"))
    assert loaded.eos_ids and loaded.context_length and loaded.warnings == ()
    ids = torch.tensor([loaded.tokenizer("The capital of France is").input_ids])
    answer = loaded.model.generate(ids, max_new_tokens=3, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in loaded.tokenizer.decode(answer)


@pytest.mark.parametrize(
    "failure",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory(folder: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", fail)
    assert _refusal(Settings(model="m"), OutOfMemoryError) == (
        "There is not enough memory to load m.",
        "Use --quantize bnb-4bit, --dtype bfloat16, or a smaller model.",
    )


def test_ctrl_c_passes_through(folder: Path) -> None:
    def interrupt(stage: str) -> None:
        if stage.startswith("Loading weights"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(Settings(model="m"), progress=interrupt)
