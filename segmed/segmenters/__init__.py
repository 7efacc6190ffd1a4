"""Volume in, probabilities out, whatever is inside."""
