"""The doctor: whether this machine, this model and its chat template are fit for AdaCD.

`machine`, `memory`, `prompts` and `behaviour` each collect facts as plain values and turn them into findings;
`checkup` runs them one after another, and `findings.verdict` says what they come to. None knows a terminal.
"""
