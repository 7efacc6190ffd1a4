"""Reports of classification: tables, figures, maps and the page."""
