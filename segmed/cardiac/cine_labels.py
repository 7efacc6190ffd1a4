"""What the values of a cine's label maps mean: blood pools of both ventricles, and the LV's wall."""

from __future__ import annotations

from dataclasses import dataclass

from segmed.cardiac.heart_labels import label_values
from segmed.errors import CardiacError
from segmed.labels import LabelSet

# Names that a run's labels have in the configs of segmed and in public data sets; the first that are all there count.
USUAL = {
    "pool": (("lv_cavity",), ("blood_pool",), ("lv_blood_pool",), ("lv",)),
    "wall": (("myocardium", "scar"), ("myocardium",), ("lv_myocardium",)),
    "rv": (("rv",), ("rv_cavity",), ("rv_blood_pool",)),
}


@dataclass(frozen=True)
class CineValues:
    """Values in the label maps.

    Attributes:
        pool: of the LV's blood pool, papillary muscles included; empty: what the wall encloses in a slice.
        wall: of the LV's myocardium; empty: not labelled, so that no mass is known.
        rv: of the right ventricle's blood pool; empty: not labelled.
        names: tissue -> the one label or region of a run that has all its values, by which its volume is known there.

    Raises:
        CardiacError: neither pool nor wall, background among them, or one value for two tissues.
    """

    pool: tuple[int, ...]
    wall: tuple[int, ...] = ()
    rv: tuple[int, ...] = ()
    names: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.pool and not self.wall:
            raise CardiacError("which values are the LV's blood pool can't be known: give --pool, as --pool 3")
        if 0 in {*self.pool, *self.wall, *self.rv}:
            raise CardiacError("value 0 is background: give the values of the tissues")
        for first, second in (("pool", "wall"), ("pool", "rv"), ("wall", "rv")):
            if both := set(getattr(self, first)) & set(getattr(self, second)):
                raise CardiacError(f"value {min(both)} stands for {first} and {second}: give it to one of them")

    def label_of(self, tissue: str) -> str | None:
        """The run's label of a tissue; None where it is no single one."""
        return dict(self.names).get(tissue)


def cine_values(pool: str | None, wall: str | None, rv: str | None, *, labels: LabelSet | None = None) -> CineValues:
    """Read the values from texts as `3` or `2,4`.

    Args:
        pool, wall, rv: whole numbers, or names of labels where there is a run; None: the usual names of the run's
            labels, where it has them.
        labels: of the run; None: nothing is taken for granted.

    Raises:
        CardiacError: values that can't be.
        VolumeError: no number, or an unknown name.
    """
    texts = {"pool": pool, "wall": wall, "rv": rv}
    values: dict[str, tuple[int, ...]] = {}
    names: list[tuple[str, str]] = []
    for tissue, text in texts.items():
        given = _usual(tissue, labels) if text is None else text
        values[tissue] = label_values(tissue, given, labels) if given else ()
        if labels is not None and values[tissue]:
            names += [(tissue, name) for name in _named(values[tissue], labels)]
    return CineValues(**values, names=tuple(names))


def _usual(tissue: str, labels: LabelSet | None) -> str:
    known = set() if labels is None else {*labels.names, *labels.regions}
    return next((",".join(names) for names in USUAL[tissue] if known.issuperset(names)), "")


def _named(values: tuple[int, ...], labels: LabelSet) -> list[str]:
    """The label or region that has these values and no other."""
    every = [*labels.names, *labels.regions]
    return [name for name in every if set(label_values("pool", name, labels)) == set(values)][:1]
