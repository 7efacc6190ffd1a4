"""What makes the site of the pages in docs/: staging, pages that are generated, Sphinx's settings."""
