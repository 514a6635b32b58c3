"""An evaluation over the GPUs and nodes of a Ray cluster: the driver keeps the run's folder, workers decode.

address    what --ray was given, and whether anything answers there (no Ray needed)
cluster    joining or starting Ray, and how many workers fit
work       what is left to do, and how it and its answers travel
worker     one model, answering what it is sent
drive      sends out the work, writes down what comes back, sends again what was lost
pool       the workers through Ray Data
"""
