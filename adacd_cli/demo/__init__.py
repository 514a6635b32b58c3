"""The bundled demo model: a tiny chat model that shows over-refusal and its cure without a download.

This module only says where the weights lie, with the standard library alone; build.py makes them, measure.py
measures them.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["model_folder"]


def model_folder() -> Path:
    """The folder with the demo's weights, tokenizer and model card."""
    return Path(__file__).parent / "model"
