"""The doctor: whether this machine, this model and its chat template are fit for AdaCD.

`machine`, `memory`, `pair` and `behaviour` look; `environment`, `template` and `counts` turn what they saw
into `Finding`s; `examination` goes from one to the next, and `verdict` says what it comes to. A check knows
only the facts it is given, so each is tested with facts of its own making; none knows a terminal.
"""
