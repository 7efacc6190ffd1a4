"""Reports of segmentation: tables, figures and the page."""
