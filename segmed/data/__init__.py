"""Cases, splits, preprocessing, patches: from files to batches."""
