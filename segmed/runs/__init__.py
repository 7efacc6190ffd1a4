"""Run folders: what is in one, how it is made and found, and what keeps it whole."""

from __future__ import annotations

from segmed.runs.history_columns import read_history
from segmed.runs.new_folder import begin_run, check_new_run, kept_if_begun, new_folds, new_run
from segmed.runs.resolved_config import read_class_config, read_config, read_config_as, write_config
from segmed.runs.run_folder import BEFORE_CONFIG, LOCK, Folds, Run, check_data_there, is_run, open_run, runs_of
from segmed.runs.run_lock import holding, is_held, own_files
from segmed.runs.versions import environment

__all__ = [
    "BEFORE_CONFIG",
    "LOCK",
    "Folds",
    "Run",
    "begin_run",
    "check_data_there",
    "check_new_run",
    "environment",
    "holding",
    "is_held",
    "is_run",
    "kept_if_begun",
    "new_folds",
    "new_run",
    "open_run",
    "own_files",
    "read_class_config",
    "read_config",
    "read_config_as",
    "read_history",
    "runs_of",
    "write_config",
]
