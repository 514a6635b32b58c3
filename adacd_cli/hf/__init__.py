"""AdaCD in transformers' own `generate`: `model.generate(**inputs, custom_generate=adacd, …)`.

It works on a model and a tokenizer that the caller loaded, and changes neither. Only torch and transformers
are used of theirs; the streams and the rules are the engine's.
"""

from adacd_cli.hf.generate import adacd
from adacd_cli.hf.inputs import inputs_for

__all__ = ["adacd", "inputs_for"]
