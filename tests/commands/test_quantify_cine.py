"""`segmed quantify-cine`: a tube whose ejection fraction is known, files that can't be used, a real patient."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from beating_heart import AFFINE, GIVEN, POOL, beating, pictured, put, tube_ml
from monai.data import MetaTensor

from segmed.builders.observed import CaseJudge, Judged
from segmed.commands import quantify_cine
from segmed.config import SegmentationConfig
from segmed.errors import CardiacError, ConfigError, DatasetError, VolumeError
from segmed.labels import LabelSet
from segmed.segmenters.segmenter import Segmenter
from segmed.trust.evidence import CaseEvidence, Evidence, StructureEvidence
from segmed.trust.observer import Observer
from segmed.trust.signs import scan_signs, structure_signs
from segmed.trust.verdict import Judge
from segmed.volumes import read_volume, spacing_mm, write_volume
from segmed.volumes.phases import read_phases

TRUE_EF = 100 * (1 - (16 / 24) ** 2)
LABELS = {"rv": 1, "myocardium": 2, "lv_cavity": 3}


class Told(Segmenter):
    """Gives one label map after the other."""

    def __init__(self, phases: np.ndarray) -> None:
        self.labels = LabelSet.from_config(LABELS)
        self.phases = iter(phases)

    def probabilities(self, volume: MetaTensor) -> MetaTensor:
        indices = torch.from_numpy(next(self.phases)).long()
        return MetaTensor(torch.nn.functional.one_hot(indices, 4).permute(3, 0, 1, 2).float(), affine=volume.affine)


def run_tool(monkeypatch, *options) -> int:
    monkeypatch.setattr(sys, "argv", ["quantify-cine", *map(str, options)])
    return quantify_cine.main()


def content(folder: Path) -> dict:
    return json.loads((folder / "cine.json").read_text())


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def heart(tmp_path) -> tuple[Path, Path]:
    """Cine and label maps of all phases."""
    values = beating()
    return put(tmp_path / "in" / "heart.nii.gz", pictured(values)), put(tmp_path / "in" / "heart_gt.nii.gz", values)


def test_label_maps_of_all_phases_give_the_function_and_all_files(heart, tmp_path, monkeypatch, capsys):
    image, labels = heart
    output = tmp_path / "r"
    assert run_tool(monkeypatch, "--image", image, "--labels", labels, *GIVEN, "--output", output) == 0
    assert {path.name for path in output.iterdir()} == {
        "cine.json", "curve.csv", "summary.csv", "curve.png", "montage.png", "report.html",
    }  # fmt: skip
    known = content(output)
    assert known["figures"]["ef"]["value"] == pytest.approx(TRUE_EF, abs=2)
    assert known["figures"]["heart_rate"]["value"] == pytest.approx(60_000 / (70 * 12), rel=1e-4)
    assert "EF 55" in capsys.readouterr().out
    curve = rows(output / "curve.csv")
    assert [row["is"] for row in curve].index("end-systole") == 4
    assert float(curve[3]["lv_ml"]) == pytest.approx(tube_ml(17.5), rel=0.01)
    assert float(curve[3]["time_ms"]) == pytest.approx(210, abs=0.01)
    page = (output / "report.html").read_text()
    assert "No interval: the run is not calibrated" in page
    assert "ejection fraction" in page
    (row,) = rows(output / "summary.csv")
    assert row["ef_percent_from"] == ""
    assert float(row["mass_g"]) == pytest.approx(50, abs=1)


def judged_by(segmenter: Segmenter, level: float | None) -> Judged:
    """The segmenter with a judge, whose 12 subjects showed volumes that were 10 % too small, give or take 2 %."""
    rng = np.random.default_rng(0)
    affine = torch.from_numpy(AFFINE)
    rows = []
    for subject in range(12):
        indices = beating([float(rng.uniform(16, 24))])[0].astype(np.uint8)
        image = MetaTensor(torch.from_numpy(pictured(indices)[None].astype(np.float32)), affine=affine)
        hot = np.moveaxis(np.eye(4, dtype=np.float32)[indices], -1, 0)
        signs = structure_signs(
            hot, indices, image.numpy(), segmenter.labels, spacing_mm=spacing_mm(affine), voxel_ml=0.008
        )
        truth = {name: each["volume"] * (1.1 + rng.uniform(-0.02, 0.02)) for name, each in signs.items()}
        structures = {
            name: StructureEvidence(signs=each, volume=truth[name], dice=0.95) for name, each in signs.items()
        }
        rows.append(CaseEvidence(subject=subject, member=0, scan=scan_signs(image), structures=structures))
    evidence = Evidence(
        predictor="whole", weights=("0",), settings={}, drawn_from="12 made hearts", images=("cine",),
        volume_unit="ml", failure_dice=0.7, cases=tuple(rows),
    )  # fmt: skip
    observer = Observer("whole", clean=lambda each: each)
    return Judged(observer.watch(segmenter), CaseJudge(observer, Judge(evidence, level or 0.9)))


def as_run(monkeypatch, segmenter, *, calibrated=False, **data):
    layout = {"name": "pattern", "images": {"cine": "{case}.nii.gz"}}
    images = data.pop("images", ("cine",))
    sections = {"layout": layout, "labels": LABELS, "images": images, **data}
    config = SegmentationConfig.model_validate({"data": sections})
    monkeypatch.setattr("segmed.builders.trained.load_run_config", lambda folder: config)
    monkeypatch.setattr("segmed.builders.ensembles.members_of", lambda folder: ())
    monkeypatch.setattr(
        "segmed.builders.observed.load_judged",
        lambda *_, level, **__: judged_by(segmenter, level) if calibrated else Judged(segmenter),
    )


def test_a_run_segments_every_phase_and_its_label_maps_are_kept_with_their_times(heart, tmp_path, monkeypatch):
    as_run(monkeypatch, Told(beating()))
    output = tmp_path / "r"
    assert run_tool(monkeypatch, "--run", tmp_path, "--image", heart[0], "--output", output) == 0
    assert content(output)["label_values"] == {"pool": [3], "wall": [2], "rv": [1]}
    assert content(output)["figures"]["ef"]["value"] == pytest.approx(TRUE_EF, abs=2)
    kept = read_phases(output / "labels.nii.gz")
    assert np.array_equal(kept.volume.numpy(), beating())
    assert kept.times_ms == pytest.approx(70.0 * np.arange(12))


def test_a_calibrated_run_gives_intervals_at_levels_that_its_cases_bear_and_flags_both_ends(
    heart, tmp_path, monkeypatch
):
    as_run(monkeypatch, Told(beating()), calibrated=True)
    given = ("--run", tmp_path, "--image", heart[0], "--output", tmp_path / "r")
    assert run_tool(monkeypatch, *given) == 0
    known = content(tmp_path / "r")
    figures = known["figures"]
    for name in ("edv", "esv", "mass"):
        low, high = figures[name]["interval"]
        assert low < 1.1 * figures[name]["value"] < high, name  # the errors of the evidence
        assert high - low < 0.2 * figures[name]["value"], name
    assert figures["ef"]["interval"] is None  # takes two of 95 %, which 12 subjects don't bear
    assert "those of stroke volume and EF need two of 95 %" in known["intervals"]
    assert {end["flag"] for end in known["flags"].values()} <= {"good", "look at it", "do not use"}
    page = (tmp_path / "r" / "report.html").read_text()
    assert f'End-systole: <span class="flag good">good</span> {known["flags"]["end-systole"]["reason"]}.' in page
    assert f"[{figures['esv']['interval'][0]:.1f} to {figures['esv']['interval'][1]:.1f}]" in page
    (row,) = rows(tmp_path / "r" / "summary.csv")
    assert float(row["edv_ml_from"]) == pytest.approx(figures["edv"]["interval"][0], abs=1e-3)
    assert row["flag"] == "good"

    as_run(monkeypatch, Told(beating()), calibrated=True)
    assert run_tool(monkeypatch, *given, "--level", "0.8") == 0
    figures = content(tmp_path / "r")["figures"]
    low, high = figures["ef"]["interval"]
    assert low < figures["ef"]["value"] < high
    assert figures["sv"]["interval"][1] > figures["sv"]["value"]


def test_a_run_of_unknown_spacing_gives_shares_and_no_ml(heart, tmp_path, monkeypatch):
    as_run(monkeypatch, Told(beating()), spacing_known=False)
    assert run_tool(monkeypatch, "--run", tmp_path, "--image", heart[0], "--output", tmp_path / "r") == 0
    figures = content(tmp_path / "r")["figures"]
    assert figures["ef"]["value"] == pytest.approx(TRUE_EF, abs=2)
    assert "edv" not in figures
    assert rows(tmp_path / "r" / "curve.csv")[0]["lv_percent_of_edv"] == "100.0"


def test_a_run_of_two_images_takes_no_cine(heart, tmp_path, monkeypatch):
    as_run(monkeypatch, Told(beating()), images=("cine", "lge"))
    with pytest.raises(ConfigError, match="takes 2 images a case"):
        run_tool(monkeypatch, "--run", tmp_path, "--image", heart[0], "--output", tmp_path / "r")


def test_of_a_folder_every_4d_file_is_a_case_and_a_bad_one_is_reported(heart, tmp_path, monkeypatch, capsys):
    folder, values = heart[0].parent, beating()
    put(folder / "still.nii.gz", pictured(values)[:1])
    put(folder / "other.nii.gz", pictured(values), step_ms=None)
    put(folder / "other_gt.nii.gz", np.where(np.arange(12)[:, None, None, None] < 4, 0, values))
    output = tmp_path / "r"
    assert run_tool(monkeypatch, "--image", folder, "--labels", folder, *GIVEN, "--output", output) == 1
    first, second = rows(output / "summary.csv")
    assert (first["case"], second["case"]) == ("heart", "other")
    assert float(first["ef_percent"]) == pytest.approx(TRUE_EF, abs=2)
    assert "4 of 12 phases have no LV cavity" in second["error"]
    assert "1 of 2 cases can't be measured" in capsys.readouterr().err
    assert content(output / "other")["error"] == second["error"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (("--labels", "LABELS"), CardiacError, "give --pool"),
        ((), ConfigError, "no label maps"),
        (("--labels", "nowhere.nii.gz", *GIVEN), DatasetError, "does not exist"),
        (("--labels", "LABELS", *GIVEN, "--end-systole", "13"), CardiacError, "phases 1 to 12"),
        (("--labels", "LABELS", "--pool", "5"), CardiacError, "12 of 12 phases have no LV cavity"),
    ],
)
def test_what_can_not_be_measured_is_said_in_one_line(heart, tmp_path, monkeypatch, options, error, message):
    given = [str(heart[1]) if option == "LABELS" else option for option in options]
    with pytest.raises(error, match=message) as raised:
        run_tool(monkeypatch, "--image", heart[0], *given, "--output", tmp_path / "r")
    assert "\n" not in str(raised.value)
    assert content(tmp_path / "r")["error"] == str(raised.value)


def test_one_phase_is_said_in_one_line(tmp_path, monkeypatch):
    image = put(tmp_path / "still.nii.gz", pictured(beating())[:1])
    with pytest.raises(VolumeError, match="holds one phase: a cine has two or more"):
        run_tool(monkeypatch, "--image", image, "--labels", image, *GIVEN, "--output", tmp_path / "r")


def test_reference_frames_of_a_patient_give_the_ejection_fraction_of_their_voxels(real_data, tmp_path, monkeypatch):
    """End-diastole and end-systole of ACDC as a cine of two phases."""
    patient = real_data("acdc") / "patient002"
    stacks = {}
    for kind in ("", "_gt"):
        frames = [read_volume(patient / f"patient002_frame0{number}{kind}.nii.gz") for number in (1, 2)]
        stacks[kind] = torch.cat([frame.as_tensor() for frame in frames])
        write_volume(tmp_path / f"two{kind}.nii.gz", MetaTensor(stacks[kind], affine=frames[0].affine))
    given = ("--image", tmp_path / "two.nii.gz", "--labels", tmp_path / "two_gt.nii.gz", *GIVEN)
    assert run_tool(monkeypatch, *given, "--output", tmp_path / "r") == 0
    known = content(tmp_path / "r")
    cavity = (stacks["_gt"] == POOL).sum(dim=(1, 2, 3)).tolist()
    assert known["figures"]["ef"]["value"] == pytest.approx(100 * (1 - cavity[1] / cavity[0]))
    assert "heart_rate" not in known["figures"]
    assert any("2 phases are few" in note for note in known["notes"])
