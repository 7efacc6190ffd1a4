"""Config -> objects, run folder -> objects: the only place where a name becomes a class."""
