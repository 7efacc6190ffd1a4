"""Before training: data, audit of leaks, parts, plan, and the run folder that holds it all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path

from segmed.classify.plan import resolve
from segmed.config.classification import ClassificationConfig
from segmed.data.images.image_dataset import ClassDataset, read_classes
from segmed.data.images.image_splits import ClassSplit, make_class_split, split_groups
from segmed.data.leaks.leakage import Leakage, find_leakage
from segmed.data.leaks.survey import Survey, make_survey
from segmed.data.leaks.twins import twin_groups
from segmed.data.split_file import PARTS
from segmed.errors import DatasetError
from segmed.evaluate.answers import LEAKING
from segmed.machine import this_machine
from segmed.runs import Run, begin_run, check_new_run
from segmed.training.encoder_transfer import source_encoder
from segmed.training.services import check_services
from segmed.training.transfer_record import allowed_leak


@dataclass(frozen=True)
class Prepared:
    """The data, checks and parts of a run, and its resolved config.

    Attributes:
        config: without `auto`.
        reasons: of every value that was.
        dataset: the images.
        split: their parts.
        notes: lines that must stand in every table of the run.
        leakage: what the parts have in common; None: nobody looked.
    """

    config: ClassificationConfig
    reasons: Mapping[str, str]
    dataset: ClassDataset
    split: ClassSplit
    notes: tuple[str, ...]
    leakage: Leakage | None


def prepare(config: ClassificationConfig) -> Prepared:
    """Read the images' list, look for leaks, draw the parts, resolve what is `auto`.

    Raises:
        DatasetError: the data or the parts can't be used.
        DatasetError: the parts leak, and `leaks.allow_leakage` is not set.
        RunError: the run that the encoder comes from can't be used.
    """
    config = with_absolute_paths(config)
    if config.init_encoder is not None:
        source_encoder(config.init_encoder)  # before a minute goes by over the images
    dataset = read_classes(config.data)
    survey = _survey(config, dataset)
    groups = None if survey is None else twin_groups([item.id for item in dataset.items], survey.twins)
    split = make_class_split(dataset, config.split, twins=groups)
    notes, leakage = list(_notes(dataset)), None
    if config.leaks.remove_twins:
        split, removed = _without_twins(split, split_groups(dataset, "auto", twins=groups))
        notes.append(f"{removed} images left out of training and validation: twins, or subjects, of test images")
    if survey is not None:
        leakage = find_leakage(dataset, survey, {part: getattr(split, part) for part in PARTS})
        notes += _leak_notes(leakage, config)
    elif not config.leaks.check:
        notes.append("nobody looked for leaks (leaks.check is false)")
    notes += _encoder_notes(config, split)
    config, reasons = resolve(config, dataset, split, machine=this_machine())
    return Prepared(config, reasons, dataset, split, tuple(notes), leakage)


def _without_twins(split: ClassSplit, groups: Mapping[str, str]) -> tuple[ClassSplit, int]:
    """The split without training and validation images that have a twin in a later part; and how many were left out."""
    tested = {groups[name] for name in split.test}
    validation = tuple(name for name in split.validation if groups[name] not in tested)
    seen = tested | {groups[name] for name in validation}
    train = tuple(name for name in split.train if groups[name] not in seen)
    removed = len(split.train) + len(split.validation) - len(train) - len(validation)
    return replace(split, train=train, validation=validation), removed


def start(config: ClassificationConfig, folder: Path | None) -> Run:
    """Make the run folder: everything that training needs is decided and written here, before it begins."""
    check_new_run(folder, runs=config.runs)
    check_services(config.train.trackers)
    ready = prepare(config)
    text = "\n".join(describe(ready))
    print(text)
    records = {
        "plan.json": {"reasons": dict(ready.reasons), "notes": list(ready.notes)},
        "split.json": asdict(ready.split),
    }
    return begin_run(
        folder,
        ready.config,
        ready.reasons,
        text=text,
        records=records,
        device=this_machine().name,
        cases=len(ready.dataset.items),
    )


def describe(ready: Prepared) -> list[str]:
    """What will be trained on what, and why: a line each."""
    lines = [f"{ready.dataset.name}: {len(ready.dataset.items)} images, classes {', '.join(ready.dataset.classes)}"]
    for part in PARTS:
        ids = getattr(ready.split, part)
        if ids:
            counts = ", ".join(f"{name} {count}" for name, count in ready.dataset.counts(ids).items())
            lines.append(f"  {part}: {len(ids)} ({counts})")
    for key, reason in ready.reasons.items():
        lines.append(f"  {key} = {attrgetter(key)(ready.config)}: {reason}")
    return lines + [f"NOTE: {note}" for note in ready.notes]


def _survey(config: ClassificationConfig, dataset: ClassDataset) -> Survey | None:
    """Twins and other signs of leaks, stored beside the cache; None where the config switches the check off."""
    if not config.leaks.check:
        return None
    return make_survey(
        dataset.items,
        cache=known_cache(config) / "surveys",
        workers=this_machine().cores,
        near=config.leaks.near_correlation,
        progress=True,
    )


def known_cache(config: ClassificationConfig) -> Path:
    """Folder of decoded images and surveys."""
    return config.cache or config.runs / "cache"


def _leak_notes(leakage: Leakage, config: ClassificationConfig) -> list[str]:
    """Notes on leaks of the split, where they are allowed.

    Raises:
        DatasetError: it is not allowed.
    """
    errors = [finding for finding in leakage.findings if finding.severity == "error"]
    warnings = [finding.what for finding in leakage.findings if finding.severity != "error"]
    if not leakage.leaks:
        return warnings
    first = errors[0].what if errors else "the parts share images"
    if not config.leaks.allow_leakage:
        more = f" (and {len(errors) - 1} more findings)" if len(errors) > 1 else ""
        raise DatasetError(
            f"the split leaks: {first}{more}: split by subject or twins (split.by auto), or set leaks.allow_leakage, "
            "which every table of the run will then say"
        )
    return [f"{LEAKING}, allowed: {finding.what}" for finding in errors] + warnings


def _encoder_notes(config: ClassificationConfig, split: ClassSplit) -> list[str]:
    """Notes on an encoder that was trained on test images, where that is allowed.

    Raises:
        DatasetError: it is not allowed.
    """
    if config.init_encoder is None:
        return []
    note = allowed_leak(config.init_encoder, config.data.root, split.test, config.leaks)
    return [f"{LEAKING}, allowed: {note}"] if note else []


def _notes(dataset: ClassDataset) -> list[str]:
    notes = []
    if not dataset.subjects_known:
        notes.append("nothing says who was scanned: images of one subject may stand on two sides")
    if dataset.dropped:
        left_out = ", ".join(f"{name} ({count})" for name, count in dataset.dropped.items())
        notes.append(f"left out, as no class names them: {left_out}")
    return notes


def with_absolute_paths(config: ClassificationConfig) -> ClassificationConfig:
    """The config with absolute paths: the run can be resumed from any folder."""
    data = config.data.model_copy(update={"root": config.data.root.absolute()})
    paths = {name: path.absolute() for name in ("init_encoder",) if (path := getattr(config, name)) is not None}
    return config.model_copy(update={"data": data, "cache": known_cache(config).absolute(), **paths})
