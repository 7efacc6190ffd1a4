"""Classification experiments: from a config to a tested run, and from a run to the classes of new images."""
