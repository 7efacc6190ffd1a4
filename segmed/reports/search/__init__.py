"""The page of a search over fields of an experiment, with its figures."""
