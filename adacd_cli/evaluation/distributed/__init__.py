"""An evaluation over the GPUs and nodes of a Ray cluster: the driver keeps the run's folder, workers decode.

address    what --ray was given, and whether anything answers there (no Ray needed)
cluster    joining or starting Ray, and how many workers fit
driver     pieces of work, sent out and written down as answers come back
workers    one model each, run by Ray Data
"""
