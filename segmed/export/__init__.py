"""What leaves the laboratory: model files, their cards, networks for other engines, bundles."""
