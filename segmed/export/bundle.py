"""A run of one network -> a MONAI bundle: a folder with its weights, workflow, metadata and card.

Source: https://docs.monai.io/en/latest/mb_specification.html, as of MONAI 1.6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from segmed.builders.bundle_network import BODY, is_monai
from segmed.builders.segmenters import label_set
from segmed.builders.trained import load_network
from segmed.config import SegmentationConfig, known
from segmed.errors import ConfigError
from segmed.export.bundle_workflow import ENDING, check_sayable, needs_segmed, network_data_format, workflow
from segmed.export.card import RESEARCH, Words, model_card
from segmed.export.handed_over import read_any
from segmed.export.write_model import handed_over
from segmed.files import atomic_folder, atomic_write_text, write_json
from segmed.runs import Folds, Run

SCHEMA = "https://project-monai.github.io/schema/meta_schema_20240725.json"
SEGMED = "segmed-mri"
REFERENCES = ("@", "$", "%")  # with which MONAI's configs begin what is no text
IGNITE = "0.5"  # of pytorch-ignite, in which MONAI's evaluator runs


def write_bundle(runs: Sequence[Path], output: Path, words: Words, *, with_cases: bool = False) -> Path:
    """Write a bundle; the folder is whole or not there.

    Args:
        runs: folder of one run of one network that segments.
        output: folder that is made.
        words: of the author, for the card.
        with_cases: keep the ids of the cases in the card.

    Raises:
        RunError: no run, one without weights.
        ConfigError: several networks, or another thing that a bundle has no words for; the folder is there.
        DiskError: no space.
    """
    if len(runs) > 1 or Folds(runs[0]).begun:
        raise ConfigError("a MONAI bundle holds one network: name one run, or export all as NAME.segmed")
    config = read_any(runs[0])
    if not isinstance(config, SegmentationConfig):
        raise ConfigError("a MONAI bundle is written of runs that segment: export this one as NAME.segmed")
    check_sayable(config)
    if output.exists():
        raise ConfigError(f"{output} is there already: name another folder for the bundle")
    _check_texts({"--output": [output.name], "--license": [words.license], "data.images": known(config.data.images),
                  "data.labels": label_set(config).names})  # fmt: skip
    flow = workflow(config)
    with handed_over(runs, with_cases=with_cases) as (_, copies), atomic_folder(output) as folder:
        for name in ("configs", "models", "docs"):
            (folder / name).mkdir()
        torch.save(_weights(copies[0], config, flow["network_def"]), folder / "models" / "model.pt")
        write_json(folder / "configs" / "inference.json", flow)
        write_json(folder / "configs" / "metadata.json", _metadata(output.name, config, words, flow))
        card = model_card(output.name, copies, words, usage=_usage(config, flow))
        atomic_write_text(folder / "docs" / "README.md", card)
    return output


def _check_texts(texts: Mapping[str, Sequence[str]]) -> None:
    """Refuse what MONAI would not take as text: a reference, an expression, a part of another file.

    Raises:
        ConfigError: a text begins with one of its signs.
    """
    for where, own in texts.items():
        if wrong := next((text for text in own if text[:1] in REFERENCES), None):
            raise ConfigError(
                f"{where}: '{wrong}' begins with {wrong[0]}, which MONAI reads as a reference: use another name"
            )


def _weights(run: Path, config: SegmentationConfig, definition: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights under the names that the network of the workflow has."""
    state = load_network(Run(run), config).state_dict()
    prefix = BODY if is_monai(definition) else ""
    return {name.removeprefix(prefix): weight.contiguous() for name, weight in state.items()}


def _metadata(name: str, config: SegmentationConfig, words: Words, flow: dict[str, Any]) -> dict[str, Any]:
    labels = label_set(config)
    names = ("background", *labels.names)
    needed = {"nibabel": version("nibabel"), "pytorch-ignite": IGNITE}
    if needs_segmed(flow):
        needed[SEGMED] = version(SEGMED)
    listed = ", ".join(names[1:])
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": "exported by segmed"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": needed,
        "name": name,
        "task": f"Segmentation of {listed}",
        "description": f"Segments {listed} in {', '.join(known(config.data.images))}; docs/README.md is its card",
        "authors": "not stated",
        "copyright": words.license or "not stated",
        "intended_use": f"{RESEARCH} {words.use}".strip(),
        "data_type": "nibabel",
        "label_classes": {str(own[0]): label for own, label in zip(labels.values, labels.names, strict=True)},
        "network_data_format": network_data_format(config, names),
    }


def _usage(config: SegmentationConfig, flow: dict[str, Any]) -> list[str]:
    """How the bundle is run, for its card."""
    images = known(config.data.images)
    packages = "pip install monai nibabel pytorch-ignite" + (f" {SEGMED}" if needs_segmed(flow) else "")
    files = "one NIfTI file a case"
    if len(images) > 1 and not config.data.components:
        ends = (f"`CASE{ENDING.replace('0000', f'{number:04}')}` ({name})" for number, name in enumerate(images))
        files = f"the files of a case: {', '.join(ends)}"
    return [
        "```",
        packages,
        "cd FOLDER_OF_THE_BUNDLE",
        "python -m monai.bundle run --config_file configs/inference.json --dataset_dir IMAGES --output_dir LABELS",
        "```",
        "",
        f"IMAGES holds {files}. It computes in fp32, air too: where segmed computed in bf16 or left windows of air "
        "out, single voxels can differ. Calibration, flags and intervals are not part of a bundle.",
    ]
