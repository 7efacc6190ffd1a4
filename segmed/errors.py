"""What goes wrong, one kind of error a domain; each message says what, where, and what to do."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A config, a command line or a plan that can't be used on these data or this machine."""


class DatasetError(ValueError):
    """Files of a data set, its parts, its audit or its cache."""


class DownloadError(ValueError):
    """A file from elsewhere that can't be fetched, checked or unpacked."""


class VolumeError(ValueError):
    """A file of a volume, an image or a label map: what it holds, its grid, its values."""


class GeometryError(VolumeError):
    """A grid that can't be: spacing, axes, position of slices."""


class NetworkError(ValueError):
    """A network, its weights or its loss that can't be built as it is asked for."""


class TrainingError(ValueError):
    """A training that can't go on: NaN, memory, data workers, other processes."""


class RunError(ValueError):
    """A run folder or what it holds: config, weights, figures."""


class UnfinishedError(RunError):
    """A run that is not done yet."""


class JobError(ValueError):
    """A plan of jobs, or an engine that can't carry it out."""


class SegmenterError(ValueError):
    """A segmenter, a classical method or a classifier that has no answer for this input."""


class NoRoomError(VolumeError, SegmenterError):
    """A volume that needs more memory than is free now."""


class CardiacError(ValueError):
    """A heart whose label map does not hold what a figure needs."""


class MetricError(ValueError):
    """Figures that these cases do not bear."""


class DiskError(OSError):
    """A disk that takes nothing more; what was written before stays whole."""

    def __str__(self) -> str:
        """The reason without the system's number of it."""
        return str(self.strerror or super().__str__())


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that was probably meant; None where none is near."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """End of an error about an unknown name: the nearest known name, or all of them."""
    known = list(known)
    near = nearest(name, known)
    return f": did you mean '{near}'?" if near else f": known are {', '.join(known) or 'none'}"
