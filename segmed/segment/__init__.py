"""Segmentation by one network: prepare, plan, train, validate, test, predict."""
