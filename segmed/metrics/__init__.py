"""What a result is worth: figures of one case, and of many."""
