"""A run is loaded in the memory format that it was trained in, and finds the same in the other."""

import pytest
import torch
from tiny_data import make_balls, names, tiny, trained

from segmed.builders.trained import load_run
from segmed.runs import read_config, write_config
from segmed.volumes import read_volume

LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


@pytest.mark.parametrize("dims", [2, 3])
def test_weights_lie_as_in_training_and_the_other_format_finds_the_same(tmp_path, dims):
    root = make_balls(tmp_path / "balls")
    config = tiny(
        root,
        tmp_path,
        patches={"dims": dims, "size": [8] * dims},
        network={"encoder": {"norm": "batch"}},
        train={"memory_format": "channels_last", "learning_rate": 0.01},
        inference={"largest_component": []},
    )
    run = trained(config, tmp_path / "run")
    volume = read_volume(root / f"{names()[0]}.nii.gz")
    found = {}
    for memory_format in ("channels_last", "contiguous", "auto"):
        read = read_config(run)
        write_config(
            run, read.model_copy(update={"train": read.train.model_copy(update={"memory_format": memory_format})}), {}
        )
        segmenter = load_run(run.path, device="cpu")
        weight = segmenter.network.encoder.levels[1][0].conv.weight
        assert weight.is_contiguous(memory_format=LAYOUTS[dims]) == (memory_format == "channels_last")
        assert not segmenter.network.training
        found[memory_format] = segmenter.probabilities(volume).as_tensor()
    assert torch.equal(found["auto"], found["contiguous"])
    torch.testing.assert_close(found["channels_last"], found["contiguous"], atol=1e-4, rtol=1e-3)
