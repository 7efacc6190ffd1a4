"""What an experiment and its data are refused for before any folder is made, and what every table must say of them."""

from __future__ import annotations

import logging
from pathlib import Path

from segmed.config import SegmentationConfig, UNetConfig
from segmed.data.audit import Audit, audit_dataset
from segmed.data.cases import Dataset
from segmed.data.leaks.volume_twins import leaking, volume_twins
from segmed.data.splits import Split
from segmed.data.subjects import subject_findings
from segmed.errors import ConfigError, DatasetError, did_you_mean
from segmed.evaluate.answers import LEAKING
from segmed.labels import TOGETHER
from segmed.machine import this_machine
from segmed.training.transfer_record import allowed_leak

LOG = logging.getLogger(__name__)


def checked_audit(dataset: Dataset, memory: Path | None) -> Audit:
    """The audit of the data set, which must be free of errors.

    Raises:
        DatasetError: the audit has errors; the first one is named.
    """
    audit = audit_dataset(dataset, workers=this_machine().cores, progress=True, memory=memory)
    if audit.errors:
        first, several = audit.errors[0], "s" * (len(audit.errors) > 1)
        raise DatasetError(
            f"{dataset.root} has {len(audit.errors)} error{several}, first: case {first.case}: {first.what}; "
            f"{first.fix} (all of them: segmed audit {dataset.root} --config YAML --output FOLDER, with this "
            "experiment's YAML)"
        )
    expected = set(dataset.unlabelled)
    unlabelled = [case.id for case in dataset.cases if case.label is None and case.id not in expected]
    if unlabelled:
        raise DatasetError(
            f"{len(unlabelled)} cases have no label map, first {unlabelled[0]}: leave them out of the layout, or list "
            "them in data.unlabelled"
        )
    return audit


def absent_label_notes(dataset: Dataset, audit: Audit, split: Split) -> tuple[str, ...]:
    """A label that no training case has is never learned: said before the time is spent, and beside every figure."""
    train = set(split.train)
    trained = [fact for fact in audit.facts if fact.id in train and fact.label_voxels]
    absent = [name for name in dataset.labels.names if not any(fact.label_voxels[name] for fact in trained)]
    notes = tuple(
        f"label '{name}' is in none of the {len(trained)} training cases: it can't be learned; check data.labels or "
        "the split"
        for name in (absent if trained else ())
    )
    for note in notes:
        LOG.warning("%s", note)
    return notes


def check_second_head(config: SegmentationConfig) -> None:
    """Refuse what a second head can't stand beside.

    Raises:
        ConfigError: several networks, an adversary, or a network without an encoder of ours.
    """
    if config.classification is None:
        return
    if config.composed or config.adversary is not None:
        other = "ensemble and cascade" if config.composed else "adversary"
        raise ConfigError(
            f"classification trains one network without an opponent: leave {other} out, or classification"
        )
    if not isinstance(config.network, UNetConfig):
        raise ConfigError(
            f"classification needs an encoder of ours, {config.network.name} has none: choose --network.name unet"
        )


def check_cleaned(config: SegmentationConfig, dataset: Dataset) -> None:
    """Refuse to clean what there is no label of, before a training that would end with it.

    Raises:
        ConfigError: an unknown name.
    """
    largest, labels = config.inference.largest_component, dataset.labels
    for key, names, there in (
        ("largest_component", () if largest == "auto" else largest, (*labels.names, *labels.regions, TOGETHER)),
        ("smallest_ml", tuple(config.inference.smallest_ml), labels.names),
    ):
        for name in names:
            if name not in there:
                own = (
                    "; it cleans the result of all stages, a stage's own is its smallest_ml" if config.composed else ""
                )
                raise ConfigError(f"inference.{key} names '{name}'{did_you_mean(name, there)}{own}")


def check_adversary(config: SegmentationConfig, split: Split) -> None:
    """Refuse unlabelled cases that the adversary can't judge.

    Raises:
        DatasetError: there are some, and the adversary compares with a reference or gives no probability.
    """
    adversary = config.adversary
    if adversary is not None and split.unlabelled and not adversary.gives_confidence:
        raise DatasetError(
            f"{len(split.unlabelled)} unlabelled cases can't join with adversary.loss {adversary.loss_name}, which "
            "gives no confidence: choose the discriminator pixel, patch or image, and another loss than wasserstein"
        )


def start_notes(config: SegmentationConfig, split: Split) -> tuple[str, ...]:
    """A note for every table of the run: its first weights have learnt from its test, where that is allowed.

    Raises:
        DatasetError: it is not allowed.
    """
    if config.init_run is None:
        return ()
    note = allowed_leak(config.init_run, config.data.root, split.test, config.leaks)
    return (f"{LEAKING}, allowed: {note}",) if note else ()


def split_notes(
    config: SegmentationConfig, dataset: Dataset, audit: Audit, split: Split, memory: Path | None
) -> tuple[str, ...]:
    """Notes for every table of the run: leaks that are allowed, or that nobody looked for leaks.

    Raises:
        DatasetError: the split leaks, and leaks are not allowed.
    """
    notes = [f"{finding.what}: {finding.fix}" for finding in subject_findings(dataset)]
    if not config.leaks.check:
        return (*notes, "nobody looked for leaks (leaks.check is false)")
    twins = volume_twins(
        dataset,
        audit,
        near=config.leaks.near_correlation,
        memory=None if memory is None else memory / "leaks",
        workers=this_machine().cores,
    )
    what = leaking(twins, split)
    if what is None:
        return tuple(notes)
    if not config.leaks.allow_leakage:
        raise DatasetError(
            f"the split leaks: {what}; keep one of each, or give them one subject (data.layout.subject), or set "
            "leaks.allow_leakage, which every table of the run will then say"
        )
    return (f"{LEAKING}, allowed: {what}", *notes)


def missing_notes(config: SegmentationConfig, dataset: Dataset) -> tuple[str, ...]:
    """How many cases lack which image.

    Raises:
        ConfigError: images are to be left out of patches, and there is one a case.
    """
    if not config.takes_incomplete:
        return ()
    if len(dataset.modalities) == 1:
        raise ConfigError("augment.modality_dropout is for several images a case, these cases have one: leave it out")
    counts = {name: sum(name not in case.images for case in dataset.cases) for name in dataset.modalities}
    lacking = ", ".join(f"{count} lack {name}" for name, count in counts.items() if count)
    return (f"of {len(dataset.cases)} cases {lacking}: trained and scored with what is there",) if lacking else ()
