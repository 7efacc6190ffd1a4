"""Test cases scored, summed up and compared; nothing here draws."""
