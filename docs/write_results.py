"""Write the tables of the results pages from the CSV files in docs/results/data/: python docs/write_results.py"""

from __future__ import annotations

import csv
import random
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parent
DATA = DOCS / "results" / "data"
PAGES = (DOCS / "speed.md", *sorted((DOCS / "results").glob("*.md")))
TABLE = re.compile(r"<!-- table ([\w.-]+\.csv) -->\n.*?<!-- end -->", flags=re.S)
MEMBERS = ("", " SD", " low", " high", " SD of runs", " mark")  # of a figure, each a column behind its name
ON_SPEED = ("speed.csv", "growth.csv")  # files that docs/speed.md shows, above their folder
ALONE = ("method", "case")  # columns of a table of cases that are no figures

Row = dict[str, str]


def main() -> None:
    """Write every table of every page anew; what stands between the marks is replaced."""
    for page in PAGES:
        page.write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")


def written(text: str) -> str:
    """A page with its tables as the CSV files give them.

    Args:
        text: with marks `<!-- table NAME.csv -->` and `<!-- end -->`.
    """
    return TABLE.sub(lambda mark: f"<!-- table {mark[1]} -->\n{table(mark[1])}\n<!-- end -->", text)


def table(name: str) -> str:
    """The table of a CSV file as Markdown, with a line that says where its figures come from.

    Args:
        name: of the file in docs/results/data/.
    """
    rows = read(DATA / name)
    source = next(row for row in read(DATA / "sources.csv") if row["file"] == name)
    lines = KINDS[source["kind"]](rows)
    said = SAID[source["kind"]].format(file=f"[{name}](data/{name})", date=source["date"])
    folder = "results/" if name in ON_SPEED else ""
    return "\n".join([*lines, "", f"*{said.replace('](data/', f']({folder}data/')}.*"])


SAID = {
    "per case": "mean ± SD of the rows of cases in {file}, made on {date}",
    "per image": "from the rows of images in {file}, made on {date}; intervals over subjects",
    "as printed": "as printed on {date} ({file}); the rows of cases were not kept",
    "measured": "as measured on {date} ({file})",
}


def read(path: Path) -> list[Row]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def printed_rows(rows: Sequence[Row]) -> list[str]:
    """A table of figures that are known as they were printed; the parts of a figure stand in columns of their own."""
    titles = [
        name
        for name in rows[0]
        if not any(name.endswith(end) and _is_member(name, end, rows[0]) for end in MEMBERS[1:])
    ]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    return [*lines, *("| " + " | ".join(_cell(row, name) for name in titles) + " |" for row in rows)]


def _is_member(name: str, end: str, row: Row) -> bool:
    return name[: -len(end)] in row


def _cell(row: Row, name: str) -> str:
    """`value ± SD [low, high] (SD of runs)` and a mark, of which all but the value may be missing."""
    sd, low, high, of_runs, mark = (row.get(name + end, "") for end in MEMBERS[1:])
    spread = f" ± {sd}" if sd else ""
    interval = f" [{low}, {high}]" if low else ""
    return row[name] + spread + interval + (f" ({of_runs})" if of_runs else "") + mark


def case_means(rows: Sequence[Row]) -> list[str]:
    """A row a method: mean ± SD of every figure over its cases, and the number of cases."""
    figures = [name for name in rows[0] if name not in ALONE]
    lines = ["| method | cases | " + " | ".join(figures) + " |", "|" + "---|" * (len(figures) + 2)]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        cells = [_mean([float(row[name]) for row in own if row[name]], 3 if name == "Dice" else 1) for name in figures]
        lines.append("| " + " | ".join([method, str(len(own)), *cells]) + " |")
    return lines


def image_figures(rows: Sequence[Row]) -> list[str]:
    """A row a method: images and subjects, accuracy with its interval, balanced accuracy and AUC, over all its images.

    Images have `truth`, `answer`, and, of two classes, the `probability` of the second class by name.
    """
    lines = ["| method | images | subjects | accuracy | balanced accuracy | AUC |", "|" + "---|" * 6]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        low, high = accuracy_interval(own)
        classes = sorted({row["truth"] for row in own})
        balanced = statistics.fmean(accuracy([row for row in own if row["truth"] == each]) for each in classes)
        auc = f"{area(own, classes[1]):.3f}" if own[0]["probability"] else "–"
        shown = f"{accuracy(own):.3f} [{low:.3f}, {high:.3f}]"
        subjects = len({row["subject"] for row in own})
        lines.append(f"| {method} | {len(own)} | {subjects} | {shown} | {balanced:.3f} | {auc} |")
    return lines


def accuracy(rows: Sequence[Row]) -> float:
    """Share of images whose answer is the truth."""
    return statistics.fmean(row["answer"] == row["truth"] for row in rows)


def accuracy_interval(rows: Sequence[Row], draws: int = 2000) -> tuple[float, float]:
    """95 % percentile bootstrap of the accuracy: subjects are drawn, with all their images."""
    subjects: dict[str, list[bool]] = {}
    for row in rows:
        subjects.setdefault(row["subject"], []).append(row["answer"] == row["truth"])
    counts = [(sum(right), len(right)) for right in subjects.values()]
    generator = random.Random(0)
    means = []
    for _ in range(draws):
        drawn = generator.choices(counts, k=len(counts))
        means.append(sum(right for right, _ in drawn) / sum(images for _, images in drawn))
    cuts = statistics.quantiles(means, n=40, method="inclusive")
    return cuts[0], cuts[-1]


def area(rows: Sequence[Row], positive: str) -> float:
    """Area under the ROC curve: how often an image of the class is more probable than one of the other; ties half."""
    of_class = [float(row["probability"]) for row in rows if row["truth"] == positive]
    others = [float(row["probability"]) for row in rows if row["truth"] != positive]
    return statistics.fmean((a > b) + 0.5 * (a == b) for a in of_class for b in others)


KINDS = {"per case": case_means, "per image": image_figures, "as printed": printed_rows, "measured": printed_rows}


def _mean(values: Sequence[float], digits: int) -> str:
    if not values:  # as distances where the spacing of the files is not known
        return "–"
    return f"{statistics.fmean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
