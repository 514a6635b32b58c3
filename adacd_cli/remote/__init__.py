"""AdaCD over somebody else's engine: the weights stay in a running server, the rule runs here.

`load.load_served` makes a `LanguageModel` of an address; its decoder asks the server (`decoder`, `answer`) in
its own dialect (`dialects`). It reads a tokenizer and no weights.
"""
