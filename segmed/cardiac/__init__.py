"""The left ventricle in numbers: its short axis, the 17 segments, scar mass, transmurality and the bullseye."""
