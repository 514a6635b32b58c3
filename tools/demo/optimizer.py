"""Muon: momentum whose update of each weight matrix is made orthogonal, which needs fewer steps than Adam.

After Keller Jordan's Muon (2024). Only for matrices inside the layers; embeddings and norms stay with AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

# Coefficients of the quintic Newton-Schulz iteration, as published with Muon.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


def orthogonalise(update: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """An approximation of U V^T, where update = U S V^T. Shape [matrices, rows, columns], rows <= columns."""
    result: torch.Tensor = (update / (update.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)
    for _ in range(_ITERATIONS):
        gram = result @ result.mT
        result = _A * result + (_B * gram + _C * gram @ gram) @ result
    return result.to(update.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; matrices of one shape are done in one batch."""

    def __init__(
        self,
        params: Iterable[torch.Tensor],
        lr: float,
        momentum: float,
        weight_decay: float,
        *,
        dtype: torch.dtype,
    ) -> None:
        self._dtype = dtype
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of all matrices."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = {}
            for value in group["params"]:
                if value.grad is not None:
                    by_shape.setdefault(value.shape, []).append((value, value.grad))
            for (rows, columns), values in by_shape.items():
                updates = []
                for value, gradient in values:
                    buffer = self.state[value].setdefault("momentum", torch.zeros_like(value))
                    buffer.lerp_(gradient, 1 - group["momentum"])
                    updates.append(gradient.lerp(buffer, group["momentum"]))
                stacked = torch.stack(updates)
                tall = rows > columns
                stacked = orthogonalise(stacked.mT if tall else stacked, self._dtype)
                stacked = stacked.mT if tall else stacked
                scale = group["lr"] * max(1.0, rows / columns) ** 0.5
                for (value, _), update in zip(values, stacked, strict=True):
                    value.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-scale)
