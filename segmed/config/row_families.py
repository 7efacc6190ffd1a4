"""Families of tests of a comparison, fixed before anything is computed: within each, p-values are corrected."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from segmed.config.base import Section


class FamilyConfig(Section):
    """Rows that answer one question, each tested against one row."""

    name: str = Field(description="in tables and notes")
    rows: tuple[str, ...] = Field(description="that are tested; a row stands in one family at most, else has no p")
    against: str | None = Field(None, description="row that they are tested against; none: the reference")


def check_families(families: tuple[FamilyConfig, ...], rows: tuple[str, ...]) -> None:
    """See that families name rows of the comparison, each once.

    Raises:
        ValueError: they do not.
    """
    seen: dict[str, str] = {}
    for family in families:
        named = (*family.rows, *([] if family.against is None else [family.against]))
        if strange := [name for name in named if name not in rows]:
            raise ValueError(f"family '{family.name}': '{strange[0]}' is no row: choose from {', '.join(rows)}")
        if family.against in family.rows:
            raise ValueError(
                f"family '{family.name}': '{family.against}' is tested against itself: leave it out of rows"
            )
        for name in family.rows:
            if name in seen:
                raise ValueError(f"row '{name}' stands in the families '{seen[name]}' and '{family.name}': choose one")
            seen[name] = family.name


def usual_families(kinds: Mapping[str, str], reference: str) -> tuple[FamilyConfig, ...]:
    """A family a kind of row, each against the reference.

    Args:
        kinds: row -> kind, which names the family.
        reference: row that is in none.
    """
    rows: dict[str, list[str]] = {}
    for name, kind in kinds.items():
        if name != reference:
            rows.setdefault(kind, []).append(name)
    return tuple(FamilyConfig(name=kind, rows=tuple(names)) for kind, names in rows.items())
