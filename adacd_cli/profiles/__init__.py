"""What a model was found to need: the file that `adacd fit` makes.

`profile` is the file, `store` finds the one that fits a model."""
