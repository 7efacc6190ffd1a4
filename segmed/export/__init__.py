"""Results and models in the forms that others read: model files, engines, DICOM-SEG, BIDS derivatives."""
