"""A profile of the demo model that is not the one it may come with."""

from __future__ import annotations

from pathlib import Path

from adacd_cli.engine.switches import SwitchNumbers
from adacd_cli.loading import load
from adacd_cli.profiles.fingerprint import fingerprint
from adacd_cli.profiles.store import Profile, write


def save_demo_profile(path: Path) -> str:
    """Writes it: the switch `mass` over one opener, and the contrast prompt after the user's words."""
    demo = load("demo", profile="none")
    (opener,) = demo.tokenizer.encode("I", add_special_tokens=False)
    profile = Profile(
        model="demo",
        fingerprint=fingerprint(demo),
        settings={"switch": "mass", "contrast_placement": "user-end"},
        numbers=SwitchNumbers(openers=(opener,), margin=-1.0),
        verdict="helps a little.",
        date="2026-01-31",
    )
    write(profile, path)
    return str(path)
