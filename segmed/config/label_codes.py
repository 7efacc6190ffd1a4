"""Codes that say what a label shows, in words that a PACS understands: `SCT 49848007 Left Ventricle Myocardium`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

STRUCTURE = "SCT 91723000 Anatomical Structure"
ABNORMAL = "SCT 49755003 Morphologically Altered Structure"
SUBSTANCE = "SCT 91720002 Body Substance"
LEFT_VENTRICLE = "SCT 87878005 Left ventricle"
CODE = re.compile(r"([A-Z0-9]{2,16}) (\S{1,16}) (\S.{0,63})")
PARTS = ("category", "region", "modifier")

_POOL = f"SCT 87612001 Blood; category {SUBSTANCE}; region {LEFT_VENTRICLE}"
_MUSCLE = "SCT 49848007 Left Ventricle Myocardium"
_TUMOUR = f"SCT 108369006 Tumor; category {ABNORMAL}"
KNOWN_CODES = {
    **dict.fromkeys(("myocardium", "wall", "lv_wall", "lv_myocardium"), _MUSCLE),
    **dict.fromkeys(("blood_pool", "lv_blood_pool", "lv_cavity", "pool"), _POOL),
    **dict.fromkeys(("rv", "right_ventricle"), "SCT 53085002 Right ventricle"),
    **dict.fromkeys(("left_atrium", "la"), "SCT 82471001 Left atrium"),
    "scar": f"DCM 122113 Scarred Myocardium; category {ABNORMAL}; region {LEFT_VENTRICLE}",
    **dict.fromkeys(("oedema", "edema"), f"SCT 79654002 Edema; category {ABNORMAL}"),
    "hippocampus": "SCT 5366008 Hippocampus",
    "anterior": "SCT 5366008 Hippocampus; modifier SCT 255549009 Anterior",
    "posterior": "SCT 5366008 Hippocampus; modifier SCT 255551008 Posterior",
    **dict.fromkeys(("tumour", "tumor", "core", "enhancing", "non_enhancing"), _TUMOUR),
    "necrosis": f"SCT 6574001 Necrosis; category {ABNORMAL}",
    "csf": f"SCT 65216001 Cerebrospinal Fluid; category {SUBSTANCE}",
    **dict.fromkeys(("grey_matter", "gray_matter"), "SCT 389081007 Gray Matter"),
    "white_matter": "SCT 389080008 White Matter",
    "vessel": "SCT 59820001 Blood Vessel",
}  # names in segmed's configs -> codes of DICOM's context groups (PS3.16), as pydicom lists them


@dataclass(frozen=True)
class Code:
    """One concept of a coding scheme.

    Attributes:
        scheme: `SCT` (SNOMED CT), `DCM` (DICOM itself), or `99...` of one's own.
        value: number or letters of the concept.
        meaning: in words, at most 64 letters.
    """

    scheme: str
    value: str
    meaning: str

    @classmethod
    def of(cls, text: str) -> Code:
        """From `SCHEME VALUE MEANING`.

        Raises:
            ValueError: not of that form.
        """
        match = CODE.fullmatch(text.strip())
        if match is None:
            raise ValueError(
                f"code '{text.strip()}' is not SCHEME VALUE MEANING: write it as {STRUCTURE}, of at most 64 letters"
            )
        return cls(match[1], match[2], match[3])


@dataclass(frozen=True)
class SegmentCode:
    """What a label shows.

    Attributes:
        type: the structure, the substance or the change.
        category: which of these it is.
        region: where it lies; None: the type says it.
        modifier: which part or side of it.
    """

    type: Code
    category: Code
    region: Code | None = None
    modifier: Code | None = None

    @classmethod
    def of(cls, text: str) -> SegmentCode:
        """From `TYPE; category CODE; region CODE; modifier CODE`, of which the type alone is needed.

        Raises:
            ValueError: a code or a part that is not understood.
        """
        first, *others = text.split(";")
        parts: dict[str, Code] = {}
        for other in others:
            name, _, code = other.strip().partition(" ")
            if name not in PARTS or name in parts:
                raise ValueError(f"code '{text}': '{name}' is no further part: parts are {', '.join(PARTS)}, each once")
            parts[name] = Code.of(code)
        return cls(Code.of(first), parts.pop("category", Code.of(STRUCTURE)), **parts)


def code_of(label: str, given: Mapping[str, str]) -> SegmentCode | None:
    """The code of a label that a config gives, or that of a name that segmed knows; None for others."""
    text = given.get(label) or KNOWN_CODES.get(label.strip().lower().replace(" ", "_").replace("-", "_"))
    return SegmentCode.of(text) if text else None
