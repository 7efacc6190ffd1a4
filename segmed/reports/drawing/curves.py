"""history.csv of a run -> its training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segmed.reports.drawing.label_colours import label_colours
from segmed.reports.drawing.slices import INK

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")  # Okabe and Ito

SPOKEN = {"loss": "training", "validation/loss": "validation"}


def training_curves(history: Mapping[str, Sequence[tuple[float, float]]], *, title: str = "") -> Figure | None:
    """Losses, figures of validation and, of adversarial training, of the discriminator; None where there is none.

    Args:
        history: of `read_history`.
        title: above the figure.
    """
    losses = [name for name in history if name in ("loss", "validation/loss") or name.startswith("loss/")]
    dice = [name for name in history if name.startswith("dice/")] or [name for name in history if name == "score"]
    adversary = [f"discriminator/{name}" for name in ("real", "fake", "accuracy", "distance")]
    adversary = [name for name in adversary if name in history]
    every = ((losses, "loss"), (dice, "validation Dice"), (adversary, "discriminator"))
    panels = [(names, text) for names, text in every if names]
    if not panels:
        return None
    figure = Figure(figsize=(3.8 * len(panels), 2.6), layout="constrained")
    for axes, (names, text) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        labels = {name: SPOKEN.get(name, name.split("/", 1)[-1]) for name in names}
        if text == "validation Dice":
            draw_curves(axes, history, labels, text, marker="o", colours=label_colours(list(labels.values())))
        else:
            labels = dict(list(labels.items())[: len(COLOURS)])
            draw_curves(axes, history, labels, text)
    if title:
        figure.suptitle(title, fontsize=9, color=INK)
    return figure


def draw_curves(
    axes: Axes,
    history: Mapping[str, Sequence[tuple[float, float]]],
    labels: Mapping[str, str],
    text: str,
    *,
    marker: str | None = None,
    colours: Sequence[str] = COLOURS,
) -> None:
    """Some columns of a history over the steps.

    Args:
        axes: where.
        history: of `read_history`.
        labels: column -> its name in the legend; one alone needs none.
        text: beside the axis of the values.
        marker: of the points; None: lines alone.
        colours: of the lines, in their order.
    """
    for (name, label), colour in zip(labels.items(), cycle(colours), strict=False):
        steps, values = zip(*history[name], strict=True)
        axes.plot(steps, values, color=colour, linewidth=1, marker=marker, markersize=3, label=label)
    axes.set_xlabel("step", fontsize=8, color=INK)
    axes.set_ylabel(text, fontsize=8, color=INK)
    axes.tick_params(labelsize=7, colors=INK, width=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if len(labels) > 1:
        axes.legend(fontsize=7, frameon=False)
