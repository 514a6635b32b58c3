"""The settings: declared in `settings`, read back by `declaration`, merged from all levels by `resolve`."""

from adacd_cli.config.declaration import SETTINGS
from adacd_cli.config.resolve import Resolved, Source, change, change_all, find_setting, resolve
from adacd_cli.config.settings import CONTROLS, Setting, Settings

__all__ = ["CONTROLS", "SETTINGS", "Resolved", "Setting", "Settings", "Source", "change", "change_all"]
__all__ += ["find_setting", "resolve"]
