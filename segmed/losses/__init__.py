"""Training losses: logits and labels in, a number out."""
