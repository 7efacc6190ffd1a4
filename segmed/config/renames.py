"""Keys that had another name once: one table, for errors that name the new one and for the configs of old runs."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rename:
    """A key that has moved.

    Attributes:
        old, new: dotted, below the section that the table is for.
        of: names of that section which had the key; none: any.
    """

    old: str
    new: str
    of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Moved:
    """A key of a config that has moved: where it stood, and where it belongs."""

    old: str
    new: str

    def __str__(self) -> str:
        return f"'{self.old}' is now '{self.new}'"


WHOLE = (Rename("model", "network"),)
STAGE = (  # of the experiment, or of one of its stages
    Rename("patches.batch_size", "train.batch_size"),
    Rename("train.class_weights", "loss.class_weights"),
)
ENCODER = ("channels", "strides", "blocks", "norm")
NETWORK = (  # of the experiment, of a stage, or of one of its views; the fields of an encoder stood in the network
    Rename("encoder", "encoder.name", of=("unet", "encoder")),
    *(Rename(field, f"encoder.{field}", of=("unet", "encoder")) for field in ENCODER),
    *(Rename(field, f"encoder.{field}", of=("unet",)) for field in ("dropout", "deep_dropout", "checkpointing")),
)
DISCRIMINATOR = (
    Rename("encoder", "encoder.name", of=("patch", "image", "segan")),
    *(Rename(field, f"encoder.{field}", of=("patch", "image", "segan")) for field in ENCODER),
)
FAMILIES: dict[str, dict[str, Any]] = {  # a network's name of old -> that of its family, and which one of it
    **{f"resnet{depth}": {"name": "resnet", "depth": depth} for depth in (18, 34, 50)},
    "densenet121": {"name": "densenet", "depth": 121},
    **{f"efficientnet_b{size}": {"name": "efficientnet", "variant": f"b{size}"} for size in range(5)},
}
STAGES = ("ensemble", "cascade.coarse", "cascade.fine")


def renamed(data: dict[str, Any]) -> tuple[dict[str, Any], tuple[Moved, ...]]:
    """An experiment's mapping with today's keys, and those that have moved."""
    data = deepcopy(data)
    moved = _move(data, WHOLE)
    _inherit(data)
    whole = "model" if moved else "network"
    for path, stage in _stages(data):
        moved += _move(stage, STAGE, path)
        for name, network in _networks(stage):
            moved += _move(network, NETWORK, f"{path}{name or whole}.", f"{path}{name or 'network'}.")
            moved += _family(network, f"{path}{name or whole}", f"{path}{name or 'network'}")
    discriminator = _at(data, ["adversary", "discriminator"])
    if discriminator is not None:
        moved += _move(discriminator, DISCRIMINATOR, "adversary.discriminator.")
    return data, tuple(moved)


def _family(network: dict[str, Any], old: str, new: str) -> list[Moved]:
    """Name the family of a backbone, and which one of it."""
    name = network.get("name")
    if not isinstance(name, str) or name not in FAMILIES:
        return []
    network.update(FAMILIES[name])
    of_family = ", ".join(f"{key}: {value}" for key, value in FAMILIES[name].items())
    return [Moved(f"{old}.name: {name}", f"{new}: {{{of_family}}}")]


def _networks(stage: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The network of a stage, without a name, and those of its views, with their keys."""
    if (network := _at(stage, ["network"])) is not None:
        yield "", network
    for view in _at(stage, ["networks"]) or ():
        if (network := _at(stage, ["networks", view])) is not None:
            yield f"networks.{view}", network


def _move(section: dict[str, Any], table: tuple[Rename, ...], path: str = "", now: str = "") -> list[Moved]:
    """Move what the table names; a value of none was the default, and is left out.

    Args:
        section: is changed.
        table: of keys below it.
        path, now: keys of the section before a dot, as it was called and as it is.
    """
    moved = []
    for row in table:
        *parents, key = row.old.split(".")
        holder = _at(section, parents)
        if holder is None or key not in holder or (row.of and section.get("name") not in row.of):
            continue
        if isinstance(holder[key], dict) and row.new.startswith(f"{row.old}."):
            continue  # a section of today, by the name of the old key
        value = holder.pop(key)
        if value is not None:
            _set(section, row.new.split("."), value)
        moved.append(Moved(f"{path}{row.old}", f"{now or path}{row.new}"))
    return moved


def _stages(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The experiment and each of its stages, with the key before a dot."""
    yield "", data
    for path in STAGES:
        stage = _at(data, path.split("."))
        if stage is not None:
            yield f"{path}.", stage


def _inherit(data: dict[str, Any]) -> None:
    """Give a stage that has one section of its own what the experiment's other one held for it.

    A stage's section stands for the whole of the experiment's; with a key moved from one section to another, a stage
    that had one of them alone would lose it.
    """
    for path, stage in _stages(data):
        if not path:
            continue
        patches, train, loss = (stage.get(name) or data.get(name) or {} for name in ("patches", "train", "loss"))
        batch, weights = patches.get("batch_size"), train.get("class_weights")
        if batch is not None and (stage.get("patches") or stage.get("train")):
            stage["train"] = {**train, "batch_size": batch}
        if stage.get("train") or stage.get("loss"):
            if weights is not None:
                stage["loss"] = {**loss, "class_weights": weights}
            elif (data.get("train") or {}).get("class_weights") is not None:
                stage["loss"] = dict(loss)  # that of the whole, without its weights


def _at(data: Any, path: list[str]) -> dict[str, Any] | None:
    """The mapping at a path; none where there is none."""
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else None


def _set(data: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        if not isinstance(data.get(key), dict):
            data[key] = {}
        data = data[key]
    data.setdefault(path[-1], value)
