"""An evaluation over the GPUs and nodes of a Ray cluster: the driver keeps the run's folder, workers decode."""
