"""Scar reports: figures, files and the page for a clinician."""
