"""The names of the decoding methods, for whoever checks a name before torch is imported.

`engine.rules.METHODS` holds the methods themselves; a test keeps the two alike.
"""

METHOD_NAMES = ("adacd", "adacd-gated", "default")
