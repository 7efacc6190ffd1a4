"""A classifier's answers to images whose class is known, and the table of them: predictions.csv."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from pathlib import Path

import numpy as np
from scipy.special import softmax

from segmed.errors import RunError
from segmed.files import atomic_write_text, csv_text, from_cell

NOTE = "# "  # begins the lines above the header of a table
LEAKING = "LEAKING SPLIT"  # begins or is in the notes that no reader may miss
NEEDED = ("id", "subject", "truth")
PROBABILITY, CALIBRATED, LOGIT = "probability ", "calibrated ", "logit "  # each before the name of a class


@dataclass(frozen=True)
class Answers:
    """A classifier's answers to one part of a data set.

    Attributes:
        classes: K names, in the order of the logits.
        ids: N names of images, each once.
        subjects: N names, whose image each is; the id where nobody knows.
        truth: (N,) int, index into classes.
        logits: (N, K) float64.
        minutes: that classifying took; None: not known.

    Raises:
        RunError: other lengths, no image, one twice, a class that does not exist, logits that are not finite.
    """

    __test__ = False

    classes: tuple[str, ...]
    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    truth: np.ndarray
    logits: np.ndarray
    minutes: float | None = None

    def __post_init__(self) -> None:
        for name, dtype in (("truth", np.intp), ("logits", np.float64)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=dtype))
        for name in ("classes", "ids", "subjects"):
            object.__setattr__(self, name, tuple(map(str, getattr(self, name))))
        self._check()

    def _check(self) -> None:
        count = len(self.ids)
        if not count:
            raise RunError("no image was classified: the part is empty, see the split")
        shape = (count, len(self.classes))
        if self.logits.shape != shape or self.truth.shape != (count,) or len(self.subjects) != count:
            raise RunError(
                f"logits {self.logits.shape}, truth {self.truth.shape} and {len(self.subjects)} subjects do not fit "
                f"{count} images and {len(self.classes)} classes: give one of each an image"
            )
        name, times = Counter(self.ids).most_common(1)[0]
        if times > 1:
            raise RunError(f"image '{name}' was classified {times} times: give every image once")
        outside = np.flatnonzero((self.truth < 0) | (self.truth >= shape[1]))
        if outside.size:
            raise RunError(
                f"image '{self.ids[outside[0]]}' is of class {self.truth[outside[0]]}, the model has {shape[1]} "
                f"(from 0): test images of classes that training had"
            )
        broken = np.flatnonzero(~np.isfinite(self.logits).all(axis=1))
        if broken.size:
            raise RunError(
                f"logits of image '{self.ids[broken[0]]}' are not finite ({broken.size} of {count} images): look for "
                "broken pixels, or for a loss that became NaN in training"
            )

    @property
    def probabilities(self) -> np.ndarray:
        """(N, K), softmax of the logits."""
        return softmax(self.logits, axis=1)

    @property
    def labels(self) -> np.ndarray:
        """(N,) int, the most probable class; of equal ones the first."""
        return self.logits.argmax(axis=1)

    def calibrated(self, temperature: float) -> np.ndarray:
        """(N, K), softmax of the logits divided by a temperature that validation gave."""
        return softmax(self.logits / temperature, axis=1)


def joined(tests: Sequence[Answers]) -> Answers:
    """Test parts of several folds as one."""
    return Answers(
        classes=tests[0].classes,
        ids=tuple(name for test in tests for name in test.ids),
        subjects=tuple(name for test in tests for name in test.subjects),
        truth=np.concatenate([test.truth for test in tests]),
        logits=np.concatenate([test.logits for test in tests]),
    )


def save_answers(test: Answers, path: Path, *, temperature: float | None = None, notes: Sequence[str] = ()) -> None:
    """Write a row an image, from which `read_answers` gets the same figures.

    Args:
        test: the images.
        path, temperature, notes: as in `save_predictions`.

    Raises:
        DiskError: no space, or no permission.
    """
    known = {"subject": test.subjects, "truth": [test.classes[label] for label in test.truth]}
    save_predictions(path, test.classes, test.ids, test.logits, known=known, temperature=temperature, notes=notes)


def save_predictions(
    path: Path,
    classes: Sequence[str],
    ids: Sequence[str],
    logits: np.ndarray,
    *,
    known: Mapping[str, Sequence[str]] | None = None,
    temperature: float | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write a row an image: id, what is known of it, the answer, and a column a class of each kind of output.

    These are probabilities, calibrated probabilities, and logits.

    Args:
        path: of the CSV file.
        classes: K names.
        ids: N names of images.
        logits: (N, K).
        known: column -> N texts, such as subject and truth.
        temperature: of the calibrated columns; None: there are none.
        notes: one line each above the header, begun with "# ".

    Raises:
        DiskError: no space, or no permission.
    """
    known = known or {}
    logits = np.asarray(logits, dtype=np.float64)
    blocks = [(PROBABILITY, softmax(logits, axis=1), ".6g")]
    blocks += [] if temperature is None else [(CALIBRATED, softmax(logits / temperature, axis=1), ".6g")]
    blocks += [(LOGIT, logits, "")]  # all digits: the same figures come out of the table
    columns = ["id", *known, "predicted", *(f"{kind}{name}" for kind, _, _ in blocks for name in classes)]
    rows = []
    for number, (name, label) in enumerate(zip(ids, logits.argmax(axis=1), strict=True)):
        values = [format(float(value), digits) for _, outputs, digits in blocks for value in outputs[number]]
        texts = [name, *(column[number] for column in known.values()), classes[label]]
        rows.append(dict(zip(columns, [*texts, *values], strict=True)))
    atomic_write_text(path, note_lines(notes) + csv_text(columns, rows))


def note_lines(notes: Sequence[str]) -> str:
    """Notes as the lines above the header of a CSV file; `pandas.read_csv(..., comment="#")` skips them."""
    return "".join(f"{NOTE}{' '.join(note.split())}\n" for note in notes)


def read_answers(path: Path) -> Answers:
    """Images as `save_answers` wrote them, without the minutes.

    Raises:
        RunError: no such table, a column or a number is missing, a truth that is none of the classes.
    """
    if not path.is_file():
        raise RunError(f"{path} is not there: test the run first")
    with path.open(encoding="utf-8", newline="") as file:
        lines = file.read().splitlines(keepends=True)
    reader = csv.DictReader(io.StringIO("".join(dropwhile(lambda line: line.startswith(NOTE), lines)), newline=""))
    columns = list(reader.fieldnames or ())
    classes = tuple(column.removeprefix(LOGIT) for column in columns if column.startswith(LOGIT))
    missing = [column for column in NEEDED if column not in columns]
    if missing or len(classes) < 2:
        what = f"no column '{missing[0]}'" if missing else "no column of logits for each of two or more classes"
        raise RunError(f"{path} has {what}: give a table that segmed wrote")
    rows = [{key: from_cell(cell) if key in NEEDED and cell else cell for key, cell in row.items()} for row in reader]
    unknown = [row for row in rows if row["truth"] not in classes]
    if unknown:
        raise RunError(f"{path}: truth '{unknown[0]['truth']}' of '{unknown[0]['id']}' is no class of the table")
    try:
        logits = np.array([[float(row[LOGIT + name]) for name in classes] for row in rows])
    except (TypeError, ValueError) as error:
        raise RunError(f"{path} holds a logit that is no number ({error}): test the run again") from error
    truth = np.array([classes.index(row["truth"]) for row in rows], dtype=np.intp)
    ids, subjects = (tuple(row[key] for row in rows) for key in ("id", "subject"))
    return Answers(classes, ids, subjects, truth, logits.reshape(len(rows), len(classes)))


def read_notes(path: Path) -> tuple[str, ...]:
    """The notes above the header of a table."""
    with path.open(encoding="utf-8") as file:
        return tuple(line.removeprefix(NOTE).strip() for line in takewhile(lambda line: line.startswith(NOTE), file))
