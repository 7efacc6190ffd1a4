"""Values that a run measures when it starts, such as its precision, in place of `auto` in its config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from segmed.config import Section
from segmed.files import write_json
from segmed.runs import Run, write_config
from segmed.training.ranks import Ranks

Config = TypeVar("Config", bound=Section)
ASKED = ("auto", "find")  # values of a field that say: measure it


def keep_measured(
    run: Run, config: Config, section: str, values: Mapping[str, Any], reason: str, *, ranks: Ranks
) -> Config:
    """Replace each `auto` (or `find`) of a section by its measured value, in the config and in the run folder.

    Args:
        run: whose `config.yaml` and `plan.json` are written.
        config: of the run.
        section: with the fields.
        values: field -> measured value; fields that are given already stay.
        reason: of these values.
        ranks: the leading process writes, and the others wait for it.

    Returns:
        The config with the values.
    """
    part = getattr(config, section)
    measured = {field: value for field, value in values.items() if getattr(part, field) in ASKED}
    if not measured:
        return config
    changed = config.model_copy(update={section: part.model_copy(update=measured)})

    def write() -> None:
        plan = json.loads(run.plan.read_text(encoding="utf-8"))
        plan["reasons"].update({f"{section}.{field}": reason for field in measured})
        write_json(run.plan, plan)
        write_config(run, changed, plan["reasons"])

    ranks.lead(write)
    return changed
