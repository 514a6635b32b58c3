"""The decoding engine: one scheduler over a backend of sequences, the rules, one event per token."""

from adacd_cli.engine.backend import Backend, Capabilities
from adacd_cli.engine.memory import fitting_concurrency
from adacd_cli.engine.model import LanguageModel, Request, validate
from adacd_cli.engine.prefix_cache import PrefixCache
from adacd_cli.engine.scheduler import Scheduler

__all__ = ["Backend", "Capabilities", "LanguageModel", "PrefixCache", "Request", "Scheduler"]
__all__ += ["fitting_concurrency", "validate"]
