"""Loading: from what `--model` names (hub id, folder, GGUF file, `demo`) to a `LanguageModel` ready to decode.
Everything that can be known without the weights is checked first, from the files alone, so that a wrong model fails
in a moment and says why. It knows nothing of prompts, methods or decoding."""

from adacd_cli.loading.loader import load, load_extras

__all__ = ["load", "load_extras"]
