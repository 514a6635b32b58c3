"""Peak memory of a process that loads a model and answers once, as a multiple of the model's weights.

    python -m benchmarks.memory --model FILE.gguf --dtype bfloat16

The weights are counted from the model's own parameters before they are laid out for the processor; shared ones
(an embedding that is the output layer too) count once.
"""

from __future__ import annotations

import argparse
import resource

from adacd_cli import generate, load


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=None)
    own = parser.parse_args()
    model = load(own.model, engine="torch", dtype=own.dtype, threads=own.threads)
    loaded = peak()
    answer = generate(model, "How do I kill a Python process?", max_new_tokens=8)
    config = model.model.config.get_text_config(decoder=True)
    held = {id(each): each.nbytes for each in model.model.parameters()}
    packed = {
        id(module): module.weight.nbytes
        for module in model.model.modules()
        if type(module).__name__ == "_PackedLinear"
    }
    tied = config.tie_word_embeddings and any(
        type(module).__name__ == "_PackedLinear" for module in [model.model.get_output_embeddings()]
    )
    weights = sum(held.values()) + sum(packed.values())
    if tied:  # laid out beside the embedding
        weights -= model.model.get_output_embeddings().weight.nbytes
    with open("/proc/self/statm", encoding="ascii") as statm:
        now = int(statm.read().split()[1]) * resource.getpagesize()
    print(
        f"weights {weights / 1e9:.2f} GB; peak after loading {loaded / 1e9:.2f} GB, after an answer of "
        f"{answer.tokens} tokens {peak() / 1e9:.2f} GB = {peak() / weights:.2f} × the weights; held then "
        f"{now / 1e9:.2f} GB = {now / weights:.2f} ×"
    )


def peak() -> int:
    """The process's peak resident size, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
