"""Makes a profile: `corpus` (prompts), `observe` (first tokens, answers), `learn` (numbers), `fit` (steps)."""
