"""The doctor: whether this machine, this model and its chat template are fit for AdaCD.

`facts` look at the machine and at the model's files, the rooms of checks turn facts into `Finding`s, and
`examination` goes from one to the next. A check looks only at the facts it is given, so that each is tested
with facts of its own making; none knows a terminal.
"""
