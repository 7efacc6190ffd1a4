"""Data of classification: pictures and volumes with a class, their subjects, parts and batches."""
