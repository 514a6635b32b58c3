"""AdaCD decoding: a chat model stops refusing harmless questions, and each token says why. The public
API is what `__all__` names. Names are imported when they are first used, so that importing the package costs
nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from adacd_cli.answers import Answer, Session, decode, generate, stream
    from adacd_cli.config import Resolved, Settings, resolve
    from adacd_cli.conversation import Conversation, Message
    from adacd_cli.engine import LanguageModel, Request, Scheduler
    from adacd_cli.errors import AdacdError
    from adacd_cli.events import (
        Candidate,
        Decision,
        Event,
        Failed,
        Finished,
        FinishReason,
        Measures,
        Notice,
        Started,
        TokenLogprob,
        TokenStep,
        from_json,
        to_json,
    )
    from adacd_cli.loading import load, load_extras
    from adacd_cli.prompts import Contrast, Prompts, build_prompts, prompts_for

_HOMES = {
    "adacd_cli.answers": ("Answer", "Session", "decode", "generate", "stream"),
    "adacd_cli.config": ("Resolved", "Settings", "resolve"),
    "adacd_cli.conversation": ("Conversation", "Message"),
    "adacd_cli.engine": ("LanguageModel", "Request", "Scheduler"),
    "adacd_cli.errors": ("AdacdError",),
    "adacd_cli.loading": ("load", "load_extras"),
    "adacd_cli.prompts": ("Contrast", "Prompts", "build_prompts", "prompts_for"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["AdacdError", "Answer", "Candidate", "Contrast", "Conversation", "Decision", "Event", "Failed"]
__all__ += ["FinishReason", "Finished", "LanguageModel", "Measures", "Message", "Notice", "Prompts"]
__all__ += ["Request", "Resolved", "Scheduler", "Session", "Settings", "Started", "TokenLogprob"]
__all__ += ["TokenStep", "__version__", "build_prompts", "decode", "from_json", "generate", "load"]
__all__ += ["load_extras", "prompts_for", "resolve", "stream", "to_json"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF.get(name, "adacd_cli.events")), name)  # most are events
