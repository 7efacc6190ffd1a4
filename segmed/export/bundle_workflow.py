"""A resolved config -> `inference.json` of a MONAI bundle: files in, label maps in the values of the files out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from segmed.builders.bundle_network import is_monai, network_definition
from segmed.builders.segmenters import label_set, plane_axis
from segmed.config import PreprocessConfig, SegmentationConfig, known
from segmed.errors import ConfigError
from segmed.labels import LabelSet
from segmed.segmenters.sliding import window_batch

IMAGE, PRED = "image", "pred"
PREPARE, HOME = (f"segmed.export.bundle_steps.{name}" for name in ("PrepareVolumed", "OnNativeGridd"))
MIRRORED = "segmed.segmenters.sliding.Mirrored"
ENDING = "_0000.nii.gz"  # of the first modality of a case, as nnU-Net names files
ONE = "$[{'image': path} for path in sorted(glob.glob(glob.escape(@dataset_dir) + '/*.nii.gz'))]"
SEVERAL = (
    "$[{'image': list(paths)} for _, paths in itertools.groupby("
    f"sorted(glob.glob(glob.escape(@dataset_dir) + '/*_????.nii.gz')), lambda path: path[:-{len(ENDING)}])]"
)
RAS = (("L", "R"), ("P", "A"), ("I", "S"))


def check_sayable(config: SegmentationConfig) -> None:
    """Refuse what the workflow of a bundle has no words for.

    Raises:
        ConfigError: it has such a thing, with what to do instead.
    """
    images, components = known(config.data.images), config.data.components
    doubts = {
        "several networks (an ensemble or a cascade)": config.composed,
        "regions as targets": bool(label_set(config).targets),
        "a second head, which tells classes": config.classification is not None,
        "windows of a whole slice (inference.window)": config.inference.window == "slice",
        "smallest pieces in ml (inference.smallest_ml)": bool(config.inference.smallest_ml),
        "mirrored copies of slices that lie anyhow (inference.mirror)": config.inference.mirror
        and config.preprocess.orientation != "ras",
        "components of a file in another order (data.components)": bool(components)
        and [components.get(name) for name in images] != list(range(len(images))),
    }
    for what, is_there in doubts.items():
        if is_there:
            raise ConfigError(
                f"a MONAI bundle can't hold {what}: export the run as NAME.segmed, without --format monai"
            )


def workflow(config: SegmentationConfig) -> dict[str, Any]:
    """What `monai.bundle run` computes: `dataset_dir` in, label maps into `output_dir`.

    Args:
        config: resolved; one that `check_sayable` lets through.
    """
    labels, channels = label_set(config), len(known(config.data.images))
    steps, home = _steps(config.preprocess), _home(config.preprocess)
    several = channels > 1 and not config.data.components
    return {
        "imports": ["$import glob", "$import itertools", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/labels'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "datalist": SEVERAL if several else ONE,
        "network_def": network_definition(
            config.network, in_channels=channels, out_channels=labels.classes, dims=known(config.patches.dims)
        ),
        "network": _network(config, labels),
        "preprocessing": _composed(
            _target("LoadImaged", keys=IMAGE, image_only=True),
            _target("EnsureChannelFirstd", keys=IMAGE),
            *steps,
            _target("EnsureTyped", keys=IMAGE, dtype="$torch.float32"),
        ),
        "dataset": _target("Dataset", data="@datalist", transform="@preprocessing"),
        "dataloader": _target("DataLoader", dataset="@dataset", batch_size=1, shuffle=False, num_workers=0),
        "inferer": _inferer(config),
        "postprocessing": _composed(
            _target("Activationsd", keys=PRED, softmax=True),
            home,
            _target("AsDiscreted", keys=PRED, argmax=True),
            *_cleaning(config, labels),
            *_values(labels),
            _target("SaveImaged", keys=PRED, output_dir="@output_dir", output_postfix="seg", output_ext=".nii.gz",
                    output_dtype="$torch.int16", separate_folder=False, resample=False),
        ),
        "handlers": [],
        "evaluator": _target(
            "SupervisedEvaluator", device="@device", val_data_loader="@dataloader", network="@network",
            inferer="@inferer", postprocessing="@postprocessing", val_handlers="@handlers", amp=False,
        ),
        "initialize": [
            "$@network_def.load_state_dict(torch.load(@bundle_root + '/models/model.pt', map_location=@device, "
            "weights_only=True))"
        ],
        "run": ["$@evaluator.run()"],
    }  # fmt: skip


def needs_segmed(flow: dict[str, Any]) -> bool:
    """Whether something in a workflow is of segmed, not of MONAI."""
    return not is_monai(flow["network_def"]) or "segmed." in repr(flow)


# ---------------------------------------------------------------- before and after the network


def _steps(config: PreprocessConfig) -> list[dict[str, Any]]:
    """The transforms of MONAI that do the same, or else ours, which does it."""
    if not _plain(config):
        return [_target(PREPARE, keys=IMAGE, preprocess=config.model_dump(mode="json"))]
    low, high = config.clip_percentiles
    steps = [_target("Orientationd", keys=IMAGE, axcodes="RAS", labels=RAS)]
    if config.intensity == "none":
        return steps
    steps.append(_target("ClipIntensityPercentilesd", keys=IMAGE, lower=low, upper=high, channel_wise=True))
    if config.intensity == "percentile":
        return [*steps, _target("ScaleIntensityd", keys=IMAGE, minv=0.0, maxv=1.0, channel_wise=True)]
    return [*steps, _target("NormalizeIntensityd", keys=IMAGE, channel_wise=True)]


def _plain(config: PreprocessConfig) -> bool:
    """Whether MONAI's own transforms prepare a volume in the same way.

    Its spacing lies otherwise by parts of a voxel, its crop and its percentiles know neither body nor zeros.
    """
    kept = config.orientation == "ras" and config.spacing_mm == "native" and config.crop == "none"
    return kept and config.intensity in ("zscore", "percentile", "none")


def _home(config: PreprocessConfig) -> dict[str, Any]:
    if not _plain(config):
        return _target(HOME, keys=PRED, image_key=IMAGE)
    return _target(
        "Invertd", keys=PRED, transform="@preprocessing", orig_keys=IMAGE, nearest_interp=False, to_tensor=True
    )


def _cleaning(config: SegmentationConfig, labels: LabelSet) -> list[dict[str, Any]]:
    """The largest pieces of all labels together, of regions and of labels, in this order."""
    names = () if config.inference.largest_component == "auto" else config.inference.largest_component
    return [
        _target("KeepLargestConnectedComponentd", keys=PRED, applied_labels=labels.members(name), is_onehot=False,
                independent=False)
        for name in labels.outer_first(names)
    ]  # fmt: skip


def _values(labels: LabelSet) -> list[dict[str, Any]]:
    """Indices of classes -> the values that stand in files."""
    written = [own[0] for own in labels.values]
    if written == list(range(1, labels.classes)):
        return []
    return [_target("MapLabelValued", keys=PRED, orig_labels=list(range(1, labels.classes)), target_labels=written)]


# ---------------------------------------------------------------- the network


def _network(config: SegmentationConfig, labels: LabelSet) -> Any:
    """The network, with its mirrored copies where it has any."""
    placed = "$@network_def.to(@device)"
    axis = plane_axis(config)
    if not config.inference.mirror or axis == 0:  # a flip from left to right leaves a sagittal slice where it is
        return placed
    pairs = [[labels.index(left), labels.index(right)] for left, right in config.data.mirror_pairs]
    return _target(MIRRORED, network=placed, axes=[0], swapped=pairs)


def _inferer(config: SegmentationConfig) -> dict[str, Any]:
    window, axis = list(known(config.patches.size)), plane_axis(config)
    batch = window_batch(window) if config.inference.windows == "auto" else config.inference.windows
    common = {
        "roi_size": window,
        "sw_batch_size": batch,
        "overlap": config.inference.overlap,
        "mode": "gaussian",
        "padding_mode": "replicate",
    }
    if axis is None:
        return _target("SlidingWindowInferer", **common)
    return _target("SliceInferer", spatial_dim=axis, **common)


def _composed(*transforms: dict[str, Any]) -> dict[str, Any]:
    return _target("Compose", transforms=list(transforms))


def _target(name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": name, **arguments}


def network_data_format(config: SegmentationConfig, names: Sequence[str]) -> dict[str, Any]:
    """What goes into the network and comes out, as `metadata.json` of a bundle says it.

    Args:
        config: resolved.
        names: of the classes, background first.
    """
    images, window = known(config.data.images), list(known(config.patches.size))
    common = {"type": "image", "spatial_shape": window, "dtype": "float32", "value_range": [], "is_patch_data": True}
    image = {
        **common,
        "format": "magnitude",
        "modality": "MR",
        "num_channels": len(images),
        "value_range": [0, 1] if config.preprocess.intensity in ("percentile", "median_minmax") else [],
        "channel_def": {str(number): name for number, name in enumerate(images)},
    }
    pred = {
        **common,
        "format": "labels",
        "num_channels": len(names),
        "channel_def": {str(number): name for number, name in enumerate(names)},
    }
    return {"inputs": {IMAGE: image}, "outputs": {PRED: pred}}
