"""Records of the files of a data set, its classes and its twins -> findings, one line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from segmed.data.findings import Finding, from_error
from segmed.data.images.image_dataset import ClassDataset
from segmed.data.leaks.image_facts import Record
from segmed.data.leaks.neighbours import expected_across
from segmed.data.leaks.shortcuts import TOGETHER, Shortcut
from segmed.data.leaks.twins import Twin, twin_groups

FEW_SUBJECTS = 5  # of a class with fewer subjects some folds have none
DIM = 4.0  # a picture whose range is this many times below the median is dark, or of another scale
TEST = 0.2  # share of the pictures that a random split would take for its test part
SHOWN = 3


def check_records(records: Sequence[Record]) -> list[Finding]:
    """Findings about the files: unreadable, misnamed, flat, of different colour modes, depths, sizes and brightness."""
    findings = [from_error(ValueError(r.error), case=r.id, kind="unreadable") for r in records if r.error]
    good = [record for record in records if not record.error]
    flat = [record.id for record in good if record.flat]
    findings += [
        _error(name, "all pixels are the same", "export it again, or take it out", "constant") for name in flat
    ]
    findings += _several(
        [r.id for r in good if not r.suffix_fits],
        "suffix",
        _misnamed(good),
        "rename them: some readers go by the suffix",
    )
    turned = [record.id for record in good if record.rotated]
    findings += _several(turned, "rotated", "EXIF asks for a rotation, which some readers ignore", "save them upright")
    findings += _mixed(
        "colour_modes",
        "colour modes",
        Counter(r.mode for r in good),
        "segmed makes all grey or all colour: check that alpha and palettes mean nothing",
    )
    findings += _mixed(
        "bits",
        "depths",
        Counter(f"{r.bits} bit" for r in good),
        "choose image.intensity zscore or percentile, not unit",
    )
    findings += _sizes(good)
    findings += _dim(good)
    return findings


def _misnamed(records: Sequence[Record]) -> str:
    wrong = Counter(f"{r.format} named {r.suffix}" for r in records if not r.suffix_fits)
    return ", ".join(f"{count} {what}" for what, count in wrong.most_common())


def _sizes(records: Sequence[Record]) -> list[Finding]:
    sizes = Counter(record.shape for record in records)
    if len(sizes) < 2:
        return []
    (common, count), *_ = sizes.most_common()
    smallest, largest = min(sizes, key=np.prod), max(sizes, key=np.prod)
    what = (
        f"{len(sizes)} sizes, from {_shape(smallest)} to {_shape(largest)}; most common {_shape(common)} "
        f"({count} of {len(records)})"
    )
    return [_warning(what, "the size may tell the class: see the shortcuts; choose image.fit", "sizes")]


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _dim(records: Sequence[Record]) -> list[Finding]:
    ranges = np.array([record.high - record.low for record in records])
    if not len(ranges):
        return []
    middle = float(np.median(ranges))
    dim = [record.id for record, width in zip(records, ranges, strict=True) if not record.flat and DIM * width < middle]
    what = f"their range of grey values is less than 1/{DIM:g} of the median ({middle:.2f} of what the type holds)"
    return _several(dim, "range", what, "look at them; image.intensity zscore or percentile makes them comparable")


def _mixed(kind: str, name: str, counts: Counter[str], fix: str) -> list[Finding]:
    if len(counts) < 2:
        return []
    shown = ", ".join(f"{what} ({count})" for what, count in counts.most_common())
    return [_warning(f"{len(counts)} {name}: {shown}", fix, kind)]


# ---------------------------------------------------------------- classes and subjects


def check_classes(dataset: ClassDataset) -> list[Finding]:
    """Classes of too few subjects, and what a random split of the images would do."""
    findings = []
    subjects = {
        name: {item.subject for item in dataset.items if item.label == k} for k, name in enumerate(dataset.classes)
    }
    unit = "subject" if dataset.subjects_known else "image"
    for name, known in subjects.items():
        if len(known) == 1:
            what = f"class '{name}' has one {unit}: it can't be trained and tested"
            findings.append(_error("", what, "merge it with another class or drop it (data.classes)", "few_subjects"))
        elif len(known) < FEW_SUBJECTS:
            what = f"class '{name}' has {len(known)} {unit}s: its figures say little"
            findings.append(_warning(what, "merge it with another class or drop it (data.classes)", "few_subjects"))
    several = Counter(item.subject for item in dataset.items)
    if dataset.subjects_known and len(several) < len(dataset.items):
        across = expected_across(several.values(), test=TEST)
        what = f"a random split of the images would put {across:.1f} of {len(several)} subjects on both sides"
        findings.append(_warning(what, "split by subject, never by image", "image_split"))
    labels: dict[str, set[int]] = {}
    for item in dataset.items:
        labels.setdefault(item.subject, set()).add(item.label)
    changing = [subject for subject, classes in labels.items() if len(classes) > 1]
    what = "their images are in several classes"
    findings += _several(
        changing, "subject_classes", what, "right for before and after: else check the labels", what_are="subjects"
    )
    return findings


def check_twins(dataset: ClassDataset, twins: Sequence[Twin]) -> list[Finding]:
    """Errors for twins with different labels, and a warning for all twins."""
    label = {item.id: dataset.classes[item.label] for item in dataset.items}
    findings = [
        _error(twin.a, f"{_says(twin)} {twin.b}, but they are in '{label[twin.a]}' and '{label[twin.b]}'",
               "one label is wrong: correct it or take both out", "twins_of_two_classes")
        for twin in twins
        if label[twin.a] != label[twin.b]
    ]  # fmt: skip
    for kind, sentence in (("pixels", "have the pixels of another one"), ("near", "are changed copies of another one")):
        some = [twin for twin in twins if twin.kind == kind]
        groups = twin_groups(sorted({name for twin in some for name in (twin.a, twin.b)}), some)
        more = len(groups) - len(set(groups.values()))
        if more:
            first = some[0]
            what = f"{more} of {len(dataset.items)} images {sentence}, e.g. {first.a} and {first.b}"
            fix = "keep one of each, or keep them on one side: split by subject or twins"
            findings.append(_warning(what, fix, f"twins_{kind}"))
    return findings


def _says(twin: Twin) -> str:
    if twin.kind == "pixels":
        return "has the pixels of"
    how = f"{twin.transform}, " if twin.transform else ""
    return f"looks ({how}correlation {twin.correlation:.3f}) like"


def check_shortcuts(shortcuts: Sequence[Shortcut]) -> list[Finding]:
    """Features that reveal the class without anatomy."""
    return [
        _warning(
            f"{_alone(s.feature)} the class: balanced accuracy {s.balanced_accuracy:.2f}, chance {s.chance:.2f} "
            f"({s.chance_low:.2f} to {s.chance_high:.2f})",
            "a classifier may learn it: fit, crop or normalise it away, and test on data from elsewhere",
            "shortcut",
        )
        for s in shortcuts
        if s.tells
    ]


def _alone(feature: str) -> str:
    return "size, brightness and file type together tell" if feature == TOGETHER else f"{feature} alone tells"


# ---------------------------------------------------------------- lines


def _error(case: str, what: str, fix: str, kind: str) -> Finding:
    return Finding("error", case, what, fix, kind)


def _warning(what: str, fix: str, kind: str) -> Finding:
    return Finding("warning", "", what, fix, kind)


def _several(names: Sequence[str], kind: str, what: str, fix: str, *, what_are: str = "images") -> list[Finding]:
    """One warning that counts all of them; no warning without any."""
    if not names:
        return []
    some = ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")
    return [_warning(f"{len(names)} {what_are}, {some}: {what}", fix, kind)]
