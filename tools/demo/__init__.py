"""How the demo model was made: corpus, training, and the prompts that measure it. Not part of the wheel.

`build` trains, `measure` measures on the held-out prompts, `card` writes the model card.
"""
