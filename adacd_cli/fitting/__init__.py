"""Makes a profile: `corpus` (the prompts), `observe` (first tokens), `learn` (numbers), `fit` (the steps)."""
