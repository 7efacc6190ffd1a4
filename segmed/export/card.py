"""A model that was handed over -> its model card in Markdown: data, figures, intended use, limits.

Sources: Mitchell et al. 2019, Model Cards for Model Reporting; CLAIM 2024 for what a reader of medical imaging needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segmed.config import SegmentationConfig, known
from segmed.config.classification import ClassificationConfig
from segmed.data.audit import Audit
from segmed.data.fingerprint import CaseFacts
from segmed.data.learned import learned_split
from segmed.errors import DatasetError
from segmed.export.handed_over import CALIBRATION, Config, read_any
from segmed.reports.classification.text import UNIT_TITLES, overall_rows, threshold_rows
from segmed.reports.segmentation.tables import escaped, markdown
from segmed.runs import Folds, runs_of

RESEARCH = (
    "Research on images like those it was trained on. It is no medical device: nothing that it says is a diagnosis, "
    "and no treatment may rest on it."
)
UNTOLD = "The author says nothing more."
CALIBRATED = "- A calibration is part of it: volumes come with intervals, cases with an expected Dice."
NOT_CALIBRATED = "- No calibration is part of it: it says of no single case how far it can be trusted."


@dataclass(frozen=True)
class Words:
    """What only the author of a model can say.

    Attributes:
        use: what it is for.
        limits: where it is known to fail.
        license: of the weights.
    """

    use: str = ""
    limits: str = ""
    license: str = ""


def model_card(
    name: str, runs: Sequence[Path], words: Words, *, engines: Sequence[str] = (), usage: Sequence[str] = ()
) -> str:
    """The card of a model.

    Args:
        name: of the model.
        runs: folders as `hand_over` makes them, one or several that predict as one.
        words: of the author.
        engines: lines on networks for other engines.
        usage: lines on how to use it; none: as a model file.
    """
    first = read_any(runs_of(runs[0])[0].path)
    blocks = [
        [f"# {escaped(name)}", "", _what(first, runs)],
        ["## Intended use", "", RESEARCH, words.use or UNTOLD],
        ["## How to use it", "", *(usage or _commands(name, first))],
        ["## Data", "", *_data(runs, first)],
        ["## Figures", "", *_figures(runs)],
        ["## Limits", "", *_limits(runs, first), f"- {words.limits or UNTOLD}"],
        ["## How it was made", "", *_making(runs, first), *engines],
        ["## License", "", words.license or "Not stated: ask whoever gave you this file."],
    ]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _what(config: Config, runs: Sequence[Path]) -> str:
    if isinstance(config, ClassificationConfig):
        task = f"Tells the classes {_listed(known(config.data.classes))} of {config.image.dims}D images"
    else:
        task = f"Segments {_listed(known(config.data.labels))} in {_listed(known(config.data.images))}"
    networks = sum(1 for run in runs for _ in run.rglob("best.safetensors"))
    several = f", by {networks} networks together" if networks > 1 else ", by one network"
    return f"{task}{several}. Made with segmed."


def _commands(name: str, config: Config) -> list[str]:
    command, output = ("classify", "classes.csv") if isinstance(config, ClassificationConfig) else ("predict", "FOLDER")
    file = f"{name}.segmed"
    return [
        "```",
        "pip install segmed-mri",
        f"segmed {command} --model '{file}' --input FILE_OR_FOLDER --output {output}",
        f"segmed model-card '{file}'",
        "```",
    ]


# ---------------------------------------------------------------- data


def _data(runs: Sequence[Path], config: Config) -> list[str]:
    lines = []
    for folder in runs:
        try:
            split = learned_split(folder)
        except DatasetError:
            lines.append("- How many cases trained it is not recorded.")
            continue
        folds = f", {len(runs_of(folder))} folds: each case was tested by a network that never saw it"
        test = "tested it" if _was_tested(folder) else "are kept for its test"
        counts = f"{len(split.train)} trained it, {len(split.validation)} selected it, {len(split.test)} {test}"
        lines.append(f"- Cases: {counts}{folds if Folds(folder).begun else ''}.")
    if isinstance(config, SegmentationConfig):
        values = (f"{escaped(label)} = {_values(value)}" for label, value in known(config.data.labels).items())
        lines.append(f"- Labels in the files: {', '.join(values)}.")
        lines += _fingerprint(runs[0])
    else:
        size = " × ".join(map(str, config.image.size))
        lines.append(
            f"- Images of {size} pixels, {config.image.channels} channel(s), intensity {config.image.intensity}."
        )
    return lines


def _was_tested(folder: Path) -> bool:
    return any((folder / "test" / name).is_file() for name in ("summary.json", "figures.json"))


def _values(given: int | list[int]) -> str:
    return " or ".join(map(str, given)) if isinstance(given, list) else str(given)


def _fingerprint(folder: Path) -> list[str]:
    """Ranges of what the training scans were like."""
    try:
        facts = Audit.load(runs_of(folder)[0].path / "audit.json").facts
    except DatasetError:
        return []
    if not facts:
        return []
    lines = [
        f"- Voxels: {_range(facts, lambda fact: fact.spacing_mm)} mm; size: {_range(facts, lambda fact: fact.shape)}.",
        f"- Orientations of the files: {_listed(sorted({fact.orientation for fact in facts}))}.",
    ]
    for label in facts[0].label_ml:
        volumes = np.array([fact.label_ml.get(label, 0.0) for fact in facts])
        absent = f", absent in {np.count_nonzero(volumes == 0)} of {len(facts)}" if (volumes == 0).any() else ""
        lines.append(
            f"- {escaped(label)}: {np.median(volumes):.3g} ml ({volumes.min():.3g} to {volumes.max():.3g}){absent}."
        )
    return lines


def _range(facts: Sequence[CaseFacts], of: Any) -> str:
    """Smallest to largest along the shortest, the middle and the longest axis."""
    values = np.sort([of(fact) for fact in facts], axis=1).astype(float)
    low, high = (" × ".join(f"{each:.3g}" for each in values) for values in (values.min(0), values.max(0)))
    return low if low == high else f"{low} to {high}"


# ---------------------------------------------------------------- figures


def _figures(runs: Sequence[Path]) -> list[str]:
    lines = [] if len(runs) == 1 else ["Each run by itself, on its own test part; together they were not tested.", ""]
    for number, folder in enumerate(runs, 1):
        if len(runs) > 1:
            lines += [f"### Run {number}", ""]
        lines += [*_figures_of(folder), ""]
    return lines[:-1]


def _figures_of(folder: Path) -> list[str]:
    summary = _json(folder / "test" / "summary.json")
    if summary is not None:
        return [line for line in markdown(summary).splitlines() if not line.startswith("# ")]
    summary = _json(folder / "test" / "figures.json")
    if summary is None:
        return ["It was not tested: nobody knows how good it is."]
    head = ["figure", *(UNIT_TITLES[unit] for unit in summary["units"])]
    rows = overall_rows(summary) + (threshold_rows(summary) if summary["positive"] is not None else [])
    table = [head, ["---"] * len(head), *rows]
    return [
        f"{summary['test']['images']} test images of {summary['test']['subjects']} subjects, with 95 % intervals.",
        "",
        *("| " + " | ".join(map(escaped, row)) + " |" for row in table),
    ]


# ---------------------------------------------------------------- limits and making


def _limits(runs: Sequence[Path], config: Config) -> list[str]:
    lines = [
        "- It knows the scanners, the sequences and the people of its training cases, and nothing of others. The test "
        "cases above come from the same source."
    ]
    if isinstance(config, SegmentationConfig):
        lines.append("- `segmed predict` names a scan that is unlike all training scans; it segments it all the same.")
        if not config.data.spacing_known:
            lines.append("- The spacing of its training files was not known: it gives no sizes in mm or ml.")
    calibrated = all((folder / CALIBRATION).is_file() for folder in runs)
    lines.append(CALIBRATED if calibrated else NOT_CALIBRATED)
    notes = dict.fromkeys(note for folder in runs for run in runs_of(folder) for note in _notes(run.path))
    return [*lines, *(f"- {escaped(note)}" for note in notes)]


def _notes(folder: Path) -> Iterable[str]:
    plan = _json(folder / "plan.json") or {}
    return [str(note) for note in plan.get("notes", ())]


def _making(runs: Sequence[Path], config: Config) -> list[str]:
    record = _json(runs_of(runs[0])[0].path / "environment.json") or {}
    versions = ", ".join(f"{name} {version}" for name, version in (record.get("versions") or {}).items())
    lines = [f"- Network: {_network(runs[0], config)}.", f"- Versions: {versions or 'not recorded'}."]
    train = config.train
    lines.append(f"- Trained with {known(train.optimiser)}, precision {train.precision}, seed {config.seed}.")
    return lines


def _network(folder: Path, config: Config) -> str:
    if isinstance(config, SegmentationConfig) and config.composed:
        kind = "a cascade" if config.cascade is not None else "an ensemble"
        return f"{kind} of {sum(1 for _ in folder.rglob('best.safetensors'))} networks"
    encoder = getattr(config.network, "encoder", None)
    if encoder is None:
        return config.network.name
    channels = " ".join(map(str, known(encoder.channels)))
    return f"{config.network.name} with {encoder.name} encoder, feature maps {channels}"


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(escaped(str(name)) for name in names)


def _json(path: Path) -> Mapping[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
