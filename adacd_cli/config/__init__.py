"""The settings: declared in `settings`, merged from all levels by `resolve`."""

from adacd_cli.config.resolve import Resolved, Source, change, change_all, find_setting, resolve
from adacd_cli.config.setting import Setting
from adacd_cli.config.settings import CONTROLS, SETTINGS, Settings

__all__ = ["CONTROLS", "SETTINGS", "Resolved", "Setting", "Settings", "Source", "change", "change_all"]
__all__ += ["find_setting", "resolve"]
