"""Contenders that run in nnU-Net's interpreter, or the reason why they do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.processes import PeerError, Worker
from benchmarks.timing import Contender, Setting


@contextmanager
def nnunet(
    setting: Setting, name: str, options: Mapping[str, Any], *, times: int = 1
) -> Iterator[tuple[dict[str, Contender], tuple[str, ...]]]:
    """The contender by name and no note; or none, and a note that says why.

    Args:
        setting: names the interpreter.
        name: of the contender.
        options: of a task of `nnunet_process`.
        times: how often it does its work in a round.
    """
    if setting.nnunet_python is None:
        yield {}, ("nnU-Net was not measured: name an interpreter that has nnunetv2 with --nnunet-python",)
        return
    try:
        worker = Worker("benchmarks.nnunet_process", options, python=setting.nnunet_python, times=times)
    except PeerError as error:
        yield {}, (f"nnU-Net was not measured: {error}",)
        return
    with worker:
        yield {name: worker}, ()
