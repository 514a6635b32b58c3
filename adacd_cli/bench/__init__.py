"""How fast a model decodes on this machine: what `adacd bench` measures, and how it is shown."""
