"""How far predicted cases can be trusted -> trust.csv, a row a case and structure, and lines for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from segmed.files import atomic_write_text, csv_text

TABLE = "trust.csv"
DIGITS = 4

Judged = tuple[str, Mapping[str, Any]]  # case, `CaseTrust.to_dict`


def write_trust(folder: Path, cases: Sequence[Judged]) -> str:
    """Write trust.csv; gives a line with how many cases have which flag.

    Args:
        folder: of the label maps.
        cases: name and verdict of each.

    Raises:
        DiskError: no space, or no permission.
    """
    cases = [case for case in cases if case[1]]
    unit = str(cases[0][1]["volume_unit"]) if cases else "ml"
    columns = (
        *("case", "flag", "reason", "label", f"volume_{unit}", f"volume_low_{unit}", f"volume_high_{unit}"),
        *("expected_dice", "dice_lower_bound", "failure_probability", "level"),
    )
    rows = [row for case in cases for row in _rows(case, unit)]
    atomic_write_text(folder / TABLE, csv_text(columns, rows, digits=DIGITS))
    counts = Counter(str(trust["flag"]) for _, trust in cases)
    flags = ", ".join(f"{counts[flag]} {flag}" for flag in ("good", "look at it", "do not use"))
    return f"trust: {flags}; intervals and reasons in {folder / TABLE}"


def _rows(case: Judged, unit: str) -> Iterator[dict[str, Any]]:
    name, trust = case
    for structure, each in trust["structures"].items():
        yield {
            "case": name,
            "flag": trust["flag"],
            "reason": trust["reason"],
            "label": structure,
            f"volume_{unit}": each["volume"],
            f"volume_low_{unit}": each["interval"]["low"],
            f"volume_high_{unit}": each["interval"]["high"],
            "expected_dice": each["dice"]["mean"],
            "dice_lower_bound": each["dice"]["lower"],
            "failure_probability": each["dice"]["failure"],
            "level": trust["level"],
        }


def flag_words(trust: Mapping[str, Any]) -> str:
    """The end of a case's line: its flag, and why where it is not good; empty where the run is not calibrated."""
    if not trust:
        return ""
    return ", good" if trust["flag"] == "good" else f", {trust['flag']}: {trust['reason']}"
