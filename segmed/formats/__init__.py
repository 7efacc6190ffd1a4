"""One module a family of files: voxels and affine in and out, unchecked."""
