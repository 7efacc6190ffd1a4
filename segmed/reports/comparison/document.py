"""What a comparison says, in titles, sentences and tables -> Markdown for a terminal and a file, and the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from segmed.evaluate.comparable import training_text
from segmed.evaluate.comparison import Comparison
from segmed.evaluate.results import Method, Result
from segmed.files import atomic_write_text, write_json
from segmed.reports.drawing.slices import save_figure
from segmed.reports.rendering import pictures_in, write_page
from segmed.reports.segmentation.tables import NONE, escaped

Writing = Callable[[str], str]  # how a name is written: `escaped` in Markdown, `str` on a page, which escapes by itself
CAPTIONS = {
    "comparison": "What each method reaches, and its paired differences to the reference.",
    "bland_altman": "Volumes of every method against the reference's: bias and limits of agreement.",
    "bland_altman_truth": "Volumes of every method against those that the phantoms were made with.",
}


@dataclass(frozen=True)
class Table:
    """Cells as text.

    Attributes:
        head: of the columns.
        rows: below it.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def without_empty(self, *, first: int) -> Table:
        """Without the columns, from `first` on, of which nothing is known for anybody."""
        kept = [i for i in range(len(self.head)) if i < first or any(row[i] != NONE for row in self.rows)]
        return Table([self.head[i] for i in kept], [[row[i] for i in kept] for row in self.rows])

    def markdown(self) -> list[str]:
        """Lines, padded for a terminal."""
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        head, *rows = (
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
            for line in (self.head, *self.rows)
        )
        return [head, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *rows]


@dataclass(frozen=True)
class Section:
    """A table with what stands above it.

    Attributes:
        title: none: the table belongs to what stands before.
        table: below it.
        meaning: sentences between them.
    """

    title: str
    table: Table
    meaning: Sequence[str] = ()


@dataclass(frozen=True)
class Document:
    """A comparison.

    Attributes:
        title: above all.
        sections: below the rest.
        meaning: what one must know to read the figures, a line each.
        run_notes: that stand above every table.
        notes: others.
        key: the numbers one looks for first: value, unit, what it is; on the page.
    """

    title: str
    sections: Sequence[Section]
    meaning: Sequence[str] = ()
    run_notes: Sequence[str] = ()
    notes: Sequence[str] = ()
    key: Sequence[tuple[str, str, str]] = ()


def markdown(document: Document) -> str:
    """The document for a file and a terminal."""
    lines = [f"# {document.title}", ""]
    if document.meaning:
        lines += [*(f"{line}  " for line in document.meaning[:-1]), document.meaning[-1], ""]
    of_runs, others = ([f"- **Note:** {note}" for note in notes] for notes in (document.run_notes, document.notes))
    lines += _apart(of_runs + others)
    for section in document.sections:
        if section.title:
            lines += [f"## {section.title}", "", *_apart(of_runs)]
        lines += [*_apart(list(section.meaning)), *section.table.markdown(), ""]
    return "\n".join(lines)


def _apart(lines: list[str]) -> list[str]:
    """Lines and an empty one after them; none where there is none."""
    return [*lines, ""] if lines else []


def write_comparison_files(
    document: Callable[..., Document],
    folder: Path,
    *,
    table: str,
    data: Mapping[str, Any],
    figure: Figure,
    suffix: str = "",
) -> str:
    """Write comparison.md, comparison.csv, comparison.json, comparison.png and report.html.

    Args:
        document: `written`, the way in which names are written -> the comparison.
        folder: made where it does not exist; files of an earlier comparison are replaced.
        table: text of comparison.csv.
        data: of comparison.json.
        figure: of comparison.png.
        suffix: of the files' names.

    Returns:
        The text of comparison.md.

    Raises:
        DiskError: the folder can't be written.
    """
    text = markdown(document(written=escaped))
    stem = f"comparison{suffix}"
    atomic_write_text(folder / f"{stem}.md", text)
    atomic_write_text(folder / f"{stem}.csv", table)
    write_json(folder / f"{stem}.json", data)
    save_figure(figure, folder / f"{stem}.png", dpi=200)
    write_comparison_page([document(written=str)], folder, suffix=suffix)
    return text


def write_comparison_page(documents: Sequence[Document], folder: Path, *, suffix: str = "") -> Path:
    """Write report.html: documents below each other, then the figures that lie in the folder.

    Args:
        documents: whose names are written as they are (`str`).
        folder: of the comparison.
        suffix: of the files' names.

    Raises:
        DiskError: the folder can't be written.
    """
    captions = {f"{stem}{suffix}": caption for stem, caption in CAPTIONS.items()}
    return write_page(
        folder / f"report{suffix}.html",
        "comparison.html",
        title=documents[0].title,
        documents=documents,
        pictures=pictures_in(folder, captions),
    )


# ---------------------------------------------------------------- what both kinds of comparison show


def methods_section(
    methods: Sequence[tuple[str, Method, Mapping[str, str]]], *, training: str, written: Writing
) -> Section:
    """What was compared, and what it cost.

    Args:
        methods: name as it is written, results, and what else is known of it, as column -> text.
        training: head of the column of what it learned from.
        written: how names are.
    """
    rows = []
    for name, method, known in methods:
        budgets = " and ".join(dict.fromkeys(result.budget for result in method.results if result.budget))
        row = {"method": name, "runs": str(len(method.results)), **known}
        rows.append({**row, "budget of a run": written(budgets) or NONE, training: training_text(method) or NONE})
    return Section("", Table(list(rows[0]), [list(row.values()) for row in rows]).without_empty(first=2))


def reference_named(name: str, reference: str, written: Writing) -> str:
    """A method's name, the reference marked."""
    return f"{written(name)} (reference)" if name == reference else written(name)


def against_text(comparison: Comparison) -> str:
    """With what methods are compared: the reference, where no family has another."""
    others = {family.against for family in comparison.families}
    return "the one of its family" if others - {comparison.reference} else comparison.reference


def families_text(comparison: Comparison, written: Writing) -> list[str]:
    """The families, and why a p is not there, a line each."""
    lines = []
    for family in comparison.families:
        figures = [figure for figure in comparison.figures.values() if figure.family == family.name]
        tests = sorted({figure.tests for figure in figures if figure.tests})
        count = f"{tests[0]} to {tests[-1]}" if len(tests) > 1 else f"{tests[0] if tests else 0}"
        reasons = list(dict.fromkeys(figure.no_p for figure in figures if figure.no_p))
        why = f"; {NONE}: {'; '.join(reasons)}" if reasons else ""
        plural = "" if count == "1" else "s"
        lines.append(
            f"Family {written(family.name)}: {len(family.methods)} against {written(family.against)}, {count} "
            f"test{plural} a metric{why}."
        )
    return lines


def short_number(value: float | None) -> str:
    """Three figures; – where nothing is known."""
    return NONE if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def p_text(p: float | None) -> str:
    """Three decimals; never 0."""
    return NONE if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def signed(value: float | None, decimals: int) -> str:
    """A difference."""
    return NONE if value is None else f"{value:+.{decimals}f}".replace("-", "−")


def signed_interval(ends: tuple[float, float] | None, decimals: int) -> str:
    """The interval of a difference."""
    return NONE if ends is None else f"[{signed(ends[0], decimals)}, {signed(ends[1], decimals)}]"


# ---------------------------------------------------------------- CSV and JSON


def with_ends(figure: Any) -> dict[str, Any]:
    """Fields of a figure of a comparison, with the ends of its intervals apart."""
    low, high = figure.ci95 or (None, None)
    difference_low, difference_high = figure.difference_ci95 or (None, None)
    ends = {"ci95_low": low, "ci95_high": high, "difference_low": difference_low, "difference_high": difference_high}
    return {**vars(figure), **ends}


def run_data(result: Result, *known: str, cases: str, **more: Any) -> dict[str, Any]:
    """What comparison.json says of a run.

    Args:
        result: its figures and costs.
        known: names of its fields.
        cases: key of the numbers of its training cases.
        more: what stands before them.
    """
    return {name: getattr(result, name) for name in known} | more | {cases: [len(part) for part in result.training]}
