"""Worker processes: a function mapped over items in order, and workers that end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

from segmed.errors import DatasetError

Result = TypeVar("Result")


def map_in_processes(
    function: Callable[..., Result], *arguments: Iterable[Any], workers: int, chunk: int = 1
) -> Iterator[Result]:
    """Results of a function, in the order of its arguments, from worker processes of one thread each.

    Args:
        function: a function that can be pickled.
        arguments: one iterable for each of its arguments.
        workers: number of processes.
        chunk: calls that a worker gets at once.

    Raises:
        DatasetError: a worker was killed.
    """
    # a forked worker has torch and MONAI at once; a fresh one imports them for four seconds
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield from pool.map(function, *arguments, chunksize=chunk)
        except BrokenProcessPool as error:
            raise DatasetError("a worker was killed, probably for lack of memory: give fewer --workers") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def end_with_parent() -> None:
    """End this worker process as soon as its parent ends, even if the parent is killed."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
