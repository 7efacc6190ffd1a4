"""The command `segmed`: the name of a command, then its options."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import NoReturn

from segmed.commands.command_line import HELP, run_tool
from segmed.errors import ConfigError, did_you_mean

COMMANDS = {
    "train": "a segmentation experiment, from files to test figures",
    "train-cls": "a classification experiment, from files to test figures",
    "predict": "label maps of new volumes, by trained runs",
    "calibrate": "intervals, expected Dice and flags of single cases, by labelled cases that a run never saw",
    "classify": "classes of new images or volumes, by trained runs",
    "evaluate": "score label maps against references",
    "compare": "methods on the same test cases",
    "search": "values of an experiment's fields that score best on validation",
    "runs": "list the runs below a folder: state, budget, score, age, size",
    "cache": "prepared volumes and images that runs share: list, check, remove what was not used for long",
    "init": "a first YAML for a folder that nobody described",
    "audit": "open every file of a data set: what must be mended, what would leak",
    "quantify-scar": "mass, share, core and AHA segments of the scar in an LV",
    "export": "one file to hand over, of runs: weights, plan, calibration, model card",
    "model-card": "what a model file is for, its data, figures and limits",
    "quantify-cine": "ejection fraction, volumes and mass from all phases of a cine",
    "download": "a public data set",
    "phantom": "make a synthetic data set with known truth: hearts in LGE or beating, or vessels of the retina",
    "configs": "list the experiments that are shipped",
    "schema": "JSON schema of an experiment, by which an editor completes and checks its YAML",
}


def main() -> NoReturn:
    """Run the command that this process was called with."""
    run_tool(_run)


def _run() -> int | None:
    first, *others = sys.argv[1:] or ["--help"]
    if first in HELP:
        print(_overview())
        return 0
    if first == "--version":
        print(f"segmed {version('segmed-mri')}")
        return 0
    if first == "--print-completion":
        from segmed.commands.completion import print_completion

        return print_completion(others)
    return main_of(first)()


def main_of(command: str) -> Callable[[], int | None]:
    """The function of a command; only its own module is imported.

    Raises:
        ConfigError: there is no such command.
    """
    main: Callable[[], int | None]
    match command:
        case "train":
            from segmed.commands.train_seg import main
        case "train-cls":
            from segmed.commands.train_cls import main
        case "predict":
            from segmed.commands.predict import main
        case "calibrate":
            from segmed.commands.calibrate import main
        case "classify":
            from segmed.commands.classify import main
        case "evaluate":
            from segmed.commands.evaluate import main
        case "compare":
            from segmed.commands.compare import main
        case "search":
            from segmed.commands.search import main
        case "runs":
            from segmed.commands.list_runs import main
        case "cache":
            from segmed.commands.cache import main
        case "init":
            from segmed.commands.write_starter import main
        case "audit":
            from segmed.commands.audit_data import main
        case "quantify-scar":
            from segmed.commands.quantify_scar import main
        case "export":
            from segmed.commands.export import main
        case "model-card":
            from segmed.commands.model_card import main
        case "quantify-cine":
            from segmed.commands.quantify_cine import main
        case "download":
            from segmed.commands.download_data import main
        case "phantom":
            from segmed.commands.make_phantom import main
        case "configs":
            from segmed.commands.list_configs import main
        case "schema":
            from segmed.commands.write_schema import main
        case _:
            raise ConfigError(f"segmed has no command '{command}'{did_you_mean(command, COMMANDS)}")
    return main


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    return "\n".join(
        [
            "usage: segmed COMMAND [OPTIONS]",
            "",
            *(f"  {name:{width}}{what}" for name, what in COMMANDS.items()),
            "",
            "segmed COMMAND --help shows the options that matter, --help-all all of them; segmed --version.",
            "Tab completion, in ~/.bashrc or ~/.zshrc (zsh: after compinit):",
            '  eval "$(segmed --print-completion bash)"',
            '  eval "$(segmed --print-completion zsh)"',
        ]
    )


if __name__ == "__main__":
    main()
