"""The page of a prediction: cases, volumes, and what was predicted, slice by slice."""
