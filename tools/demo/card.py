"""`python -m tools.demo.card` measures the demo model and writes its card, so no figure is typed.

The text is card.md; what cannot be read from the folder, how the training went, is given with --training.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoModelForCausalLM

from adacd_cli.demo import model_folder
from tools.demo.grammar import Grammar
from tools.demo.measure import count, measure, table
from tools.demo.prompts import KINDS, read_prompts

TEMPLATE = Path(__file__).parent / "card.md"
_DESCRIPTION = "Measure the demo model and write its model card."


def write_card(folder: Path, training: str, *, threads: int | None = None) -> str:
    """Measures the model in `folder` in both number formats, writes its README.md and returns the text."""
    prompts = read_prompts()
    tables = []
    for dtype in ("float32", "bfloat16"):
        rows = count(measure(folder, dtype, prompts, threads=threads))
        tables.append(f"In {dtype}:\n\n{table(rows)}")
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    config = model.config
    grammar = Grammar()
    heads = f"{config.num_hidden_layers} layers, {config.num_attention_heads} heads"
    text = TEMPLATE.read_text(encoding="utf-8").format(
        parameters=f"{model.num_parameters() / 1e6:.2f}",
        shape=f"hidden {config.hidden_size}, {heads}",
        size=f"{(folder / 'model.safetensors').stat().st_size:,}",
        vocabulary=f"{config.vocab_size:,}",
        lines=" + ".join(f"{len(grammar.entries[kind])} {kind}" for kind in KINDS),
        questions=" + ".join(f"{round(grammar.size(kind), -3):,}" for kind in KINDS),
        wrappers=len(grammar.wrappers),
        prompts=len(prompts),
        tables="\n\n".join(tables),
        training=training,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the arguments, writes the card, prints it."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo.card", description=_DESCRIPTION)
    parser.add_argument("--model", type=Path, default=model_folder(), help="folder (default: the package's)")
    parser.add_argument("--training", required=True, help="steps, dialogues, threads and minutes, in words")
    parser.add_argument("--threads", type=int, help="CPU threads (default: the free cores)")
    options = parser.parse_args(arguments)
    print(write_card(options.model, options.training, threads=options.threads))


if __name__ == "__main__":
    main()
