"""The switches: what decides between ADD, SUBTRACT and PLAIN, one file each, a pure function over rows.

`agreement` (the paper's) decides at every step. `mass` and `learned` know the model from a profile and decide once,
at the first token of the answer (`engine.first_token`): what is refused rightly stays in the model's own words, and
the prompted stream is opened only where it is needed."""
