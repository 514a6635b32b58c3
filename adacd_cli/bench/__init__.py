"""How fast a model decodes on this machine: what `adacd bench` measures, and how it is shown.

Contestants (the methods, and transformers' generate) take turns on prompts of one length; what is measured is
plain numbers, and the rows made of them go into a table, a picture or JSON.
"""
