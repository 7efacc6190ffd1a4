"""Families of tests of a config -> those of the rows that are there."""

from __future__ import annotations

from collections.abc import Set

from segmed.config.compare import CompareConfig
from segmed.evaluate.families import Family


def families_of(config: CompareConfig, present: Set[str]) -> tuple[tuple[Family, ...], list[str]]:
    """Families whose rows are compared, and a note on each that is not tested.

    Args:
        config: of the comparison; --reference may have changed the reference, which is never tested against itself.
        present: rows that are compared.
    """
    families, notes = [], []
    for family in config.tested_families:
        against = family.against or config.reference
        rows = tuple(name for name in family.rows if name in present and name != against)
        if against not in present:
            notes.append(f"family {family.name} is not tested: its row {against} is left out")
        elif rows:
            families.append(Family(family.name, rows, against))
    return tuple(families), notes
