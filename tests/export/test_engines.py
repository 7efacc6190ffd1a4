"""Networks for other engines: every encoder in 2D and 3D, images of any size, and what stands in the file."""

import json
import sys

import numpy as np
import pytest
import torch
from small_networks import ENCODERS, image_of, make_net
from untrained_runs import untrained_run

from segmed.commands.program import main_of
from segmed.errors import RunError, SegmenterError
from segmed.export.convert import ENGINE_OF, convert, parity
from segmed.export.engine_files import add_engines
from segmed.export.write_model import handed_over
from segmed.segmenters import engines
from segmed.segmenters.engines import start_engine
from segmed.volumes import read_volume


@pytest.mark.parametrize("form", ["onnx", "openvino"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: encoder.__name__)
def test_every_encoder_gives_the_logits_of_torch_at_another_size(encoder, dims, form, tmp_path):
    pytest.importorskip(ENGINE_OF[form])
    network = make_net(encoder, dims, "anisotropic", upsampling="interpolate" if dims == 2 else "transposed").eval()
    file = convert(network, tmp_path / "network", form, image=image_of(dims, batch=1, size=8))
    compute = start_engine(ENGINE_OF[form], file, precision="fp32")
    figures = parity(network, compute, image_of(dims, batch=3, size=16, seed=1), lambda logits: logits.argmax(1))
    assert figures["largest_difference_of_logits"] < 1e-3
    assert figures["equal_voxels"] > 0.999


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "auto"])
def test_predict_gives_the_labels_of_torch(engine, tmp_path, monkeypatch):
    pytest.importorskip("openvino" if engine == "auto" else engine)
    run = untrained_run(tmp_path / "run")
    image = tmp_path / "balls_of_the_hospital" / "ball_00.nii.gz"

    def call(command, *arguments):
        monkeypatch.setattr(sys, "argv", ["segmed", command, *map(str, arguments)])
        assert main_of(command)() == 0

    form = "onnx" if engine == "onnxruntime" else "openvino"
    call("export", "--run", run.path, "--format", form, "--output", tmp_path / "m.segmed")
    for each in ("torch", engine):
        given = ("--model", tmp_path / "m.segmed", "--engine", each)
        call("predict", *given, "--input", image, "--output", tmp_path / each)
    maps = [read_volume(tmp_path / each / "ball_00.nii.gz").numpy() for each in ("torch", engine)]
    assert np.mean(maps[0] == maps[1]) >= 0.999
    record = json.loads((tmp_path / engine / "prediction.json").read_text())
    assert record["settings"]["engine"] == engine
    assert record["engine_reason"].startswith("measured: torch" if engine == "auto" else "given")


def test_the_distance_from_torch_stands_beside_the_weights(tmp_path):
    pytest.importorskip("onnxruntime")
    run = untrained_run(tmp_path / "run")
    with handed_over([run.path]) as (_, (copy,)):
        lines = add_engines(copy, ["onnx"])
        figures = json.loads((copy / "weights" / "engines.json").read_text())["onnx"]
    assert figures["least_dice_of_labels"] > 0.99
    assert figures["largest_difference_of_logits"] < 1e-3
    assert "ONNX Runtime (1), compared with torch" in lines[0]


def test_a_network_of_an_engine_is_asked_of_a_file_that_holds_it(tmp_path):
    from segmed.builders.trained import load_run

    run = untrained_run(tmp_path / "run")
    with pytest.raises(RunError, match="holds no network for OpenVINO: segmed export --format openvino makes one"):
        load_run(run.path, engine="openvino")


def test_a_missing_engine_names_its_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(SegmenterError, match=r'pip install "segmed-mri\[openvino\]"'):
        start_engine("openvino", tmp_path / "none.xml", precision="fp32")


def test_an_operator_that_an_engine_lacks_is_one_line(tmp_path):
    class Strange(torch.nn.Module):
        def forward(self, image):
            return torch.special.bessel_j0(image)

    with pytest.raises(SegmenterError, match="ONNX Runtime can't compute this network") as caught:
        convert(Strange(), tmp_path / "network", "onnx", image=torch.zeros(1, 1, 8, 8))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("take --engine torch")


def test_another_network_is_not_kept(tmp_path):
    network = make_net(dims=2).eval()
    with pytest.raises(SegmenterError, match="differs from torch"):
        parity(network, lambda image: -network(torch.from_numpy(image)).numpy(), image_of(2), lambda x: x.argmax(1))
