"""A label's colour: the same in TensorBoard, in montages and on pages."""

from __future__ import annotations

from collections.abc import Sequence

# Okabe and Ito 2008, apart for every kind of colour vision and on grey, and five more for those who need them.
PALETTE = (
    "#56B4E9", "#009E73", "#CC79A7", "#E69F00", "#4477FF", "#D55E00", "#AA4499", "#F0E442", "#44AA99", "#DDCC77",
    "#EE6677", "#BBBBBB",
)  # fmt: skip
OF_NAMES = {
    "#E69F00": ("scar",),
    "#CC79A7": ("obstruction", "mvo", "no_reflow"),
    "#56B4E9": ("myocardium", "lv_wall", "lv_myocardium", "wall", "myo"),
}


def label_colours(names: Sequence[str], count: int = 0) -> list[str]:
    """Colours of labels 1, 2, ...: a muscle and its scar have those of the scar's page, whatever their order.

    Args:
        names: of the labels, in their order; none: colours in the order of the palette.
        count: of labels, where more may be drawn than have a name.
    """
    given = {name: colour for colour, known in OF_NAMES.items() for name in known}
    fixed = [given.get(name.lower()) for name in names]
    free = [colour for colour in PALETTE if colour not in fixed]
    rest = iter([*free, *PALETTE * (1 + max(count, len(names)) // len(PALETTE))])
    first = [colour if colour and colour not in fixed[:place] else next(rest) for place, colour in enumerate(fixed)]
    return [*first, *(next(rest) for _ in range(count - len(first)))]
