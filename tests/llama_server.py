"""A real llama.cpp server over loopback (PyPI's xllamacpp) in its own process, and the demo as a GGUF file.

    python -m tests.llama_server FILE.gguf [SLOTS [CONTEXT]]

prints its address and serves until it is ended.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_FLOAT32, _NORMAL, _CONTROL = 0, 1, 3


@dataclass
class LlamaServer:
    """A running server.

    Attributes:
        url: its address, with /v1.
        process: what to end it by.
    """

    url: str
    process: subprocess.Popen[str]


@contextmanager
def llama_server(gguf: Path, *, slots: int = 4, context: int = 512) -> Iterator[LlamaServer]:
    """A server of one model; skips the test where xllamacpp is not installed.

    Args:
        gguf: the model's file.
        slots: how many requests it runs at once.
        context: tokens that each may have.
    """
    pytest.importorskip("xllamacpp", reason="a real llama.cpp server comes with xllamacpp")
    command = [sys.executable, "-m", "tests.llama_server", str(gguf), str(slots), str(context)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=Path(__file__).parents[1]
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://"), "the server did not start"
        yield LlamaServer(f"{address}/v1", process)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def write_demo_gguf(path: Path) -> Path:
    """The bundled model with float32 weights, as llama.cpp reads it."""
    import gguf
    import torch
    from safetensors.torch import load_file

    from adacd_cli.demo import model_folder

    folder = model_folder()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    template = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["chat_template"]
    heads = config["num_attention_heads"]
    size = config["hidden_size"] // heads

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("demo")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(_FLOAT32)

    vocabulary = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    controls = {token["content"] for token in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([_CONTROL if token in controls else _NORMAL for token in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_bos_token_id(config["eos_token_id"])  # llama.cpp wants one; nothing adds it
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(template)

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        values = tensor.to(torch.float32)
        if name.endswith(("q_proj.weight", "k_proj.weight")):  # llama.cpp pairs a head's rotated values
            values = values.view(heads, 2, size // 2, -1).transpose(1, 2).reshape(values.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), values.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _serve(gguf: str, slots: int, context: int) -> None:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = gguf
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_parallel, parameters.n_ctx = slots, slots * context
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    arguments = [int(text) for text in sys.argv[2:]]
    _serve(sys.argv[1], *(arguments + [4, 512][len(arguments) :]))
