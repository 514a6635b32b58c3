"""What a model was found to need: the file that `adacd fit` makes."""
