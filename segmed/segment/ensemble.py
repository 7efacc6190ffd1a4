"""The folds of a cross-validation as one model: the settings with which they predict, chosen on validation parts."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from segmed.builders.datasets import build_dataset
from segmed.builders.ensembles import Member
from segmed.builders.trained import NOT_CLEANED, load_together
from segmed.config import SegmentationConfig
from segmed.data.cases import Case, Dataset, cases_of
from segmed.data.preprocess import read_case
from segmed.data.splits import Split
from segmed.evaluate.case_rows import Row, evaluate_case, summarise_cases
from segmed.evaluate.results import json_facts
from segmed.files import write_json
from segmed.runs import Folds, Run, read_config
from segmed.segment.settings_choice import (
    AS_TRAINED,
    FEWEST_SUBJECTS,
    RULE,
    PackedLabels,
    Pieces,
    SettingsChoice,
    Trial,
)
from segmed.segment.validate import spread
from segmed.segmenters.segmenter import Segmenter
from segmed.volumes import spacing_mm

OVERLAPS = (0.25, 0.5)
MIRRORED = "mirrored copies"
MOST_CASES = 40  # on which settings are tried, of all folds together
SEEN = "the folds together have learnt from every case of this data set: measure them as one on cases of another"


def choose_together(config: SegmentationConfig, folds: Folds, tests: Sequence[Sequence[Row]], *, device: str) -> None:
    """Choose how the folds predict as one and write it down, once for the same weights.

    Settings are chosen on the validation parts of all folds together, each segmented by its own fold. What they are
    worth is measured on the test parts: each by its own fold, with settings that were chosen without its cases.

    Args:
        config: what the folds have in common; pieces that it names are cleaned in any case.
        folds: all done.
        tests: rows of each fold's test, with its own settings.
        device: that computes.
    """
    members = [Member(run.path, read_config(run)) for run in folds.runs()]
    weights = {member.run.name: member.digest for member in members}
    if _weights_of(folds) != weights:
        print(f"choosing on validation parts how the {len(members)} folds predict as one")
        write_json(folds.ensemble, _Choosing(config, members, device).record(tests) | {"weights": weights})
    print(summary_text(json.loads(folds.ensemble.read_text(encoding="utf-8"))))
    print(f"predict: segmed predict --run {folds.path} --input FILE_OR_FOLDER --output FOLDER")


def _weights_of(folds: Folds) -> Any:
    """The weights for which settings were chosen; None where they were not."""
    try:
        return json.loads(folds.ensemble.read_text(encoding="utf-8"))["weights"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def network_settings(config: SegmentationConfig) -> dict[str, dict[str, Any]]:
    """What is tried of the networks -> the fields of `inference` that change; `as trained` is the first."""
    settings: dict[str, dict[str, Any]] = {AS_TRAINED: {}}
    if config.composed:
        return settings  # each network has settings of its own
    settings |= {f"overlap {each:g}": {"overlap": each} for each in OVERLAPS if each != config.inference.overlap}
    if config.augment.flip_probability and not config.inference.mirror:
        settings[MIRRORED] = {"mirror": True}
    return settings


class _Choosing:
    """The folds' networks, their validation cases with every setting, and what tests them.

    Args:
        config: what the folds have in common.
        members: the folds, with their own settings.
        device: that computes.
    """

    def __init__(self, config: SegmentationConfig, members: Sequence[Member], device: str) -> None:
        self.members, self.device = members, device
        self.dataset = build_dataset(members[0].config)
        self.tried = network_settings(members[0].config)
        self.splits = [Split.load(Run(member.run).split) for member in members]
        self.settings = _settings_choice(config, self.dataset)
        self.seconds: dict[str, list[float]] = {name: [] for name in self.tried}
        cases = [self._validation_cases(split) for split in self.splits]
        self.subjects = len({case.subject for part in cases for case in part})
        self.trials: list[Trial] = []
        if self.subjects >= FEWEST_SUBJECTS:
            for member, part in zip(members, cases, strict=True):
                self.trials += self._trials(member, part)

    def record(self, tests: Sequence[Sequence[Row]]) -> dict[str, Any]:
        """What was tried and chosen, in figures; nothing is chosen where no gain could be told from chance."""
        choice = self.settings.choose(self.trials)
        chosen = self.tried[choice.setting] | choice.pieces.settings if self.trials else {}
        return {
            "networks": len(self.members),
            "chosen": chosen,
            "chosen_on": {
                "part": "validation cases of all folds, each segmented by its own fold",
                "cases": len({trial.case for trial in self.trials}),
                "subjects": self.subjects,
                "fewest_subjects": FEWEST_SUBJECTS,
            },
            "rule": RULE,
            "tried": [tried.record for tried in choice.tried],
            "seconds_a_case": self._times(choice.setting),
            "out_of_fold": self._out_of_fold(tests),
            "seen": SEEN,
        }

    def _times(self, setting: str) -> dict[str, Any]:
        """Seconds a case of one network with each setting, and of all with the chosen one."""
        times = {name: each for name, each in self.seconds.items() if each}
        if not times:  # nothing was tried: as in the folds' tests
            tests = [json_facts(Run(member.run).timing).get("seconds_a_case") for member in self.members]
            known = [float(each) for each in tests if isinstance(each, (int, float))]
            times = {AS_TRAINED: known} if known else {}
        means = {name: round(sum(each) / len(each), 3) for name, each in times.items()}
        whole = round(len(self.members) * means[setting], 3) if setting in means else None
        return {"device": self.device, "one_network": means, "all_networks": whole}

    def _validation_cases(self, split: Split) -> list[Case]:
        cases = [case for case in cases_of(self.dataset, split.validation) if case.label is not None]
        return spread(cases, max(1, MOST_CASES // len(self.members)))

    def _trials(self, member: Member, cases: Sequence[Case]) -> list[Trial]:
        """Validation cases of one fold, segmented with every setting by its own network."""
        maps: dict[str, dict[str, PackedLabels]] = {case.id: {} for case in cases}
        trials = []
        for name, changes in self.tried.items() if cases else ():
            segmenter = load_together([member], device=self.device, changes={**changes, **NOT_CLEANED})
            for case in cases:
                image, _ = read_case(case, self.dataset)
                began = time.perf_counter()
                maps[case.id][name] = PackedLabels.of(segmenter(image).numpy(force=True)[0])
                self.seconds[name].append(time.perf_counter() - began)
        for case in cases:
            image, label = read_case(case, self.dataset)
            if label is not None:
                reference = PackedLabels.of(label.numpy()[0])
                trials.append(Trial(case.id, case.subject, reference, maps[case.id], spacing_mm(image.affine)))
        return trials

    def _out_of_fold(self, tests: Sequence[Sequence[Row]]) -> dict[str, Any]:
        """Figures of all test cases: as each fold chose, and with settings chosen without its test cases."""
        note = "each case is segmented by the one fold that did not learn from it: figures of single networks"
        cases = sum(len(split.test) for split in self.splits)
        figures: dict[str, Any] = {"note": note, "cases": cases, "own_settings": self._figures(tests)}
        if not self.trials:
            return figures
        chosen = [
            self._test(member, split, rows)
            for member, split, rows in zip(self.members, self.splits, tests, strict=True)
        ]
        return figures | {"chosen_without_the_folds_test_cases": self._figures(chosen)}

    def _test(self, member: Member, split: Split, rows: Sequence[Row]) -> Sequence[Row]:
        """The test part of a fold with settings that none of its cases chose."""
        choice = self.settings.choose([trial for trial in self.trials if trial.case not in split.test])
        if choice.setting == AS_TRAINED and choice.pieces == Pieces.named_in(member.config.inference):
            return rows
        changes = self.tried[choice.setting] | choice.pieces.settings
        return self._rows(load_together([member], device=self.device, changes=changes), split, member.config)

    def _rows(self, segmenter: Segmenter, split: Split, config: SegmentationConfig) -> list[Row]:
        rows: list[Row] = []
        for case in cases_of(self.dataset, split.test):
            image, label = read_case(case, self.dataset)
            if label is not None:
                rows += evaluate_case(
                    segmenter(image).numpy(force=True)[0],
                    label.numpy()[0],
                    self.dataset.labels,
                    case=case.id,
                    spacing_mm=spacing_mm(image.affine),
                    config=config.evaluate,
                    spacing_known=config.data.spacing_known,
                )
        return rows

    def _figures(self, parts: Sequence[Sequence[Row]]) -> dict[str, Any]:
        """Mean Dice and HD95 over all test cases, of each of the `labels` and of their `mean`."""
        rows = [row for part in parts for row in part]
        if not rows:
            return {}
        summary = summarise_cases(rows, self.members[0].config.evaluate)
        return {
            "labels": {name: _means(each) for name, each in summary["labels"].items()},
            "mean": _means(summary["mean"]),
        }


def _means(figures: Mapping[str, Any]) -> dict[str, float | None]:
    """Of Dice and HD95, over cases."""
    return {metric: figures[metric]["mean"] for metric in ("dice", "hd95_mm")}


def _settings_choice(config: SegmentationConfig, dataset: Dataset) -> SettingsChoice:
    """What an experiment leaves open of the pieces; what it names stands."""
    return SettingsChoice(
        dataset.labels,
        config.evaluate,
        spacing_known=config.data.spacing_known,
        given=Pieces.named_in(config.inference),
        try_largest=config.inference.largest_component == "auto",
    )


def summary_text(record: Mapping[str, Any]) -> str:
    """What was chosen, what it is worth and what it costs, a line each."""
    on, seconds, figures = record["chosen_on"], record["seconds_a_case"], record["out_of_fold"]
    chosen = ", ".join(each["what"] for each in record["tried"] if each["chosen"]) or "as trained"
    why = f"chosen on {on['cases']} validation cases"
    if on["subjects"] < on["fewest_subjects"]:
        why = f"nothing is chosen on {on['subjects']} validation subjects: {on['fewest_subjects']} are needed"
    lines = [f"as one:  {record['networks']} networks, {chosen}; {why}"]
    if seconds["all_networks"] is not None:
        lines.append(f"time:    about {seconds['all_networks']:.3g} s a case on {seconds['device']}")
    own, others = figures["own_settings"], figures.get("chosen_without_the_folds_test_cases")
    if own and others:
        own_dice, chosen_dice = own["mean"]["dice"], others["mean"]["dice"]
        lines.append(
            f"unseen:  one network a case: mean Dice {own_dice:.4f} as each fold chose, "
            f"{chosen_dice:.4f} with settings in which its test cases had no part"
        )
    return "\n".join([*lines, f"note:    {record['seen']}"])
