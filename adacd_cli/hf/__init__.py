"""AdaCD in transformers' own `generate`, on a model and a tokenizer that the caller loaded. transformers decodes;
the second stream and its rule are a logits processor over the engine's parts."""

from adacd_cli.hf.processor import AdacdLogitsProcessor, adacd
from adacd_cli.hf.prompts import inputs_for

__all__ = ["AdacdLogitsProcessor", "adacd", "inputs_for"]
