"""The decoding engine: two KV caches, the rules, one loop, one event per token."""

from adacd_cli.engine.decode import check_room, decode
from adacd_cli.engine.decoder import Decoder
from adacd_cli.engine.model import LanguageModel
from adacd_cli.engine.places import Places, fitting
from adacd_cli.engine.prefixes import Prefixes
from adacd_cli.engine.protocol import AnyDecoder
from adacd_cli.engine.row import Request
from adacd_cli.engine.session import Session

__all__ = [
    "AnyDecoder",
    "Decoder",
    "LanguageModel",
    "Places",
    "Prefixes",
    "Request",
    "Session",
    "check_room",
    "decode",
    "fitting",
]
