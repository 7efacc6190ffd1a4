"""Records of a run in Weights & Biases: online where somebody is logged in, else in the run folder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from segmed.files import atomic_write_text

if TYPE_CHECKING:
    from PIL.Image import Image


class WandbRecorder:
    """One run of Weights & Biases; `WANDB_PROJECT`, `WANDB_ENTITY` and the like are heeded.

    Args:
        folder: of the run; `wandb/` in it keeps the id and, offline, all records.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._run: Any = None

    def connect(self) -> str:
        """Begin the run, or go on with the one whose id the run folder keeps."""
        import wandb

        known = self.folder / "wandb" / "run_id.txt"
        name = known.read_text(encoding="utf-8").strip() if known.is_file() else secrets.token_hex(4)
        quiet = wandb.Settings(silent=True, console="off", symlink=False, reinit="create_new", init_timeout=30)
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "segmed"),
            name=os.environ.get("WANDB_NAME", self.folder.name),
            id=name,
            resume="allow",
            mode=mode,
            dir=str(self.folder),
            settings=quiet,
        )
        atomic_write_text(known, name + "\n")
        return self._run.url or f"{mode}, run {name} in {known.parent}"

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Figures by tag; those of a step that was sent before are not taken again."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, picture: Image) -> None:
        """One picture."""
        import wandb

        self._run.log({name: wandb.Image(picture)}, step=step)

    def text(self, name: str, text: str) -> None:
        """The values of a YAML, below its name."""
        self._run.config.update({name: yaml.safe_load(text)}, allow_val_change=True)

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Hyper-parameters by dotted name."""
        self._run.config.update(dict(settings), allow_val_change=True)

    def close(self, *, failed: bool) -> None:
        """Send what is left."""
        self._run.finish(exit_code=int(failed))
