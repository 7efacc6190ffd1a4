"""Segmentation of 3D cardiac and brain MRI, from files to figures that mean something."""

__version__ = "0.1.0"
