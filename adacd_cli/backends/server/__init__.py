"""A backend over somebody's server: the weights stay there, the rules run here.

`load.load_served` makes a `LanguageModel` of an address and a tokenizer, after `probe` has checked the
server; `backend.ServerBackend` computes over it, through the requests of a `dialect.Dialect`.
"""
