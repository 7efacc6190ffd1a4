"""The option --model, which stands wherever --run does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

WHAT = "file that segmed export made, in place of --run or beside it; hf://OWNER/NAME/FILE: on the hub"

Models = Annotated[tuple[Path, ...], tyro.conf.UseAppendAction, Field(description=WHAT)]
OneModel = Annotated[Path | None, Field(description=WHAT.replace(" or beside it", ""))]
