"""The bundled demo model: a tiny chat model that shows over-refusal and its cure without a download.

`tools/demo/` in the repository holds its corpus, its training and the prompts that measure it.
"""

from pathlib import Path

__all__ = ["model_folder"]


def model_folder() -> Path:
    """The folder with the demo's weights, tokenizer and model card."""
    return Path(__file__).parent / "model"
