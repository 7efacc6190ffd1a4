"""nnU-Net with its own plan for so many minutes, in an interpreter that has nnunetv2 and without segmed.

Its fingerprint, plan, preprocessing, network, augmentation, loss, optimiser and predictor are its own. What is ours is
the clock: the polynomial decay follows the share of the minutes that is gone, since its 1,000 epochs would take days
on a CPU, and there is no validation between, which costs it time and decides nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

EXPONENT = 0.9  # of PolyLRScheduler


def main() -> None:
    """Train and predict as the JSON file says that is the only argument; write `facts.json` beside it."""
    given = Path(sys.argv[1])
    options = json.loads(given.read_text(encoding="utf-8"))
    work, raw = Path(options["work"]), Path(options["fold"])
    os.environ |= {
        "nnUNet_raw": str(raw.parent),
        "nnUNet_preprocessed": str(work / "preprocessed"),
        "nnUNet_results": str(work / "results"),
        "nnUNet_n_proc_DA": "1",  # its planner takes this number of threads
        "nnUNet_compile": "f",
    }
    facts = _train(raw, work, options)
    began = time.perf_counter()
    _predict(raw, work, options)
    facts["predict_seconds"] = time.perf_counter() - began
    given.with_name("facts.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _train(raw: Path, work: Path, options: dict[str, Any]) -> dict[str, Any]:
    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
    from nnunetv2.run.run_training import get_trainer_from_args

    torch.manual_seed(options["seed"])
    began = time.perf_counter()
    configuration = options["configuration"]
    extract_fingerprints([1], num_processes=1, check_dataset_integrity=False, clean=False, verbose=False)
    plan_experiments([1])
    preprocess([1], configurations=[configuration], num_processes=[1], verbose=False)
    parts = json.loads((raw / "parts.json").read_text(encoding="utf-8"))
    splits = [{"train": parts["train"], "val": parts["validation"] or parts["train"][:1]}]
    (work / "preprocessed" / raw.name / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")
    prepared = time.perf_counter() - began
    os.environ |= {"nnUNet_n_proc_DA": "0"}  # augmentation in the training's own process: its threads are counted
    torch.set_num_threads(options["threads"])
    trainer = get_trainer_from_args("1", configuration, 0, "nnUNetTrainer", "nnUNetPlans", device=torch.device("cpu"))
    trainer.on_train_start()
    budget, steps, start = 60.0 * options["minutes"], 0, time.perf_counter()
    trainer.network.train()
    while (gone := time.perf_counter() - start) < budget:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - gone / budget) ** EXPONENT
        trainer.train_step(next(trainer.dataloader_train))
        steps += 1
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    plan = trainer.configuration_manager
    return {
        "minutes": (time.perf_counter() - start) / 60,
        "prepare_minutes": prepared / 60,
        "steps": steps,
        "plan": f"{configuration}, patch {tuple(int(n) for n in plan.patch_size)}, batch {plan.batch_size}",
        "model": trainer.output_folder_base,
    }


def _predict(raw: Path, work: Path, options: dict[str, Any]) -> None:
    """Its predictor with its defaults: half a window's step, Gaussian weights, mirrored copies."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    model = next((work / "results").rglob("plans.json")).parent
    predictor = nnUNetPredictor(
        tile_step_size=0.5, use_gaussian=True, use_mirroring=True, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(model), use_folds=(0,), checkpoint_name="checkpoint_final.pth")
    target = work / "raw_predictions"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    predictor.predict_from_files_sequential(
        str(raw / "imagesTs"), str(target), save_probabilities=False, overwrite=True
    )


if __name__ == "__main__":
    main()
