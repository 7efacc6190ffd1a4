"""How far verdicts on single cases can be trusted: python -m benchmarks.trust_figures --run RUN [--test FOLDER]"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from monai.data import MetaTensor
from pydantic import Field

from segmed.builders.ensembles import members_of
from segmed.commands.command_line import parse, run_tool
from segmed.config import Section
from segmed.errors import ConfigError
from segmed.files import write_json
from segmed.segment import calibrate
from segmed.segmenters.segmenter import on_grid_of
from segmed.trust.assessment import assess, assessment_lines, judged_by_halves, verdict
from segmed.trust.evidence import read_evidence
from segmed.trust.verdict import Judge

CONTRASTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "root": np.sqrt,
    "square": np.square,
    "cube": lambda grey: grey**3,
    "inverted": lambda grey: 1 - grey,
}


class Arguments(Section):
    """Coverage, widths and how well flags tell failures, on cases that calibrated nothing.

    Without --test each half of the calibration cases is judged by the other. With it, new cases are: those of a
    folder, those that a file lists, or the same with other contrasts, which take turns.
    """

    run: Path = Field(description="calibrated run or cross-validation")
    test: Path | None = Field(None, description="folder of labelled cases in the run's layout")
    cases: Path | None = Field(None, description="JSON list of the ids of --test that are meant; none: all")
    contrast: Literal["as it is", "changed"] = Field("as it is", description="changed: grey values are bent")
    level: float = Field(0.9, description="of intervals")
    output: Path | None = Field(None, description="JSON of all figures")


def main() -> int:
    """Print the figures."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    torch.set_num_threads(1)
    evidence = read_evidence(arguments.run)
    if evidence is None:
        raise ConfigError(f"{arguments.run} is not calibrated: segmed calibrate --run {arguments.run}")
    if arguments.test is None:
        cases, trusts = evidence.cases, judged_by_halves(evidence, arguments.level)
    else:
        judge = Judge(evidence, arguments.level)
        cases = tuple(_new_cases(arguments))
        trusts = [verdict(judge, case) for case in cases]
    figures = assess(cases, trusts, evidence.failure_dice)
    print("\n".join([f"{len(cases)} cases", *assessment_lines(figures)]))
    if arguments.output is not None:
        write_json(arguments.output, figures.to_dict())
    return 0


def _new_cases(arguments: Arguments) -> list[calibrate.CaseEvidence]:
    """The cases of the test, segmented."""
    members = members_of(arguments.run)
    dataset, cases, _ = calibrate.unseen(arguments.run, members[0].config, arguments.test)
    if arguments.cases is not None:
        meant = set(json.loads(arguments.cases.read_text(encoding="utf-8")))
        cases = [case for case in cases if case.id in meant]
    observed = calibrate.load_observed(members, predictor="whole", device="cpu")
    rows = []
    for number, case in enumerate(cases):
        change = list(CONTRASTS.values())[number % len(CONTRASTS)] if arguments.contrast == "changed" else None
        rows.append(calibrate.shown_case(observed, case, dataset, subject=number, change=_bent(change)))
    return rows


def _bent(change: Callable[[np.ndarray], np.ndarray] | None) -> Callable[[MetaTensor], MetaTensor]:
    """An image with grey values from 0 to 1 that a function bends; as it is without one."""

    def bend(image: MetaTensor) -> MetaTensor:
        if change is None:
            return image
        values = image.as_tensor().numpy()
        low, high = np.percentile(values, (0.5, 99.5))
        grey = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
        return on_grid_of(image, torch.from_numpy((1000 * change(grey)).astype(np.float32)))

    return bend


if __name__ == "__main__":
    run_tool(main)
