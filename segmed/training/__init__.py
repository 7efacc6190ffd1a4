"""Steps, the loop, checkpoints and tracking."""
