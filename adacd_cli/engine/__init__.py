"""The decoding engine: two KV caches, one loop, one event per token."""

from adacd_cli.engine.decode import check_room, decode
from adacd_cli.engine.model import LanguageModel
from adacd_cli.engine.row import Request
from adacd_cli.engine.session import Session
from adacd_cli.engine.stream import StreamPair

__all__ = ["LanguageModel", "Request", "Session", "StreamPair", "check_room", "decode"]
