"""What all figures draw alike: slices, panels, curves, distributions."""
