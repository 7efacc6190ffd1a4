"""Labels: sparse values to indices and back, merges, ignore, regions, and what contradicts itself."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmed.errors import VolumeError
from segmed.labels import IGNORE, LabelSet

MYOPS = {"myocardium": [200, 1220], "blood_pool": 500, "rv": 600, "scar": 2221}
HEART = LabelSet.from_config(MYOPS, ignore=[99], regions={"lv_wall": ["myocardium", "scar"]})


def test_sparse_and_merged_values_become_consecutive_indices():
    values = np.array([0, 200, 1220, 500, 600, 2221, 99], np.int32)
    indices = HEART.encode(values, where="case")
    assert indices.dtype == np.uint8
    assert indices.tolist() == [0, 1, 1, 2, 3, 4, IGNORE]
    assert (len(HEART), HEART.classes, HEART.index("scar")) == (4, 5, 4)


def test_decoding_writes_the_first_value_of_each_label_and_background_for_ignore():
    values = HEART.decode(np.array([0, 1, 2, 3, 4, IGNORE], np.uint8))
    assert values.tolist() == [0, 200, 500, 600, 2221, 0]
    assert values.dtype == np.uint16
    assert LabelSet.from_config({"a": 3}).decode(np.zeros(2, np.uint8)).dtype == np.uint8


unmerged = st.dictionaries(
    st.text("abcdef", min_size=1), st.integers(-(2**31), 2**31 - 1).filter(bool), min_size=1, max_size=9
).filter(lambda labels: len(set(labels.values())) == len(labels))


@settings(max_examples=60, deadline=None)
@given(labels=unmerged, data=st.data())
def test_unmerged_labels_survive_a_round_trip(labels, data):
    known = [0, *labels.values()]
    values = np.array(data.draw(st.lists(st.sampled_from(known), max_size=30)), np.int64)
    label_set = LabelSet.from_config(labels)
    assert np.array_equal(label_set.decode(label_set.encode(values, where="x")), values)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.bool_])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_whole_type_and_memory_order_is_encoded(dtype, order):
    values = np.asfortranarray if order == "F" else np.ascontiguousarray
    volume = values(np.random.default_rng(0).integers(0, 2, (3, 4, 5)).astype(dtype))
    indices = LabelSet.from_config({"a": 1}).encode(volume, where="x")
    assert np.array_equal(indices, volume)
    assert indices.shape == volume.shape


def test_a_strided_view_is_encoded_in_place_order():
    volume = np.arange(24).reshape(2, 3, 4)[:, ::2, ::-1] % 3
    assert np.array_equal(LabelSet.from_config({"a": 1, "b": 2}).encode(volume, where="x"), volume)


def test_background_can_be_ignored():
    labels = LabelSet.from_config({"a": 1}, ignore=[0])
    assert labels.encode(np.array([0, 1]), where="x").tolist() == [IGNORE, 1]


def test_other_values_can_be_background():
    labels = LabelSet.from_config({"scar": 2221}, ignore=[9], background=[200, 500])
    assert labels.encode(np.array([0, 200, 500, 2221, 9]), where="a").tolist() == [0, 0, 0, 1, IGNORE]
    assert labels.decode(np.array([0, 1])).tolist() == [0, 2221]
    assert LabelSet.from_dict(labels.to_dict()) == labels
    with pytest.raises(VolumeError, match=r"known are \[0, 9, 200, 500, 2221\]: add them to .* data.background"):
        labels.encode(np.array([600]), where="a")


def test_a_value_is_one_thing_only():
    with pytest.raises(VolumeError, match="value 9 is in ignore and in background"):
        LabelSet.from_config({"scar": 1}, ignore=[9], background=[9])
    with pytest.raises(VolumeError, match="value 1 stands for 'background' and 'scar'"):
        LabelSet.from_config({"scar": 1}, background=[1])


@pytest.mark.parametrize("unknown", [7, -1, 100000])
def test_an_unknown_value_is_named_with_its_file_and_the_known_ones(unknown):
    values = np.array([0, 200, unknown, unknown])
    with pytest.raises(VolumeError) as caught:
        HEART.encode(values, where="Case3001_gd.nii.gz")
    said = str(caught.value)
    assert said.startswith(f"Case3001_gd.nii.gz has unknown label values {unknown} (2 voxels)")
    assert "[0, 99, 200, 500, 600, 1220, 2221]" in said
    assert "add them to data.labels, data.ignore or data.background" in said
    assert "\n" not in said


def test_many_unknown_values_are_counted():
    with pytest.raises(VolumeError, match="and 45 more"):
        LabelSet.from_config({"a": 1}).encode(np.arange(52), where="x")


def test_values_that_are_no_whole_numbers_are_refused():
    with pytest.raises(VolumeError, match="x: label values are float32: give whole numbers"):
        HEART.encode(np.zeros(3, np.float32), where="x")


def test_an_index_that_is_no_label_can_not_be_written():
    with pytest.raises(VolumeError, match="label index 5 does not exist: there are 4 labels"):
        HEART.decode(np.array([0, 5]))


def test_masks_hold_labels_then_regions():
    masks = HEART.masks(np.array([0, 1, 2, 3, 4, IGNORE]))
    assert list(masks) == ["myocardium", "blood_pool", "rv", "scar", "lv_wall"]
    assert masks["scar"].tolist() == [False, False, False, False, True, False]
    assert masks["lv_wall"].tolist() == [False, True, False, False, True, False]
    assert masks["lv_wall"].dtype == np.bool_


def test_a_label_set_survives_json():
    assert LabelSet.from_dict(json.loads(json.dumps(HEART.to_dict()))) == HEART


@pytest.mark.parametrize(
    ("labels", "ignore", "regions", "said"),
    [
        ({}, (), {}, "data.labels is empty"),
        ({"a": 0}, (), {}, "label 'a' has value 0, which is background"),
        ({"a": 1, "b": 1}, (), {}, "value 1 stands for 'a' and 'b': give it to one of them"),
        ({"a": [1, 2], "b": [2, 3]}, (), {}, "value 2 stands for 'a' and 'b'"),
        ({"a": [1, 1]}, (), {}, "value 1 stands for 'a' and 'a'"),
        ({"a": []}, (), {}, "label 'a' has no value"),
        ({"a": 1}, (1,), {}, "value 1 stands for 'ignore' and 'a'"),
        ({"background": 1}, (), {}, "label name 'background' can't be used"),
        ({" ": 1}, (), {}, "can't be used"),
        ({"mean of labels": 1}, (), {}, "'mean of labels' can't be used: every table has such a row"),
        ({"scar": 1}, (), {"mean of labels": ["scar"]}, "'mean of labels' can't be used"),
        ({"all labels": 1}, (), {}, "'all labels' can't be used: it stands for all labels together"),
        ({"scar": 1}, (), {"wall": ["scra"]}, "names an unknown label 'scra': did you mean 'scar'"),
        ({"scar": 1}, (), {"wall": ["xyz"]}, "names an unknown label 'xyz': known are scar"),
        ({"scar": 1, "wall": 2}, (), {"all": ["scar", "wall", "scar"]}, "region 'all' names the label 'scar' twice"),
        ({"scar": 1}, (), {"background": ["scar"]}, "region name 'background' can't be used"),
        ({"scar": 1}, (), {" ": ["scar"]}, "region name ' ' can't be used"),
        ({"scar": 1}, (), {"scar": ["scar"]}, "region 'scar' has the name of a label"),
        ({"scar": 1}, (), {"wall": []}, "region 'wall' has no labels"),
        ({f"l{n}": n for n in range(1, 256)}, (), {}, "255 labels are more than 254"),
    ],
)
def test_labels_that_contradict_each_other_give_one_line(labels, ignore, regions, said):
    with pytest.raises(VolumeError, match=said) as caught:
        LabelSet.from_config(labels, ignore, regions)
    assert "\n" not in str(caught.value)


def test_an_unknown_label_name_is_answered_with_the_nearest():
    with pytest.raises(VolumeError, match="label 'blood_pol' is unknown: did you mean 'blood_pool'"):
        HEART.index("blood_pol")


def test_ignored_voxels_are_written_with_a_value_that_means_nothing_else():
    plain = LabelSet.from_config({"a": 1, "b": [2, 300]}, background=[3])
    assert plain.ignored_value == 4
    assert LabelSet.from_config({"a": 1}, ignore=[9, 7]).ignored_value == 9
    written = plain.decode(np.array([0, 1, 2, IGNORE]), ignored=plain.ignored_value)
    assert written.tolist() == [0, 1, 2, 4]
    again = LabelSet.from_config({"a": 1, "b": [2, 300]}, ignore=[plain.ignored_value])
    assert again.encode(written, where="x").tolist() == [0, 1, 2, IGNORE]
    assert plain.decode(np.array([IGNORE]), ignored=1000).tolist() == [1000]
