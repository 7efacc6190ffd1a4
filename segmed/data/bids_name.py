"""Names of BIDS files <-> their parts: entities such as `sub-01`, a suffix such as `T1w`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segmed.data.case import composed
from segmed.volumes import strip_suffix

WHO_AND_WHEN = ("sub", "ses", "run")  # what tells the cases apart; other entities say how an image was taken
ENTITY = re.compile(r"([A-Za-z]+)-([A-Za-z0-9+]+)")


@dataclass(frozen=True)
class BidsName:
    """The parts of a name, or of the end of one: `acq-lge_T1w`.

    Attributes:
        entities: key -> value in the order of the name; a word without a value, as in `sub-01_T1w_dseg`, has "".
        suffix: the last word, what the file shows.
    """

    entities: Mapping[str, str]
    suffix: str

    @classmethod
    def of(cls, text: Path | str) -> BidsName:
        """The parts of a file's name, whatever its folder and its format."""
        *words, suffix = composed(strip_suffix(text)).split("_")
        matches = {word: ENTITY.fullmatch(word) for word in words}
        return cls(dict((match[1], match[2]) if match else (word, "") for word, match in matches.items()), suffix)

    @property
    def stem(self) -> str:
        """The name without its format."""
        return "_".join([*(f"{key}-{value}" if value else key for key, value in self.entities.items()), self.suffix])

    @property
    def ending(self) -> str:
        """The name without what tells the cases apart."""
        kept = {key: value for key, value in self.entities.items() if key not in WHO_AND_WHEN}
        return BidsName(kept, self.suffix).stem

    @property
    def run(self) -> str | None:
        """Number of the repetition."""
        return self.entities.get("run")

    def fits(self, end: BidsName) -> bool:
        """Whether it has the suffix and all entities of an end."""
        return self.suffix == end.suffix and end.entities.items() <= self.entities.items()
