"""Training, inference and evaluation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from segmed.config.base import Auto, Count, Fraction, Positive, Section, Width

Service = Literal["wandb", "mlflow"]


def _switch(value: Any) -> Any:
    """A switch as it was written when it had no `auto`."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class TrainConfig(Section):
    """How long training takes, its step size, and its hardware."""

    epochs: Count = Field(100, description="passes of `steps_per_epoch` steps; not used with budget_minutes")
    budget_minutes: Positive | None = Field(None, description="fit the schedule to this time, validation included")
    steps_per_epoch: Count | Auto = Field("auto", description="auto: every training case is drawn about twice")
    optimiser: Literal["adamw", "adam", "sgd", "adadelta"] = Field(
        "adamw", description="adam: the decay goes through its moments; sgd is with Nesterov momentum"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.99, description="of sgd; 0.99 is nnU-Net's (Isensee et al. 2021)"
    )
    learning_rate: Positive | Literal["auto", "find"] = Field(
        "auto",
        description="peak; auto: 1e-3 adamw and adam, with them 4e-3 where a plain, residual, dense or MedNeXt U-Net "
        "begins with random weights, 1e-2 sgd, 1 adadelta; find: around that by a trial of 20 to 60 steps with a "
        "rising rate, before the first step, in 5 % of the run's minutes at most",
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="decay of the weights")
    schedule: Literal["cosine", "polynomial", "step", "constant"] = Field(
        "cosine", description="from the peak to zero; step: times drop_factor after each drop_share of the run"
    )
    drop_share: Annotated[float, Field(gt=0, le=1)] = Field(
        1 / 3, description="of the run between two drops of the step schedule: 20 of 60 epochs"
    )
    drop_factor: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="of the rate at each drop")
    warmup: Fraction = Field(0.03, description="share of the run in which the rate rises")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(0.99, description="decay of the averaged weights; 0: none")
    frozen_levels: Annotated[int, Field(ge=0)] = Field(
        0, description="levels of the encoder, finest first, that keep the weights they start from"
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="rate of a level of the encoder, as a share of the next coarser one's; decoder and heads: full"
    )
    clip: Annotated[float, Field(ge=0)] = Field(12.0, description="largest norm of the gradient; 0: none")
    batch_size: Count | Auto = Field("auto", description="patches in a step on one device")
    accumulate: Count = Field(1, description="batches before one step of the optimiser")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: measured on this machine")
    memory_format: Literal["auto", "contiguous", "channels_last"] = Field("auto", description="auto: measured")
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(_switch)] = Field(
        "off", description="torch.compile the network that trains; auto: measured, in runs of 15 minutes or more"
    )
    devices: Count | Auto = Field("auto", description="GPUs or processes on this node; torchrun decides by itself")
    workers: Annotated[int, Field(ge=0)] | Auto = Field("auto", description="processes that prepare patches")
    validations: Count = Field(10, description="how often in the run whole volumes are validated")
    validation_cases: Count | None = Field(None, description="at most this many of them; none: all")
    patience: Count | None = Field(None, description="stop after so many validations without a better one; none: never")
    checkpoint_minutes: Positive = Field(5.0, description="a killed run loses at most this much")
    trackers: tuple[Service, ...] = Field((), description="services that record the run beside TensorBoard")


def check_levels(train: TrainConfig, *, network: str, ours: str, starts: bool) -> None:
    """Refuse rates by level, and frozen levels, where there are none.

    Args:
        train: section of the experiment.
        network: its name.
        ours: name of the network that has an encoder of ours.
        starts: whether it begins with weights of another run.

    Raises:
        ValueError: another network, or random weights that would be frozen.
    """
    field = "frozen_levels" if train.frozen_levels else "layer_decay" if train.layer_decay < 1 else None
    if field and network != ours:
        raise ValueError(f"train.{field} is of an encoder of ours: choose the network {ours}, not {network}")
    if train.frozen_levels and not starts:
        raise ValueError(
            f"train.frozen_levels {train.frozen_levels} would keep random weights: name a run by init_network or "
            "init_encoder"
        )


class InferenceConfig(Section):
    """From a volume to a label map."""

    overlap: Annotated[float, Field(ge=0, le=0.95)] = Field(0.5, description="of neighbouring windows")
    window: Literal["patch", "slice"] = Field(
        "patch",
        description="what a network sees at once: a patch, as in training, or, in 2D, a whole slice: less than half of "
        "the work where slices are much larger; not with instance norm, whose statistics are those of patches",
    )
    windows: Width | Auto = Field("auto", description="windows in one batch")
    mirror: bool = Field(False, description="average over mirrored copies (slower, a little better)")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: as in training")
    largest_component: tuple[str, ...] | Auto = Field(
        "auto",
        description="labels, regions, or 'all labels' (together) of which only the largest piece is kept; auto: those "
        "that are one piece in all references of training and validation (five or more), unless validation loses, and "
        "others that gain there beyond chance; of several networks: of their result",
    )
    smallest_ml: dict[str, Positive] = Field(
        default_factory=dict,
        description="label -> ml; connected pieces of it that are smaller are removed, of several "
        "networks from their result",
    )


class EvaluateConfig(Section):
    """What is measured, and how misses count."""

    surface_dice_tolerance_mm: Positive = Field(1.0, description="surface Dice counts distances up to here as right")
    bootstrap: Annotated[int, Field(ge=1, le=1_000_000)] = Field(2000, description="resamplings for the 95 % intervals")
    missed: Literal["diagonal", "skip"] = Field(
        "diagonal", description="distance of a missed or invented structure: the image's diagonal, or left out of means"
    )
    pixel_curves: bool = Field(
        False,
        description="in the run's test, areas under the ROC and the precision-recall curve over pixels, of each case "
        "and of all together",
    )
