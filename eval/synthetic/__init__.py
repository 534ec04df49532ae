"""A rendered world with questions about it: data for the learned tiny model and its benchmark.

An instrument for comparing methods on a laptop. Its numbers say nothing about the 7B model.
"""
