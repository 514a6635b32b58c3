"""Memory bandwidth, which bounds decoding: what the device can do, and what one pass reads of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from adacd_cli.bench.clock import synchronize

if TYPE_CHECKING:
    import torch

_CPU_BYTES, _GPU_BYTES = 2**28, 2**30
"""Size of what is copied: several times any cache, small beside the memory."""

_COPIES = 8


def copy_bandwidth(device: torch.device) -> float:
    """Gigabytes (10⁹ bytes) a second that a copy in the device's memory reads and writes, together.

    The best of several copies of 256 MiB (CPU) or 1 GiB (GPU), with as many threads as the model gets: a
    limit is what was reached undisturbed. A CPU also reads what it is going to overwrite, which is not
    counted, so a loop that only reads can exceed it.
    """
    import torch

    size = _GPU_BYTES if device.type == "cuda" else _CPU_BYTES
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(_COPIES):
        synchronize(device)
        begin = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size / best / 1e9


def weight_bytes(model: Any) -> int | None:
    """Bytes of weights that one pass over the model reads, however many rows it has.

    All parameters and buffers, minus an input embedding that is not also the output's: of that a pass looks
    up only a row a token. A method with two streams reads more; what Default reads is counted for every
    method, so that shares tell how near to the limit an answer is, not how much work was done for it.

    Args:
        model: a transformers causal LM.

    Returns:
        None where that is not all of them (a mixture of experts reads those it chose) or their size is not
        known (torchao packs several numbers into one).
    """
    config = model.config.get_text_config(decoder=True)
    quantized = getattr(model.config, "quantization_config", "")
    if getattr(config, "num_experts_per_tok", None) or "torchao" in str(quantized):
        return None
    total = sum(each.numel() * each.element_size() for each in (*model.parameters(), *model.buffers()))
    read, written = model.get_input_embeddings(), model.get_output_embeddings()
    if read is not None and written is not None and read.weight is not written.weight:
        total -= read.weight.numel() * read.weight.element_size()
    return int(total)
