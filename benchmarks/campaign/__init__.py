"""segmed, nnU-Net and MONAI's DynUNet with the same minutes on the same folds of real data."""
