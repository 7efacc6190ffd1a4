"""Cine reports: the volume curve, both phases with contours, files and the page for a clinician."""
