"""The runs that `segmed predict` names, as one segmenter, and what the record says of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from segmed.commands.predict_options import Arguments
from segmed.config import SegmentationConfig, known
from segmed.errors import ConfigError

if TYPE_CHECKING:
    from segmed.builders.engine_networks import EngineChoice
    from segmed.builders.ensembles import Member
    from segmed.builders.model_file import Opened
    from segmed.builders.observed import CaseJudge
    from segmed.segmenters.engines import Engine
    from segmed.segmenters.segmenter import Segmenter


def check_ensemble(arguments: Arguments, members: list[Member]) -> None:
    """Runs of an ensemble take the same images and know the same labels."""
    from segmed.builders.ensembles import check_alike

    check_alike(members)
    for run, config in ((member.run, member.config) for member in members):
        if arguments.mirror and not config.augment.flip_probability:
            print(f"warning: {run} was trained without flips: mirrored copies may make it worse", file=sys.stderr)


def engine_of(arguments: Arguments, runs: Opened) -> EngineChoice:
    """What computes the networks."""
    from segmed.builders.engine_networks import choose_engine
    from segmed.builders.trained import load_network

    if arguments.engine != "torch" and arguments.device.startswith("cuda"):
        raise ConfigError(f"--engine {arguments.engine} computes on the processor: leave out --device")
    return choose_engine(runs.folders, arguments.engine, load_network)


def load_segmenter(
    arguments: Arguments, runs: Opened, members: list[Member], engine: Engine
) -> tuple[Segmenter, CaseJudge | None]:
    """The runs as one segmenter, whose pieces are cleaned once, on the mean; and what judges its cases, if it can."""
    import torch

    from segmed.builders.observed import load_judged

    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"--device {arguments.device}: there is no GPU that torch can use; take --device cpu")
    for member in members:
        if member.config.composed and _changes(arguments):
            raise ConfigError(
                f"{member.run} is made of several networks, each with settings of its own: leave out --mirror, "
                "--overlap and --precision"
            )
    changes = _changes(arguments)
    if arguments.largest_component is not None:
        changes["largest_component"] = arguments.largest_component
    judged = load_judged(
        runs.folders, members, device=arguments.device, changes=changes, level=arguments.level, engine=engine
    )
    if judged.why_not:
        print(judged.why_not, file=sys.stderr)
    return judged.segmenter, judged.judge


def classes_of(configs: list[SegmentationConfig]) -> tuple[str, ...]:
    """The classes of cases that all runs have a head for; none where one has none, or one for others."""
    heads = [config.classification for config in configs]
    names = {() if head is None else known(head.classes) for head in heads}
    return names.pop() if len(names) == 1 else ()


def _changes(arguments: Arguments) -> dict[str, object]:
    """Settings of inference that the command line gives in place of the runs' own."""
    given = {"mirror": arguments.mirror or None, "overlap": arguments.overlap, "precision": arguments.precision}
    return {name: value for name, value in given.items() if value is not None}


def about_of(arguments: Arguments, sources: Opened, members: list[Member], segmenter: Segmenter) -> dict[str, Any]:
    """Runs, settings, labels and versions, for the record."""
    from segmed.builders.ensembles import common_cleaning
    from segmed.runs import environment

    first, changes, pieces = members[0].config, _changes(arguments), common_cleaning(members)
    cleaned = {"largest_component": None, "smallest_ml": None}  # these are of all together
    runs = [
        {
            "run": sources.origin_name(member.run),
            "name": member.config.name,
            "weights": "best",
            "sha256": member.digest,
            "inference": {**member.config.inference.model_dump(mode="json"), **changes, **cleaned},
        }
        for member in members
    ]
    given = arguments.largest_component
    settings = {
        "largest_component": list(pieces.largest_component if given is None else given),
        "smallest_ml": pieces.smallest_ml,
        "probabilities": arguments.probabilities,
        "uncertainty": "entropy in nats" if arguments.uncertainty else False,
    }
    return {
        "runs": runs,
        "settings": settings,
        "images": list(first.data.images),
        "classes": ["background", *segmenter.labels.names],
        "values": [0, *(values[0] for values in segmenter.labels.values)],
        "spacing_known": first.data.spacing_known,
        "device": arguments.device,
        **environment(),
    }
