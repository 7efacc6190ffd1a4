"""Files <-> volumes: NIfTI, NRRD, MetaImage, MGH, DICOM series and 2D images, a file a format."""

from segmed.errors import VolumeError
from segmed.geometry import Header, grid_difference, orientation, resample_onto, spacing_mm, to_canonical
from segmed.volumes.volume_files import (
    VOLUME_SUFFIXES,
    Source,
    header_remarks,
    is_dicom_folder,
    is_picture,
    is_volume_file,
    read_header,
    read_label_volume,
    read_mask,
    read_volume,
    strip_suffix,
    write_volume,
)

__all__ = [
    "VOLUME_SUFFIXES",
    "Header",
    "Source",
    "VolumeError",
    "grid_difference",
    "header_remarks",
    "is_dicom_folder",
    "is_picture",
    "is_volume_file",
    "orientation",
    "read_header",
    "read_label_volume",
    "read_mask",
    "read_volume",
    "resample_onto",
    "spacing_mm",
    "strip_suffix",
    "to_canonical",
    "write_volume",
]
