"""The settings: declared in `settings`, read back by `declaration`, merged from all levels by `resolve`."""

from adacd_cli.config.declaration import SETTINGS
from adacd_cli.config.resolve import Resolved, Source, change, change_all, find_setting, resolve
from adacd_cli.config.settings import Setting, Settings

__all__ = ["SETTINGS", "Resolved", "Setting", "Settings", "Source", "change", "change_all", "find_setting"]
__all__ += ["resolve"]
