"""A plan: the config without `auto`, its reasons, and what the run will need, in words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from segmed.config import SegmentationConfig
from segmed.machine import GIB, Machine
from segmed.networks.summary import Summary


@dataclass(frozen=True)
class Plan:
    """A config without `auto`, why each value is what it is, what the run will need and what is to be known of it."""

    config: SegmentationConfig
    reasons: dict[str, str]
    summary: Summary
    memory_bytes: int
    machine: Machine
    parts: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        sections = self.config.model_dump()
        values = {key: reduce(lambda section, name: section[name], key.split("."), sections) for key in self.reasons}
        lines = [f"  {key} = {values[key]}: {reason}" for key, reason in self.reasons.items()]
        need = f"{self.memory_bytes / GIB:.1f} GiB needed, {self.machine.memory_bytes / GIB:.1f} GiB free"
        lines += [f"  memory ({self.machine.name}): {need}", f"  network: {self.summary.one_line}"]
        return "\n".join([f"plan: {self.parts}".rstrip(": "), *lines, *(f"  NOTE: {note}" for note in self.notes)])
