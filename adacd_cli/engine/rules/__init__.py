"""The decoding methods by name. A new one is a file beside this one, a line here and in `config.methods`."""

from __future__ import annotations

from adacd_cli.engine.rules.adacd import adacd, gated
from adacd_cli.engine.rules.base import Method
from adacd_cli.engine.rules.default import default

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("adacd", "Contrast with a refusal-prompted stream, first k tokens.", adacd, contrasts=True),
        Method(
            "adacd-gated",
            "AdaCD only while the answer follows the refusal's own tokens.",
            gated,
            contrasts=True,
            follows_track=True,
        ),
        Method("default", "Plain decoding of the unprompted stream.", default, contrasts=False),
    )
}
