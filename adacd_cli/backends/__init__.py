"""Who computes: torch or llama.cpp in this process, or somebody's server, each an `engine.backend.Backend`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adacd_cli.engine.backend import Backend
    from adacd_cli.engine.model import LanguageModel


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
