"""BIDS: sessions are cases of their subjects, derivatives are their label maps, and what doesn't fit gives one line."""

import json
import shutil
from pathlib import Path

import pytest
from made_bids import make_bids, put_text, put_volume

from segmed.config import BidsLayout, DataConfig, SplitConfig
from segmed.config.reading import load_config
from segmed.data.bids_name import BidsName
from segmed.data.cases import guess_layout, read_dataset
from segmed.data.inputs import find_inputs
from segmed.data.leaks.starter import starter_config
from segmed.data.pairs import pair
from segmed.data.references import find_references
from segmed.data.splits import make_split
from segmed.errors import DatasetError


def read(root: Path, *, complete: bool = True, **layout):
    return read_dataset(DataConfig(root=root, layout=BidsLayout(**layout)), complete=complete)


def test_a_session_is_a_case_with_its_modalities_its_label_map_and_its_subject(tmp_path):
    dataset = read(make_bids(tmp_path))
    assert dataset.name == "Hearts"
    assert [case.id for case in dataset.cases] == [f"sub-0{s}_ses-{n}" for s in (1, 2, 3) for n in (1, 2)]
    assert dataset.modalities == ("T1w", "T2w")
    assert (dataset.labels.names, dataset.labels.values) == (("wall", "scar"), ((1,), (2,)))
    case = dataset.cases[3]
    assert (case.subject, case.meta) == ("sub-02", {"age": "61", "site": "S1"})
    assert case.images["T2w"].path == tmp_path / "sub-02/ses-2/anat/sub-02_ses-2_T2w.nii.gz"
    assert case.label.path == tmp_path / "derivatives/manual/sub-02/ses-2/anat/sub-02_ses-2_dseg.nii.gz"
    assert dataset.subjects_known


def test_sessions_of_a_subject_stay_on_one_side(tmp_path):
    dataset = read(make_bids(tmp_path, subjects=[f"{n:02d}" for n in range(8)]))
    for fold in range(4):
        split = make_split(dataset.cases, SplitConfig(folds=4, fold=fold))
        sides = [{name[:6] for name in part} for part in (split.train, split.validation, split.test)]
        assert sum(map(len, sides)) == 8
        assert len(set.union(*sides)) == 8


def test_subjects_without_sessions_are_cases(tmp_path):
    dataset = read(make_bids(tmp_path, sessions=(), modalities=("T1w",)))
    assert [case.id for case in dataset.cases] == ["sub-01", "sub-02", "sub-03"]


def test_only_sessions_that_are_named_are_used(tmp_path):
    root = make_bids(tmp_path)
    assert [case.id for case in read(root, sessions=("ses-2",)).cases] == [f"sub-0{s}_ses-2" for s in (1, 2, 3)]
    with pytest.raises(DatasetError, match=r"no images of data.layout.sessions: known are 1, 2"):
        read(root, sessions=("9",))


def test_runs_of_an_image_are_cases_and_share_what_was_taken_once(tmp_path):
    root = make_bids(tmp_path, subjects=("01",), sessions=())
    anat, manual = root / "sub-01/anat", root / "derivatives/manual/sub-01/anat"
    (anat / "sub-01_T1w.nii.gz").rename(anat / "sub-01_run-1_T1w.nii.gz")
    (manual / "sub-01_dseg.nii.gz").rename(manual / "sub-01_run-1_dseg.nii.gz")
    put_volume(anat / "sub-01_run-2_T1w.nii.gz")
    put_volume(manual / "sub-01_run-2_dseg.nii.gz", [0, 1, 2])
    cases = read(root).cases
    assert [case.id for case in cases] == ["sub-01_run-1", "sub-01_run-2"]
    assert [case.images["T1w"].path.name for case in cases] == ["sub-01_run-1_T1w.nii.gz", "sub-01_run-2_T1w.nii.gz"]
    assert {case.images["T2w"].path.name for case in cases} == {"sub-01_T2w.nii.gz"}
    assert [case.label.path.name[:12] for case in cases] == ["sub-01_run-1", "sub-01_run-2"]
    assert {case.subject for case in cases} == {"sub-01"}


def test_modalities_are_chosen_by_the_end_of_their_names(tmp_path):
    root = make_bids(tmp_path, subjects=("01", "02"), sessions=(), modalities=("acq-lge_T1w", "acq-cine_T1w"))
    for name in ("01", "02"):
        put_volume(root / f"derivatives/prep/sub-{name}/anat/sub-{name}_desc-brain_T1w.nii.gz")
    with pytest.raises(
        DatasetError, match=r"sub-01_acq-cine_T1w.nii.gz and sub-01_acq-lge_T1w.nii.gz both fit .*as acq-c"
    ):
        read(root)
    dataset = read(root, images={"LGE": "acq-lge_T1w", "brain": "prep/desc-brain_T1w"})
    assert [source.path.name for source in dataset.cases[1].images.values()] == [
        "sub-02_acq-lge_T1w.nii.gz",
        "sub-02_desc-brain_T1w.nii.gz",
    ]
    with pytest.raises(
        DatasetError, match=r"images.LGE: no file in .* ends in 'acq-lg_T1w': did you mean 'acq-lge_T1w'"
    ):
        read(root, images={"LGE": "acq-lg_T1w"})


def test_label_maps_of_several_folders_must_be_chosen_but_predictions_of_segmed_are_never_taken(tmp_path):
    root = make_bids(tmp_path, sessions=(), modalities=("T1w",))
    shutil.copytree(root / "derivatives/manual", root / "derivatives/segmed")
    with pytest.raises(DatasetError, match=r"derivatives/manual and derivatives/segmed both hold.*as 'manual/dseg'"):
        read(root)
    described = root / "derivatives/segmed/dataset_description.json"
    described.write_text(json.dumps({"GeneratedBy": [{"Name": "segmed"}]}))
    assert "manual" in read(root).cases[0].label.path.parts
    assert "segmed" in read(root, label="segmed/dseg").cases[0].label.path.parts
    assert read(root, label=None).cases[0].label is None


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({"label": "manul/dseg"}, "has no folder 'manul': did you mean 'manual'"),
        ({"label": "manual/desc-x_dseg"}, "no file in .*manual ends in 'desc-x_dseg': known are dseg"),
        ({"label": "../manual/dseg"}, "has no folder '../manual'"),
        ({"images": {"a": "FLAIR"}}, "images.a: no file in the subjects' folders ends in 'FLAIR': known are T1w, T2w"),
    ],
)
def test_what_a_layout_names_and_is_not_there_gives_one_line(tmp_path, layout, said):
    with pytest.raises(DatasetError, match=said) as caught:
        read(make_bids(tmp_path), **layout)
    assert "\n" not in str(caught.value)


def test_a_file_in_the_folder_of_somebody_else_is_refused(tmp_path):
    root = make_bids(tmp_path)
    put_volume(root / "sub-01/ses-1/anat/sub-02_ses-1_FLAIR.nii.gz")
    with pytest.raises(DatasetError, match=r"sub-01/ses-1/anat/sub-02_ses-1_FLAIR.* names sub-02 but lies in sub-01"):
        read(root)


def test_a_folder_that_is_no_bids_or_has_no_images_is_said_so(tmp_path):
    put_volume(tmp_path / "a/b.nii.gz")
    with pytest.raises(DatasetError, match=r"has no folders sub-\.\.\., which a BIDS"):
        read(tmp_path)
    (tmp_path / "sub-01/anat").mkdir(parents=True)
    with pytest.raises(DatasetError, match="has subjects but no images as sub-01/anat/sub-01_T1w"):
        read(tmp_path)


def test_a_link_into_a_store_that_was_not_fetched_is_named(tmp_path):
    root = make_bids(tmp_path, sessions=(), modalities=("T1w",))
    image = root / "sub-02/anat/sub-02_T1w.nii.gz"
    image.unlink()
    image.symlink_to("../../.git/annex/objects/x")
    with pytest.raises(DatasetError, match=r"1 files .* are listed but not there, e.g. .*sub-02_T1w"):
        read(root)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("index\tname\nx\twall\n", "row 1 has no whole 'index'"),
        ("number\tname\n1\twall\n", "row 1 has no whole 'index'"),
    ],
)
def test_a_broken_table_of_labels_is_named(tmp_path, table, said):
    root = make_bids(tmp_path)
    put_text(root / "derivatives/manual/dseg.tsv", table)
    with pytest.raises(DatasetError, match=said):
        read(root)


def test_init_finds_bids_and_what_it_writes_trains(tmp_path):
    root = make_bids(tmp_path / "data")
    assert guess_layout(root) == BidsLayout()
    text = starter_config(root)
    (tmp_path / "x.yaml").write_text(text)
    dataset = read_dataset(load_config(tmp_path / "x.yaml").data)
    assert (len(dataset.cases), dataset.labels.names) == (6, ("wall", "scar"))
    assert "from dseg.tsv" in text


def test_what_is_predicted_of_a_bids_folder_are_its_images_whatever_the_run_learned_from(tmp_path):
    root = make_bids(tmp_path, modalities=("T1w",))
    images = sorted(path.name for path in root.glob("sub-*/*/anat/*.nii.gz"))
    own = DataConfig(root=root, layout=BidsLayout(label="other/dseg"), images=("T1w",))
    for data in (own, DataConfig(root=root, layout={"name": "msd"}, images=("MRI",))):
        assert sorted(item.output.name for item in find_inputs(root, data)) == images
    inner = find_inputs(root / "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz", own)
    assert [item.case.id for item in inner] == ["sub-02_ses-1"]


def test_predictions_in_bids_are_paired_with_the_references(tmp_path):
    root = make_bids(tmp_path)
    references, _ = find_references(root)
    folder = root / "derivatives/segmed"
    predictions = [
        put_volume(folder / f"sub-0{s}/ses-{n}/anat/sub-0{s}_ses-{n}_desc-segmed_dseg.nii.gz", [0, 1])
        for s in (1, 2, 3)
        for n in (1, 2)
    ]
    pairing = pair(predictions, references, folder=folder)
    assert not pairing.missing
    assert all(path.name.startswith(name) for name, path in pairing.predictions.items())


def test_a_name_is_its_parts():
    name = BidsName.of("sub-01/anat/sub-01_ses-2_acq-lge_run-1_T1w.nii.gz")
    assert (name.entities["acq"], name.suffix, name.run, name.ending) == ("lge", "T1w", "1", "acq-lge_T1w")
    assert name.stem == "sub-01_ses-2_acq-lge_run-1_T1w"
    assert name.fits(BidsName.of("T1w"))
    assert not name.fits(BidsName.of("acq-cine_T1w"))
