"""The architectures that can be measured without a download: a name that is listed here, a config.json, or
its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adacd_cli.errors import UsageError
from adacd_cli.suggest import known_names_hint

SHAPES: dict[str, dict[str, Any]] = {
    "llama3-8b": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    },
    "gemma2-9b": {
        "model_type": "gemma2",
        "vocab_size": 256000,
        "hidden_size": 3584,
        "intermediate_size": 14336,
        "num_hidden_layers": 42,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "max_position_embeddings": 8192,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "tie_word_embeddings": True,
    },
    "qwen3-8b": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40960,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        "tie_word_embeddings": False,
    },
}
"""The architectures of the paper's models, as their config.json have them; stored in bfloat16."""


def read_shape(name: str) -> dict[str, Any]:
    """The values of a shape's config.json.

    Raises:
        UsageError: no shape has that name and no file that path, or the file is no model's config.json.
    """
    if name in SHAPES:
        return SHAPES[name]
    path = Path(name).expanduser()
    hint = "Name a model's config.json, or the folder that holds it."
    if path.is_dir():
        path = path / "config.json"
        if not path.exists():
            raise UsageError(f"The shape {name!r} is a folder without a config.json.", hint)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"Unknown shape {name!r}.", known_names_hint(name, SHAPES)) from error
    except OSError as error:
        raise UsageError(f"The shape {name!r} cannot be read: {error.strerror or error}.", hint) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The shape {name!r} is not valid JSON: {error}.", hint) from error
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise UsageError(f"The shape {name!r} names no model_type.", hint)
    return values
