"""Experiments of several networks: ensembles, cascades, cross-validations."""
