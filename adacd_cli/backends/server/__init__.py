"""A backend over somebody's server: the weights stay there, the rules run here."""
