"""`python -m tools.demo.build` trains the demo model again from the corpus and writes its folder.

At most 20 minutes on two CPU cores. The same seed and number of threads on the same machine and library
versions give the same weights. The model card's figures come from measure.py, not from here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from adacd_cli.demo import model_folder
from tools.demo.dialogues import DialogueSource
from tools.demo.encoding import train_tokenizer
from tools.demo.grammar import Grammar
from tools.demo.kept_out import KeptOut
from tools.demo.prompts import kept_out
from tools.demo.train import Recipe, native_bfloat16, train

TOKENIZER_DIALOGUES = 40_000
SIZE_LIMIT = 8_000_000
_DESCRIPTION = "Train the demo model again from its corpus."


def corpus_texts(grammar: Grammar, seed: int, dialogues: int, kept: KeptOut) -> list[str]:
    """The texts the tokenizer learns from."""
    source = DialogueSource(grammar, seed, kept)
    texts: list[str] = []
    for dialogue in itertools.islice(iter(source.draw, None), dialogues):
        texts.extend(itertools.chain.from_iterable((turn.question, turn.reply) for turn in dialogue.turns))
    return texts + grammar.systems["ordinary"] + grammar.systems["refuse"]


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    """Writes the weights as bfloat16, and a config that asks for computing in float32."""
    output.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(output)
    # stored in half the space, computed with in full: the contrast multiplies what rounding does
    config = json.loads((output / "config.json").read_text(encoding="utf-8"))
    (output / "config.json").write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n")
    tokenizer.save_pretrained(output, save_jinja_files=False)
    size = (output / "model.safetensors").stat().st_size
    if size > SIZE_LIMIT:
        raise SystemExit(f"Error: model.safetensors has {size} bytes; the limit is {SIZE_LIMIT}.")


def build(
    recipe: Recipe,
    output: Path,
    *,
    threads: int,
    tuning: bool = False,
    tokenizer_dialogues: int = TOKENIZER_DIALOGUES,
) -> None:
    """Trains with the recipe and writes the folder; `tuning` holds the development prompts back as well."""
    torch.set_num_threads(threads)
    grammar, kept = Grammar(), kept_out(tuning=tuning)
    texts = corpus_texts(grammar, recipe.seed + 1, tokenizer_dialogues, kept)
    tokenizer = train_tokenizer(texts, recipe.vocabulary)
    recipe = replace(recipe, vocabulary=len(tokenizer))
    bfloat16 = native_bfloat16()
    print(f"{threads} threads, {'bfloat16' if bfloat16 else 'float32'}, {recipe}", file=sys.stderr)
    source = DialogueSource(grammar, recipe.seed, kept)
    model = train(
        recipe,
        source,
        tokenizer.backend_tokenizer,
        bfloat16=bfloat16,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    save(model, tokenizer, output)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the arguments, builds, says how long it took."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo.build", description=_DESCRIPTION)
    parser.add_argument("--output", type=Path, default=model_folder(), help="folder to write")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument(
        "--tuning", action="store_true", help="hold the development prompts back, to measure on them"
    )
    for field in fields(Recipe):
        kind = float if isinstance(field.default, float) else int
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=kind, default=field.default, help=f"(default: {field.default})")
    given = vars(parser.parse_args(arguments))
    output, threads, tuning = (given.pop(name) for name in ("output", "threads", "tuning"))
    logging.disable_progress_bar()
    start = time.monotonic()
    build(Recipe(**given), output, threads=threads, tuning=tuning)
    print(f"{output}: made in {(time.monotonic() - start) / 60:.1f} minutes", file=sys.stderr)


if __name__ == "__main__":
    main()
