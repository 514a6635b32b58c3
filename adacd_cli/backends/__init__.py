"""Who computes: torch or llama.cpp in this process, or somebody's server, each an `engine.backend.Backend`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adacd_cli.engine.backend import Backend, Logits
    from adacd_cli.engine.model import LanguageModel


@dataclass(frozen=True, eq=False)
class Done:
    """A `Pending` of a model in this process: it is there at once."""

    logits: Logits | None

    def done(self) -> bool:
        return True

    def result(self) -> Logits | None:
        return self.logits

    def cancel(self) -> None:
        pass


def backend_for(model: LanguageModel) -> Backend:
    """A new backend for a loaded model; it holds no sequence yet."""
    if model.server is not None:
        from adacd_cli.backends.server.backend import ServerBackend

        return ServerBackend(model)
    if model.engine == "llamacpp":
        from adacd_cli.backends.llamacpp.backend import LlamaCppBackend

        return LlamaCppBackend(model)
    from adacd_cli.backends.torch.backend import TorchBackend

    return TorchBackend(model)
