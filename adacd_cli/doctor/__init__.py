"""The doctor: whether this machine, this model and its chat template are fit for AdaCD."""
