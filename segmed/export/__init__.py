"""Results and models in the forms that others read: model files, cards, engines, bundles, DICOM-SEG, BIDS."""
