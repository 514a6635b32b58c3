"""What the backends over models of this process share: everything is done at once, every token chosen here."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from adacd_cli.engine.backend import Backend, Extend, FreeRun, Logits, Sampling, SequenceId
from adacd_cli.engine.memory import is_out_of_memory
from adacd_cli.errors import OutOfMemoryError

_Result = TypeVar("_Result")


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


class LocalBackend(Backend):
    """See `engine.backend.Backend`; subclasses compute."""

    _sequences: Mapping[SequenceId, Any]

    def free_run(self, sequence: SequenceId, sampling: Sampling, max_tokens: int) -> FreeRun:
        raise NotImplementedError

    def forward(self, work: Sequence[Extend]) -> Sequence[Done]:
        return self._guarded(lambda: self._forward(work))

    @abstractmethod
    def _forward(self, work: Sequence[Extend]) -> Sequence[Done]: ...

    def _guarded(self, compute: Callable[[], _Result]) -> _Result:
        """What is computed; where that fails, every sequence is closed."""
        try:
            return compute()
        except BaseException as error:
            self.close(list(self._sequences))
            if not is_out_of_memory(error):
                raise
            shortage = str(error).strip()
        # out here, because the error itself holds on to what did not fit
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        raise OutOfMemoryError(shortage)
