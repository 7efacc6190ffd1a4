"""Cases: every published layout gives the same cases, and what does not fit gives one line."""

import csv
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from segmed.config import DataConfig, ManifestLayout, MsdLayout, NnunetLayout, PatternLayout, PhantomLayout
from segmed.config.reading import load_config
from segmed.data.cases import Case, Dataset, find_volumes, guess_layout, read_dataset
from segmed.data.leaks.starter import starter_config
from segmed.errors import DatasetError, VolumeError
from segmed.targets import targets_of
from segmed.volumes import Source, read_label_volume, read_volume

LABELS = {"scar": 1, "wall": 2}


def put(path: Path, values=None, shape=(4, 5, 3)) -> Path:
    """A small volume; `values` makes it a label map."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    data = rng.normal(size=shape).astype(np.float32) if values is None else rng.choice(values, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    return path


def read(root: Path, layout, **fields) -> Dataset:
    return read_dataset(DataConfig(root=root, layout=layout, **{"labels": LABELS, **fields}))


def write_json(path: Path, content) -> None:
    path.write_text(json.dumps(content))


# ---------------------------------------------------------------- Medical Segmentation Decathlon


def make_msd(root: Path, *, entries="dicts", modality=None, shape=(4, 5, 3), labels=None) -> Path:
    ids = ["heart_03", "heart_01", "heart_02"]
    for name in ids:
        put(root / "imagesTr" / f"{name}.nii.gz", shape=shape)
        put(root / "labelsTr" / f"{name}.nii.gz", [0, 1, 2])
    put(root / "imagesTr" / "._heart_01.nii.gz")
    images, maps = ([f"./{folder}/{name}.nii.gz" for name in ids] for folder in ("imagesTr", "labelsTr"))
    training = {
        "dicts": [{"image": image, "label": label} for image, label in zip(images, maps, strict=True)],
        "pairs": [list(pair) for pair in zip(images, maps, strict=True)],
        "strings": images,
    }[entries]
    described = {
        "name": "Heart",
        "modality": {"0": "MRI"} if modality is None else modality,
        "labels": labels or {"0": "background", "1": "scar", "2": "wall"},
        "training": training,
        "test": ["./imagesTs/heart_09.nii.gz"],
    }
    write_json(root / "dataset.json", described)
    return root


@pytest.mark.parametrize("entries", ["dicts", "pairs", "strings"])
def test_msd_lists_of_every_form_give_cases_sorted_by_id(tmp_path, entries):
    dataset = read(make_msd(tmp_path, entries=entries), MsdLayout(), labels="auto")
    assert (dataset.name, dataset.root, dataset.modalities) == ("Heart", tmp_path, ("MRI",))
    assert [case.id for case in dataset.cases] == ["heart_01", "heart_02", "heart_03"]
    assert [case.subject for case in dataset.cases] == ["heart_01", "heart_02", "heart_03"]
    case = dataset.cases[0]
    assert case.images == {"MRI": Source(tmp_path / "imagesTr/heart_01.nii.gz")}
    assert case.label == Source(tmp_path / "labelsTr/heart_01.nii.gz")
    assert dict(zip(dataset.labels.names, dataset.labels.values, strict=True)) == {"scar": (1,), "wall": (2,)}


@pytest.mark.parametrize(
    "names", [{"0": "FLAIR", "1": "T1w", "10": "ADC", "2": "T2w"}, ["FLAIR", "T1w", "T2w", "ADC"]], ids=["dict", "list"]
)
def test_modalities_of_a_4d_image_are_its_components_by_name(tmp_path, names):
    dataset = read(make_msd(tmp_path, modality=names, shape=(4, 5, 3, 4)), MsdLayout())
    assert dataset.modalities == ("FLAIR", "T1w", "T2w", "ADC")
    image = dataset.cases[0].images["T2w"]
    assert image.component == 2
    whole = read_volume(image.path)
    assert np.array_equal(read_volume(image).numpy(), whole.numpy()[2:3])
    chosen = read(tmp_path, MsdLayout(), images=["ADC", "FLAIR"])
    assert chosen.modalities == ("ADC", "FLAIR")
    assert [source.component for source in chosen.cases[0].images.values()] == [3, 0]


def test_components_of_a_4d_file_are_named_by_the_config(tmp_path):
    root = make_msd(tmp_path, shape=(4, 5, 3, 6))
    dataset = read(root, MsdLayout(), components={"ed": 0, "es": 4}, images=["es", "ed"])
    assert dataset.modalities == ("es", "ed")
    assert [source.component for source in dataset.cases[0].images.values()] == [4, 0]
    assert read(root, MsdLayout(), components={"ed": 0}).modalities == ("ed",)


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "1": "scar", "2": "wall"},
        {"background": 0, "scar": 1, "wall": 2},
        {"background": 0, "scar": [1], "wall": [2]},
        {"background": "0", "scar": "1", "wall": "2"},
    ],
    ids=["number to name", "name to number", "name to list", "numbers as text"],
)
def test_labels_of_dataset_json_are_read_in_every_form(tmp_path, labels):
    dataset = read(make_msd(tmp_path, labels=labels), MsdLayout(), labels="auto")
    assert (dataset.labels.names, dataset.labels.values) == (("scar", "wall"), ((1,), (2,)))


def test_the_config_renames_and_merges_labels_of_dataset_json(tmp_path):
    dataset = read(make_msd(tmp_path), MsdLayout(), labels={"whole": [1, 2]})
    assert (dataset.labels.names, dataset.labels.values) == (("whole",), ((1, 2),))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "dataset.json").unlink(), "dataset.json does not exist"),
        (lambda root: (root / "dataset.json").write_text("{"), "dataset.json is not JSON"),
        (lambda root: (root / "dataset.json").write_text("[" * 100000), "dataset.json is not JSON"),
        (lambda root: write_json(root / "dataset.json", []), "dataset.json is not a dictionary"),
        (lambda root: write_json(root / "dataset.json", {}), "lists no cases under 'training'"),
        (lambda root: write_json(root / "dataset.json", {"training": [3]}), "training entry 1 has no 'image'"),
        (
            lambda root: write_json(root / "dataset.json", {"training": [{"image": "a.nii", "label": 3}]}),
            "training entry 1: 'label' is not a path",
        ),
        (
            lambda root: write_json(root / "dataset.json", {"training": ["a.nii.gz"], "modality": {"x": "T1"}}),
            "channels are not numbered",
        ),
        (
            lambda root: write_json(root / "dataset.json", {"training": ["a.nii.gz"], "modality": "T1"}),
            "has no names of channels",
        ),
        (
            lambda root: write_json(root / "dataset.json", {"training": ["a.nii.gz"], "labels": {"scar": "x"}}),
            "'labels' are not names and whole numbers",
        ),
        *(
            (
                lambda root, value=value: write_json(
                    root / "dataset.json", {"training": ["a.nii.gz"], "labels": {"scar": value}}
                ),
                "'labels' are not names and whole numbers",
            )
            for value in (1.5, True, float("inf"), float("nan"), [[1]])
        ),
        (lambda root: (root / "imagesTr/heart_02.nii.gz").unlink(), "1 files of .* are listed but not there"),
        (lambda root: (root / "labelsTr/heart_02.nii.gz").unlink(), r"e\.g\. .*labelsTr/heart_02\.nii\.gz"),
    ],
)
def test_a_bad_msd_folder_gives_one_line(tmp_path, change, said):
    change(make_msd(tmp_path))
    with pytest.raises(DatasetError, match=said) as caught:
        read(tmp_path, MsdLayout())
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- nnU-Net raw


def make_nnunet(root: Path, *, channels=2, described=True) -> Path:
    for name in ("la_002", "la_001"):
        for channel in range(channels):
            put(root / "imagesTr" / f"{name}_{channel:04d}.nii.gz")
        put(root / "labelsTr" / f"{name}.nii.gz", [0, 1, 2])
    put(root / "imagesTr" / "._la_001_0000.nii.gz")
    if described:
        content = {
            "channel_names": {"0": "LGE", "1": "T2"},
            "labels": {"background": 0, "scar": 1, "wall": 2, "ignore": 3},
            "numTraining": 2,
            "file_ending": ".nii.gz",
        }
        write_json(root / "dataset.json", content)
    return root


def test_nnunet_channels_are_modalities_by_name(tmp_path):
    dataset = read(make_nnunet(tmp_path), NnunetLayout(), labels="auto")
    assert [case.id for case in dataset.cases] == ["la_001", "la_002"]
    assert dataset.modalities == ("LGE", "T2")
    assert dataset.cases[0].images["T2"] == Source(tmp_path / "imagesTr/la_001_0001.nii.gz")
    assert dataset.cases[0].label == Source(tmp_path / "labelsTr/la_001.nii.gz")
    assert (dataset.labels.names, dataset.labels.ignore) == (("scar", "wall"), (3,))


def test_nnunet_without_dataset_json_names_channels_by_number(tmp_path):
    assert read(make_nnunet(tmp_path, described=False), NnunetLayout()).modalities == ("0000", "0001")


def test_nnunet_files_may_be_listed(tmp_path):
    put(tmp_path / "a/x.nii.gz")
    put(tmp_path / "b/x.nii.gz", [0, 1])
    listed = {"case_7": {"images": ["a/x.nii.gz"], "label": "b/x.nii.gz"}}
    write_json(tmp_path / "dataset.json", {"channel_names": {"0": "T1"}, "labels": {"x": 1}, "dataset": listed})
    (case,) = read(tmp_path, NnunetLayout()).cases
    assert (case.id, case.images["T1"].path, case.label) == (
        "case_7",
        tmp_path / "a/x.nii.gz",
        Source(tmp_path / "b/x.nii.gz"),
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "imagesTr/la_002_0001.nii.gz").unlink(), "case 'la_002' has no image 'T2'"),
        (lambda root: (root / "labelsTr/la_002.nii.gz").unlink(), "1 of 2 cases have no label map"),
        (lambda root: put(root / "labelsTr/la_009.nii.gz"), r"label map .*la_009\.nii\.gz has no image"),
        (lambda root: put(root / "imagesTr/la_003.nii.gz"), "does not end in a channel such as _0000"),
        (
            lambda root: put(root / "imagesTr/la_001_0002.nii.gz"),
            r"0002\.nii\.gz is channel _0002, but .* names 2",
        ),
        (lambda root: (root / "imagesTr").rename(root / "images"), "has no folder imagesTr"),
    ],
)
def test_a_bad_nnunet_folder_gives_one_line(tmp_path, change, said):
    change(make_nnunet(tmp_path))
    with pytest.raises(DatasetError, match=said) as caught:
        read(tmp_path, NnunetLayout())
    assert "\n" not in str(caught.value)


BRATS = {"background": 0, "whole": [1, 2, 4], "core": [1, 4], "enhancing": [4]}


def test_nnunets_regions_are_targets_in_its_order_of_painting(tmp_path):
    root = make_nnunet(tmp_path)
    regions = {"labels": BRATS, "regions_class_order": [2, 1, 4]}
    write_json(root / "dataset.json", json.loads((root / "dataset.json").read_text()) | regions)
    labels = read(root, NnunetLayout(), labels="auto").labels
    assert labels.targets == ("whole", "core", "enhancing")
    assert labels.regions == {"whole": ("label_1", "label_2", "enhancing"), "core": ("label_1", "enhancing")}
    targets = targets_of(labels)
    probabilities = torch.tensor([[0.9, 0.9, 0.9, 0.1], [0.1, 0.8, 0.8, 0.1], [0.1, 0.1, 0.7, 0.1]])
    painted = np.zeros(4, np.uint8)  # as nnU-Net does
    for value, probability in zip([2, 1, 4], probabilities, strict=True):
        painted[probability.numpy() > 0.5] = value
    decided = targets.decided(torch.logit(probabilities)[None, :, :, None])
    assert labels.decode(decided.numpy()[0, :, 0]).tolist() == painted.tolist() == [2, 1, 4, 0]
    assert read(root, NnunetLayout(), labels="auto", targets="labels").labels.targets == ()
    (tmp_path / "starter.yaml").write_text(starter_config(root))
    data = load_config(tmp_path / "starter.yaml").data
    assert read_dataset(data).labels.targets == labels.targets == tuple(data.targets)


def test_of_merged_values_the_one_of_the_order_is_written(tmp_path):
    root = make_nnunet(tmp_path)
    regions = {"labels": {"whole": [1, 2, 3], "core": [3]}, "regions_class_order": [2, 3]}
    write_json(root / "dataset.json", json.loads((root / "dataset.json").read_text()) | regions)
    labels = read(root, NnunetLayout(), labels="auto").labels
    assert labels.decode(np.array([1, 2])).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ([2, 1], r"is \[2, 1\]: give one value for each of whole, core, enhancing"),
        ("2, 1, 4", "give one value for each"),
        ([1, 2, 4], r"writes 'whole' as 1, which is no value of it alone: give one of \[2\]"),
    ],
)
def test_a_wrong_order_of_nnunets_regions_is_one_line(tmp_path, order, said):
    root = make_nnunet(tmp_path)
    regions = {"labels": BRATS, "regions_class_order": order}
    write_json(root / "dataset.json", json.loads((root / "dataset.json").read_text()) | regions)
    with pytest.raises(DatasetError, match=said) as caught:
        read(root, NnunetLayout(), labels="auto")
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- patterns


def test_one_folder_a_case(tmp_path):
    for name in ("Case2", "Case1"):
        put(tmp_path / name / f"{name}_LGE.nii.gz")
        put(tmp_path / name / f"{name}_gd.nii.gz", [0, 1, 2])
        put(tmp_path / name / f"._{name}_LGE.nii.gz")
    layout = PatternLayout(images={"LGE": "{case}/{case}_LGE.nii.gz"}, label="{case}/{case}_gd.nii.gz")
    dataset = read(tmp_path, layout)
    assert [case.id for case in dataset.cases] == ["Case1", "Case2"]
    assert dataset.cases[1].images["LGE"].path == tmp_path / "Case2/Case2_LGE.nii.gz"
    assert dataset.cases[1].label == Source(tmp_path / "Case2/Case2_gd.nii.gz")


def test_a_label_map_is_not_taken_for_a_case(tmp_path):
    for subject in ("patient001", "patient002"):
        for frame in ("01", "12"):
            put(tmp_path / subject / f"{subject}_frame{frame}.nii.gz")
            put(tmp_path / subject / f"{subject}_frame{frame}_gt.nii.gz", [0, 1])
    layout = PatternLayout(images={"cine": "{subject}/{case}.nii.gz"}, label="{subject}/{case}_gt.nii.gz")
    dataset = read(tmp_path, layout)
    assert [case.id for case in dataset.cases] == [
        f"patient00{n}_frame{frame}" for n in (1, 2) for frame in ("01", "12")
    ]
    assert [case.subject for case in dataset.cases] == ["patient001"] * 2 + ["patient002"] * 2


def test_an_image_is_not_taken_for_a_label_map(tmp_path):
    put(tmp_path / "a_image.nii.gz")
    put(tmp_path / "a.nii.gz", [0, 1])
    (case,) = read(tmp_path, PatternLayout(images={"T1": "{case}_image.nii.gz"}, label="{case}.nii.gz")).cases
    assert (case.id, case.label) == ("a", Source(tmp_path / "a.nii.gz"))


def test_cases_of_one_name_in_several_subjects_get_the_subject_in_their_id(tmp_path):
    for subject in ("p1", "p2"):
        for case in ("ed", "es"):
            put(tmp_path / subject / f"{case}.nii.gz")
            put(tmp_path / subject / "truth" / f"{case}.nii.gz", [0, 1])
    layout = PatternLayout(images={"cine": "{subject}/{case}.nii.gz"}, label="{subject}/truth/{case}.nii.gz")
    dataset = read(tmp_path, layout)
    assert [(case.id, case.subject) for case in dataset.cases] == [
        ("p1_ed", "p1"),
        ("p1_es", "p1"),
        ("p2_ed", "p2"),
        ("p2_es", "p2"),
    ]
    assert dataset.cases[2].label == Source(tmp_path / "p2/truth/ed.nii.gz")


@pytest.mark.parametrize(
    ("regex", "subject"), [(r"sub-\d+", "sub-07"), (r"sub-(\d+)", "07"), (r"(?:ses)-(\d)", "1"), (None, "sub-07_ses-1")]
)
def test_a_regular_expression_finds_the_subject_in_the_id(tmp_path, regex, subject):
    put(tmp_path / "sub-07_ses-1.nii.gz")
    (case,) = read(tmp_path, PatternLayout(images={"T1": "{case}.nii.gz"}, subject=regex)).cases
    assert (case.subject, case.label) == (subject, None)


def test_several_modalities_with_names_of_their_own(tmp_path):
    for case in ("brats_3", "brats_5"):
        for name in ("Flair_subtrMeanDivStd", "T1c_subtrMeanDivStd"):
            put(tmp_path / case / f"{name}.nii.gz")
        put(tmp_path / case / "OTMultiClass.nii.gz", [0, 1, 2])
    images = {"T1c": "{case}/T1c_subtrMeanDivStd.nii.gz", "Flair": "{case}/Flair_subtrMeanDivStd.nii.gz"}
    layout = PatternLayout(images=images, label="{case}/OTMultiClass.nii.gz")
    assert read(tmp_path, layout).modalities == ("T1c", "Flair")
    assert list(read(tmp_path, layout, images=["Flair"]).cases[0].images) == ["Flair"]
    (tmp_path / "brats_5" / "T1c_subtrMeanDivStd.nii.gz").unlink()
    with pytest.raises(DatasetError, match="case 'brats_5' has no image 'T1c': add it, leave the case out"):
        read(tmp_path, layout)
    assert len(read(tmp_path, layout, images=["Flair"]).cases) == 2


def test_an_image_of_the_subject_serves_all_its_cases(tmp_path):
    put(tmp_path / "p1/T1.nii.gz")
    for case in ("a", "b"):
        put(tmp_path / f"p1/{case}_LGE.nii.gz")
        put(tmp_path / f"p1/{case}_seg.nii.gz", [0, 1])
    images = {"LGE": "{subject}/{case}_LGE.nii.gz", "T1": "{subject}/T1.nii.gz"}
    dataset = read(tmp_path, PatternLayout(images=images, label="{subject}/{case}_seg.nii.gz"))
    assert [case.images["T1"].path for case in dataset.cases] == [tmp_path / "p1/T1.nii.gz"] * 2


@pytest.mark.parametrize("name", ["a[1]", "scan (2)", "a?b", "x{y", "50%", "a+b$", "ünï cödé", "a b"])
def test_symbols_in_real_names_stand_for_themselves(tmp_path, name):
    root = tmp_path / "root [x]*"
    put(root / name / f"{name}_LGE.nii.gz")
    put(root / name / "label[1].nii.gz", [0, 1])
    layout = PatternLayout(images={"LGE": "{case}/{case}_LGE.nii.gz"}, label="{case}/label[1].nii.gz")
    (case,) = read(root, layout).cases
    assert (case.id, case.label.path.name) == (name, "label[1].nii.gz")


def test_a_star_stands_for_text_that_does_not_matter(tmp_path):
    put(tmp_path / "c1/scan_2019.nii.gz")
    put(tmp_path / "c2/scan_2020.nii.gz")
    layout = PatternLayout(images={"T1": "{case}/scan_*.nii.gz"})
    assert [case.id for case in read(tmp_path, layout).cases] == ["c1", "c2"]
    put(tmp_path / "c2/scan_2021.nii.gz")
    with pytest.raises(DatasetError, match=r"scan_2020\.nii\.gz and scan_2021\.nii\.gz both fit"):
        read(tmp_path, layout)


def test_pairs_of_2d_images(tmp_path):
    for n in (1, 2):
        for folder, value in (("images", 90), ("masks", 1)):
            (tmp_path / folder).mkdir(exist_ok=True)
            suffix = "jpg" if folder == "images" else "png"
            Image.new("L", (8, 6), value).save(tmp_path / folder / f"slice{n}.{suffix}")
    dataset = read(tmp_path, PatternLayout(images={"image": "images/{case}.jpg"}, label="masks/{case}.png"))
    assert [case.id for case in dataset.cases] == ["slice1", "slice2"]
    assert read_volume(dataset.cases[0].images["image"]).shape == (1, 8, 6, 1)
    assert read_label_volume(dataset.cases[0].label).unique().tolist() == [1]


def make_cases(root: Path, names=("c1", "c2")) -> Path:
    for name in names:
        put(root / name / f"{name}_LGE.nii.gz")
        put(root / name / f"{name}_gd.nii.gz", [0, 1, 2])
    return root


PATTERN = PatternLayout(images={"LGE": "{case}/{case}_LGE.nii.gz"}, label="{case}/{case}_gd.nii.gz")


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({"images": {"LGE": "{case}/{case}_T2.nii.gz"}}, r"fits '{case}/{case}_T2\.nii\.gz' \(there are c1/c1_LGE"),
        ({"images": {"LGE": "{case}_LGE.nii.gz"}}, r"adapt data\.layout\.images\.LGE"),
        ({"label": "{case}/{case}_seg.nii.gz"}, r"fits '{case}/{case}_seg\.nii\.gz' .*: adapt data\.layout\.label"),
        ({"images": {"LGE": "{name}/a.nii.gz"}}, "unknown {name}: known are subject, case"),
        ({"images": {"LGE": "{csae}/a.nii.gz"}}, "unknown {csae}: did you mean 'case'"),
        ({"images": {"LGE": "a.nii.gz"}}, "has no {case}"),
        ({"images": {"LGE": "../{case}.nii.gz"}}, r"leaves data\.root"),
        ({"images": {"LGE": "/data/{case}.nii.gz"}}, r"leaves data\.root"),
        ({"images": {}}, r"data\.layout\.images is empty"),
        ({"images": {"A": "{case}/{case}_LGE.nii.gz", "B": "{case}/{case}_LGE.nii.gz"}}, "fits .* and .* narrower"),
        ({"subject": "(x"}, "no regular expression"),
        ({"subject": "patient"}, "is not found in case 'c1'"),
    ],
)
def test_patterns_that_do_not_fit_give_one_line(tmp_path, layout, said):
    make_cases(tmp_path)
    with pytest.raises(DatasetError, match=said) as caught:
        read(tmp_path, PATTERN.model_copy(update=layout))
    assert "\n" not in str(caught.value)


def test_an_unlabelled_case_is_an_error_or_left_out_or_kept_for_an_audit(tmp_path):
    put(make_cases(tmp_path) / "c3" / "c3_LGE.nii.gz")
    with pytest.raises(DatasetError, match=r"1 of 3 cases have no label map, e\.g\. .*c3_LGE\.nii\.gz: add it"):
        read(tmp_path, PATTERN)
    assert [case.id for case in read(tmp_path, PATTERN, unlabelled="skip").cases] == ["c1", "c2"]
    kept = read_dataset(DataConfig(root=tmp_path, layout=PATTERN, labels=LABELS), complete=False)
    assert [case.label is None for case in kept.cases] == [False, False, True]


def test_a_label_map_without_an_image_is_an_error_or_kept_for_an_audit(tmp_path):
    put(make_cases(tmp_path) / "c3" / "c3_gd.nii.gz", [0, 1])
    with pytest.raises(DatasetError, match=r"label map .*c3_gd\.nii\.gz has no image"):
        read(tmp_path, PATTERN)
    kept = read_dataset(DataConfig(root=tmp_path, layout=PATTERN, labels=LABELS), complete=False)
    assert kept.cases[2] == Case("c3", "c3", {}, Source(tmp_path / "c3/c3_gd.nii.gz"))


# ---------------------------------------------------------------- manifests


def write_csv(path: Path, rows: list[dict], delimiter=",") -> None:
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


ROWS = [
    {"image": "img/b.nii.gz", "label": "lab/b.nii.gz", "subject": "s2", "site": "Oslo", "split": "test", "age": "61"},
    {"image": "img/a.nii.gz", "label": "lab/a.nii.gz", "subject": "s1", "site": "Bern", "split": "train", "age": ""},
]


@pytest.mark.parametrize("kind", ["comma", "semicolon", "tab", "json", "json cases"])
def test_manifests_of_every_form_give_the_same_cases(tmp_path, kind):
    for name in "ab":
        put(tmp_path / f"img/{name}.nii.gz")
        put(tmp_path / f"lab/{name}.nii.gz", [0, 1])
    file = "manifest.json" if kind.startswith("json") else "manifest.csv"
    if kind.startswith("json"):
        write_json(tmp_path / file, {"cases": ROWS} if kind == "json cases" else ROWS)
    else:
        write_csv(tmp_path / file, ROWS, {"comma": ",", "semicolon": ";", "tab": "\t"}[kind])
    first, second = read(tmp_path, ManifestLayout(file=file)).cases
    assert first == Case(
        "a",
        "s1",
        {"image": Source(tmp_path / "img/a.nii.gz")},
        Source(tmp_path / "lab/a.nii.gz"),
        {"site": "Bern", "split": "train"},
    )
    assert second.meta == {"site": "Oslo", "split": "test", "age": "61"}


def test_a_manifest_names_several_modalities(tmp_path):
    put(tmp_path / "x/T1.nii.gz")
    put(tmp_path / "x/T2.nii.gz")
    write_csv(tmp_path / "manifest.csv", [{"case": "x", "image:T1": "x/T1.nii.gz", "image:T2": "x/T2.nii.gz"}])
    dataset = read(tmp_path, ManifestLayout())
    assert (dataset.modalities, dataset.cases[0].id) == (("T1", "T2"), "x")
    write_json(tmp_path / "m.json", [{"case": "x", "image": {"T2": "x/T2.nii.gz", "T1": "x/T1.nii.gz"}}])
    assert read(tmp_path, ManifestLayout(file="m.json")).modalities == ("T2", "T1")


def test_paths_are_relative_to_the_table_or_absolute(tmp_path):
    put(tmp_path / "lists/a.nii.gz")
    put(tmp_path / "elsewhere/b.nii.gz")
    rows = [{"image": "a.nii.gz"}, {"image": str(tmp_path / "elsewhere/b.nii.gz")}]
    write_csv(tmp_path / "lists/table.csv", rows)
    dataset = read(tmp_path, ManifestLayout(file="lists/table.csv"))
    assert [case.images["image"].path.name for case in dataset.cases] == ["a.nii.gz", "b.nii.gz"]


def test_images_of_one_name_are_told_apart_by_their_folder(tmp_path):
    put(tmp_path / "p1/T1.nii.gz")
    put(tmp_path / "p2/T1.nii.gz")
    write_csv(tmp_path / "manifest.csv", [{"image": "p1/T1.nii.gz"}, {"image": "p2/T1.nii.gz"}])
    assert [(case.id, case.subject) for case in read(tmp_path, ManifestLayout()).cases] == [
        ("p1_T1", "p1_T1"),
        ("p2_T1", "p2_T1"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no rows"),
        ("image,label\n", "has no rows"),
        ("picture,label\na.nii.gz,b.nii.gz\n", r"row 1 has no image \(columns image or image:MODALITY\)"),
        ("imgae\na.nii.gz\n", "did you mean"),
        ("image,label\na.nii.gz,b.nii.gz\n,b.nii.gz\n", "row 2 has no image"),
        ("image,label\na.nii.gz,Mild_Demented\n", "row 1: label 'Mild_Demented' is no file of voxels"),
        ("image\na.nii.gz,b,c\n", "row 1 has more cells than the header"),
        ("case,image\nx,a.nii.gz\nx,a.nii.gz\n", "has case 'x' twice"),
        ("image\na.nii.gz\na.nii.gz\n", "twice: give every row an id of its own"),
        ("image\ngone.nii.gz\n", r"1 files of .* listed but not there, e\.g\. .*gone\.nii\.gz"),
        ('image\n"a.nii.gz\n', "is not a CSV table"),
        ("image\na\0b.nii.gz\n", "manifest.csv"),
    ],
)
def test_a_bad_table_gives_one_line(tmp_path, text, said):
    put(tmp_path / "a.nii.gz")
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(DatasetError, match=said) as caught:
        read(tmp_path, ManifestLayout())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe\x00", "is not a CSV table in UTF-8"),
        (b"image\n" + b"x" * 200000, "manifest.csv"),
    ],
)
def test_a_table_of_bytes_gives_one_line(tmp_path, content, said):
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=said):
        read(tmp_path, ManifestLayout())


@pytest.mark.parametrize(
    ("content", "said"),
    [({"a": 1}, "is not a list of cases"), ([1], "is not a list of cases"), ([{"image": 3}], "3 is not a path")],
)
def test_a_bad_json_table_gives_one_line(tmp_path, content, said):
    write_json(tmp_path / "m.json", content)
    with pytest.raises(DatasetError, match=said):
        read(tmp_path, ManifestLayout(file="m.json"))


# ---------------------------------------------------------------- cases listed as unlabelled


def label_less(dataset: Dataset) -> list[str]:
    return [case.id for case in dataset.cases if case.label is None]


@pytest.mark.parametrize("listed", [["c3"], ["c3", "c3"], ["c[3-9]"], ["*3", "c3"]])
def test_a_listed_case_needs_no_label_map(tmp_path, listed):
    put(make_cases(tmp_path) / "c3" / "c3_LGE.nii.gz")
    dataset = read(tmp_path, PATTERN, unlabelled=listed)
    assert [case.id for case in dataset.cases] == ["c1", "c2", "c3"]
    assert label_less(dataset) == list(dataset.unlabelled) == ["c3"]


def test_the_label_map_of_a_listed_case_is_not_read(tmp_path):
    (make_cases(tmp_path) / "c2" / "c2_gd.nii.gz").write_bytes(b"no volume")
    dataset = read(tmp_path, PATTERN, unlabelled=["c2"], labels="auto")
    assert label_less(dataset) == list(dataset.unlabelled) == ["c2"]
    assert dataset.labels.names == ("label_1", "label_2")


def test_a_case_that_is_not_listed_still_needs_its_label_map(tmp_path):
    put(make_cases(tmp_path) / "c3" / "c3_LGE.nii.gz")
    with pytest.raises(DatasetError, match=r"1 of 3 cases have no label map, e\.g\. .*c3_LGE\.nii\.gz"):
        read(tmp_path, PATTERN, unlabelled=["c2"])


def test_test_entries_of_an_msd_folder_appear_where_they_are_listed(tmp_path):
    root = make_msd(tmp_path)
    put(root / "imagesTs" / "heart_09.nii.gz")
    plain = read(root, MsdLayout())
    assert [case.id for case in plain.cases] == ["heart_01", "heart_02", "heart_03"]
    assert plain.unlabelled == ()
    dataset = read(root, MsdLayout(), unlabelled=["heart_09", "heart_02"])
    assert [case.id for case in dataset.cases] == ["heart_01", "heart_02", "heart_03", "heart_09"]
    assert label_less(dataset) == list(dataset.unlabelled) == ["heart_02", "heart_09"]
    assert dataset.cases[3].images == {"MRI": Source(root / "imagesTs/heart_09.nii.gz")}


def test_a_listed_test_entry_that_is_not_on_the_disk_is_one_line(tmp_path):
    with pytest.raises(DatasetError, match=r"1 files of .* are listed but not there, e\.g\. .*heart_09\.nii\.gz"):
        read(make_msd(tmp_path), MsdLayout(), unlabelled=["heart_09"])


@pytest.mark.parametrize("entries", [None, [None], [{"label": "x"}], "x", 3])
def test_test_entries_that_make_no_sense_matter_only_where_cases_are_listed(tmp_path, entries):
    described = json.loads((make_msd(tmp_path) / "dataset.json").read_text())
    write_json(tmp_path / "dataset.json", {**described, "test": entries})
    assert len(read(tmp_path, MsdLayout()).cases) == 3
    with pytest.raises(DatasetError, match=r"test entry 1 has no 'image'|'heart_09' fits no case"):
        read(tmp_path, MsdLayout(), unlabelled=["heart_09"])


def test_images_of_nnunets_test_folder_appear_where_they_are_listed(tmp_path):
    root = make_nnunet(tmp_path)
    for name in ("la_007_0000", "la_007_0001", "la_008_0000", "la_001_0000"):
        put(root / "imagesTs" / f"{name}.nii.gz")
    assert [case.id for case in read(root, NnunetLayout()).cases] == ["la_001", "la_002"]
    dataset = read(root, NnunetLayout(), unlabelled=["la_007"])
    assert [case.id for case in dataset.cases] == ["la_001", "la_002", "la_007"]
    assert label_less(dataset) == list(dataset.unlabelled) == ["la_007"]
    assert dataset.cases[2].images["T2"] == Source(root / "imagesTs/la_007_0001.nii.gz")
    with pytest.raises(DatasetError, match="case 'la_008' has no image 'T2'"):
        read(root, NnunetLayout(), unlabelled=["la_00[78]"])


def test_a_test_folder_of_other_names_matters_only_where_cases_are_listed(tmp_path):
    put(make_nnunet(tmp_path) / "imagesTs" / "la_007.nii.gz")
    assert len(read(tmp_path, NnunetLayout()).cases) == 2
    with pytest.raises(DatasetError, match=r"la_007\.nii\.gz does not end in a channel"):
        read(tmp_path, NnunetLayout(), unlabelled=["la_007"])


@pytest.mark.parametrize("listed", [["c9"], ["c1", "site2_*"], ["C1"], ["heart_09"]])
def test_a_name_that_fits_no_case_is_one_line(tmp_path, listed):
    said = (
        rf"data\.unlabelled: '{listed[-1].replace('*', '.')}' fits no case of .*, whose ids are like 'c1': list ids, or"
    )
    with pytest.raises(DatasetError, match=said) as caught:
        read(make_cases(tmp_path), PATTERN, unlabelled=listed)
    assert "\n" not in str(caught.value)


def test_an_empty_list_is_no_list(tmp_path):
    assert read(make_cases(tmp_path), PATTERN, unlabelled=[]) == read(tmp_path, PATTERN)


def test_rows_of_a_manifest_may_lack_the_label_of_a_listed_case(tmp_path):
    for name in "ab":
        put(tmp_path / f"img/{name}.nii.gz")
    put(tmp_path / "lab/a.nii.gz", [0, 1])
    write_csv(tmp_path / "manifest.csv", [{**ROWS[0], "label": ""}, ROWS[1]])
    assert label_less(read(tmp_path, ManifestLayout(), unlabelled=["b"])) == ["b"]
    write_csv(tmp_path / "manifest.csv", ROWS)  # names a map that is not there
    assert label_less(read(tmp_path, ManifestLayout(), unlabelled=["b"])) == ["b"]


# ---------------------------------------------------------------- what holds for all layouts


def test_a_public_data_set_that_is_not_there_names_its_download(tmp_path):
    told = f"`segmed download hippocampus --output {tmp_path}` fetches it, or set data.root"
    with pytest.raises(DatasetError, match=re.escape(told)):
        read(tmp_path / "Task04_Hippocampus", MsdLayout())


@pytest.mark.parametrize("layout", [MsdLayout(), NnunetLayout(), PATTERN, ManifestLayout()], ids=lambda x: x.name)
def test_a_missing_or_empty_folder_gives_one_line(tmp_path, layout):
    with pytest.raises(DatasetError, match=r"gone is not a folder: set data\.root"):
        read(tmp_path / "gone", layout)
    with pytest.raises(DatasetError, match="is empty: put the data set there"):
        read(tmp_path, layout)


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"images": ["LEG"]}, DatasetError, r"data\.images: unknown image 'LEG': did you mean 'LGE'"),
        ({"images": ["T2"]}, DatasetError, "unknown image 'T2': known are LGE"),
        ({"images": []}, DatasetError, r"data\.images is empty"),
        ({"images": ["LGE", "LGE"]}, DatasetError, "has a name twice"),
        ({"components": {"ed": 0}, "images": ["es"]}, DatasetError, "unknown image 'es'"),
        ({"labels": {"scar": 0}}, VolumeError, "has value 0"),
        ({"regions": {"all": ["scar", "wal"]}}, VolumeError, "unknown label 'wal': did you mean 'wall'"),
        ({"mirror_pairs": [["scar", "rv"]]}, VolumeError, "label 'rv' is unknown"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(tmp_path, fields, error, said):
    with pytest.raises(error, match=said):
        read(make_cases(tmp_path), PATTERN, **fields)


def test_components_need_one_file_a_case(tmp_path):
    make_nnunet(tmp_path)
    with pytest.raises(DatasetError, match=r"data\.components needs one 4D file a case, but case 'la_001' has 2"):
        read(tmp_path, NnunetLayout(), components={"a": 0})


def test_labels_that_nobody_named_are_named_by_their_values(tmp_path):
    put(tmp_path / "a/a_LGE.nii.gz")
    put(tmp_path / "a/a_gd.nii.gz", [0, 200, 2221, 99])
    dataset = read(tmp_path, PATTERN, labels="auto", ignore=[99])
    assert (dataset.labels.names, dataset.labels.values) == (("label_200", "label_2221"), ((200,), (2221,)))
    put(tmp_path / "a/a_gd.nii.gz", range(1000), shape=(20, 20, 20))
    with pytest.raises(DatasetError, match=r"too many different values for a label map: name data\.labels"):
        read(tmp_path, PATTERN, labels="auto")


def test_a_data_set_without_label_maps_has_no_labels(tmp_path):
    put(tmp_path / "a.nii.gz")
    dataset = read(tmp_path, PatternLayout(images={"T1": "{case}.nii.gz"}), labels="auto")
    assert (len(dataset.labels), dataset.labels.classes) == (0, 1)


def test_a_phantom_is_made_before_it_is_read(tmp_path):
    put(tmp_path / "a.nii.gz")
    with pytest.raises(DatasetError, match="layout 'phantom' describes a synthetic data set"):
        read(tmp_path, PhantomLayout())


# ---------------------------------------------------------------- guessing and finding


def test_published_layouts_are_guessed(tmp_path):
    assert guess_layout(make_msd(tmp_path / "msd")) == MsdLayout()
    assert guess_layout(make_nnunet(tmp_path / "nnunet")) == NnunetLayout()
    assert guess_layout(make_nnunet(tmp_path / "bare", described=False)) == NnunetLayout()
    (tmp_path / "table").mkdir()
    (tmp_path / "table/manifest.csv").write_text("image\na.nii.gz\n")
    assert guess_layout(tmp_path / "table") == ManifestLayout()


def test_one_folder_a_case_is_guessed_and_its_label_map_found_by_its_values(tmp_path):
    for name in ("c1", "c2", "c3"):
        put(tmp_path / name / f"{name}_LGE.nii.gz")
        put(tmp_path / name / f"{name}_gd.nii.gz", [0, 200, 600])
        put(tmp_path / name / f"{name}_brain.nii.gz", [0, 1])
    assert guess_layout(tmp_path) == PATTERN


def test_several_cases_in_a_subjects_folder_are_guessed(tmp_path):
    for subject in ("p1", "p2"):
        for frame in ("01", "02"):
            put(tmp_path / subject / f"{subject}_{frame}.nii.gz")
            put(tmp_path / subject / f"{subject}_{frame}_gt.nii.gz", [0, 1])
    guessed = guess_layout(tmp_path)
    assert guessed == PatternLayout(images={"image": "{subject}/{case}.nii.gz"}, label="{subject}/{case}_gt.nii.gz")
    assert len(read(tmp_path, guessed).cases) == 4


def test_a_folder_of_images_beside_one_of_masks_is_guessed(tmp_path):
    for n in range(3):
        put(tmp_path / f"images/{n}.nii.gz")
        put(tmp_path / f"masks/{n}.nii.gz", [0, 1])
    assert guess_layout(tmp_path) == PatternLayout(
        images={"image": "images/{case}.nii.gz"}, label="masks/{case}.nii.gz"
    )


def test_image_files_are_guessed_with_and_without_label_maps(tmp_path):
    for n in range(3):
        put(tmp_path / "plain" / f"{n}.nii.gz")
        put(tmp_path / "paired" / f"{n}.nii.gz")
        put(tmp_path / "paired" / f"{n}_seg.nii.gz", [0, 1])
    assert guess_layout(tmp_path / "plain") == PatternLayout(images={"image": "{case}.nii.gz"})
    paired = PatternLayout(images={"image": "{case}.nii.gz"}, label="{case}_seg.nii.gz")
    assert guess_layout(tmp_path / "paired") == paired


def test_a_folder_that_fits_nothing_is_named(tmp_path):
    with pytest.raises(DatasetError, match="fits no known layout"):
        guess_layout(tmp_path)
    with pytest.raises(DatasetError, match="is not a folder"):
        guess_layout(tmp_path / "gone")


def test_volumes_are_found_at_every_depth(tmp_path):
    expected = [put(tmp_path / name) for name in ("a.nii.gz", "b/c.nii", "b/d/e.nii.gz")]
    put(tmp_path / "b/._c.nii")
    put(tmp_path / ".hidden/x.nii.gz")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "b/loop").symlink_to(tmp_path)
    dicom = tmp_path / "series"
    dicom.mkdir()
    (dicom / "IM0001").write_bytes(bytes(128) + b"DICM")
    assert find_volumes(tmp_path) == sorted([*expected, dicom])
    assert find_volumes(expected[0]) == [expected[0]]


def test_a_folder_without_volumes_is_named(tmp_path):
    with pytest.raises(DatasetError, match="holds no volumes"):
        find_volumes(tmp_path)
    with pytest.raises(DatasetError, match=r"gone does not exist: check the path"):
        find_volumes(tmp_path / "gone")


# ---------------------------------------------------------------- real data

MYOPS = {"myocardium": [200, 1220], "blood_pool": 500, "rv": 600, "scar": 2221}
REAL = {
    "hippocampus": (MsdLayout(), {"anterior": 1, "posterior": 2}, 130, 130),
    "myops_lge": (PATTERN, MYOPS, 25, 25),
    "acdc": (
        PatternLayout(
            images={"cine": "{subject}/{case}.nii.gz"}, label="{subject}/{case}_gt.nii.gz", subject=r"(patient\d+)"
        ),
        {"rv": 1, "myocardium": 2, "cavity": 3},
        20,
        10,
    ),
    "la2018": (
        PatternLayout(images={"LGE": "{case}/lgemri.nii.gz"}, label="{case}/laendo.nii.gz"),
        {"atrium": 1},
        3,
        3,
    ),
    "oasis_tissue": (
        PatternLayout(images={"T1": "{case}/{case}_T1.nii.gz"}, label="{case}/{case}_tissues.nii.gz"),
        {"csf": 1, "grey": 2, "white": 3},
        5,
        5,
    ),
    "brats2013": (
        PatternLayout(
            images={"Flair": "{case}/Flair_subtrMeanDivStd.nii.gz", "T1c": "{case}/T1c_subtrMeanDivStd.nii.gz"},
            label="{case}/OTMultiClass.nii.gz",
        ),
        {"necrosis": 1, "oedema": 2, "non_enhancing": 3, "enhancing": 4},
        2,
        2,
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data_sets_are_read_whole(real_data, name):
    layout, labels, cases, subjects = REAL[name]
    dataset = read(real_data(name), layout, labels=labels)
    assert (len(dataset.cases), len({case.subject for case in dataset.cases})) == (cases, subjects)
    case = dataset.cases[-1]
    indices = dataset.labels.encode(read_label_volume(case.label)[0].numpy(), where=case.id)
    assert 1 < len(np.unique(indices)) <= dataset.labels.classes
    for source in case.images.values():
        assert read_volume(source).shape[1:] == indices.shape


@pytest.mark.parametrize("name", REAL)
def test_layouts_of_real_data_sets_are_guessed(real_data, name):
    layout, _, cases, subjects = REAL[name]
    root = real_data(name)
    guessed = guess_layout(root)
    assert type(guessed) is type(layout)
    dataset = read_dataset(DataConfig(root=root, layout=guessed, labels={"any": 1}))
    assert (len(dataset.cases), len({case.subject for case in dataset.cases})) == (cases, subjects)
    if isinstance(layout, PatternLayout):
        assert (guessed.label, set(guessed.images.values())) == (layout.label, set(layout.images.values()))
