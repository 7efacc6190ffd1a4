"""The viewer in a real browser, from file://: its pixels are the arrays; hands, keys and touch do what they say."""

import math
import re

import numpy as np
import pytest
from browser import Browser, browser  # noqa: F401  browser is a fixture

from segmed.reports.drawing.label_colours import label_colours
from segmed.reports.viewer.layers import HeatMap, Layers
from segmed.reports.viewer.viewer import Column, Viewer, ViewerCase, write_page_with_viewer
from segmed.volumes.slice_stack import SliceStack

SHAPE, SPACING = (20, 16, 5), (2.0, 2.0, 8.0)
AFFINE = np.diag([*SPACING, 1.0])
COLOURS = [[int(text[at : at + 2], 16) for at in (1, 3, 5)] for text in label_colours(("wall", "scar"))]
OPACITY = 0.45
PLANES = {"axial": (0, 2, 0, 1), "coronal": (1, 1, 0, 2), "sagittal": (2, 0, 1, 2)}  # place, axis, across, up


def volumes(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Image of whole numbers from 0 to 255, reference, result, uncertainty."""
    generator = np.random.default_rng(seed)
    image = generator.integers(1, 255, SHAPE).astype(np.float32)
    image.flat[:40], image.flat[-40:] = 0, 255  # the percentiles of the window
    reference = np.zeros(SHAPE, np.uint8)
    reference[5:12, 4:10, 1:4] = 1
    reference[7:9, 6:8, 2] = 2
    result = np.roll(reference, 1, axis=0)
    result[15:17, 12:14, 4] = 2
    uncertainty = np.zeros(SHAPE, np.float32)
    uncertainty[2:4, 2:4, 2] = math.log(3)
    uncertainty[4, 2, 2] = math.log(3) / 4
    return image, reference, result, uncertainty


def layers(name: str) -> Layers:
    image, reference, result, uncertainty = (SliceStack.of(each, AFFINE) for each in volumes(ord(name[-1])))
    heat = HeatMap("uncertainty", uncertainty, math.log(3), "nats")
    return Layers(image, reference, None if name == "case_c" else result, (heat,))


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory) -> Browser:  # noqa: F811
    """A page of three cases, opened once."""
    cases = tuple(
        ViewerCase(f"case_{letter}", {"mean": (dice, far), "scar": (1 - dice, far)}, f"note of {letter}")
        for letter, dice, far in (("a", 0.9, 1.0), ("b", 0.4, None), ("c", 0.7, -5.0))
    )
    columns = (Column("Dice", "low"), Column("volume difference (ml)", "far"))
    viewer = Viewer(("wall", "scar"), layers, cases, columns, ("mean", "scar"))
    path = tmp_path_factory.mktemp("page") / "report.html"
    rows = [{"name": case.name, "cells": [], "note": "", "flag": None} for case in cases]
    given = {"title": "x", "key": [], "facts": [], "head": ["case"], "failed": [], "flagged": False, "told": ""}
    write_page_with_viewer(path, "prediction.html", viewer, cases=rows, **given)
    browser.listen()
    browser.open(path.as_uri(), width=1200)
    browser.wait_for(SHOWN)
    return browser


SHOWN = "document.querySelector('#viewer').dataset.shown"
AT = "document.querySelector('#viewer').dataset.at"


def part(name: str) -> str:
    return f"document.querySelector('#viewer [data-part=\"{name}\"]')"


def choose(page: Browser, name: str, value: str) -> None:
    """Choose an option as a reader does."""
    page.value(f"{part(name)}.value = '{value}'; {part(name)}.dispatchEvent(new Event('change')); 0")


def show(page: Browser, case: str) -> None:
    page.value(f"document.querySelector('a[data-case={case}]').click()")
    page.wait_for(f"{SHOWN} == '{case}'")


def press(page: Browser, key: str, *, plane: str = "axial") -> None:
    page.value(f"document.querySelectorAll('#viewer canvas')[{PLANES[plane][0]}].focus()")
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=key, text=key if kind == "keyDown" and len(key) == 1 else "")


def pixels(page: Browser, plane: str) -> np.ndarray:
    """The colours in the middle of every voxel of a plane as it is drawn, (columns, rows, 3)."""
    number, _, across, up = PLANES[plane]
    script = f"""(() => {{
      const canvas = document.querySelectorAll('#viewer canvas')[{number}], brush = canvas.getContext('2d');
      const found = [];
      for (let c = 0; c < {SHAPE[across]}; c++) for (let r = 0; r < {SHAPE[up]}; r++)
        found.push(...brush.getImageData(Math.floor((c + 0.5) * canvas.width / {SHAPE[across]}),
          Math.floor((r + 0.5) * canvas.height / {SHAPE[up]}), 1, 1).data.slice(0, 3));
      return found; }})()"""
    return np.array(page.value(script)).reshape(SHAPE[across], SHAPE[up], 3)


def seen(volume: np.ndarray, plane: str, number: int) -> np.ndarray:
    """A slice as radiologists see it, (columns, rows): right, anterior and superior first."""
    return np.take(volume, number, axis=PLANES[plane][1])[::-1, ::-1]


def away_from_letters(plane: str) -> np.ndarray:
    """Voxels that no letter hides: letters stand in the middle of the four sides."""
    shape = [SHAPE[axis] for axis in PLANES[plane][2:]]
    free = np.ones(shape, bool)
    for axis in (0, 1):
        middle = slice(shape[1 - axis] // 2 - 2, shape[1 - axis] // 2 + 2)
        for end in (slice(0, 2), slice(-2, None)):
            free[(end, middle) if axis == 0 else (middle, end)] = False
    return free


def off(page: Browser) -> None:
    """Nothing over the image, and all else as at first."""
    show(page, "case_b")
    for name, value in (("reference", "off"), ("result", "off"), ("heat", "-1")):
        choose(page, name, value)
    page.value(f"{part('reset')}.click()")
    if page.value("window.crossed") is None:  # the cross-hair is switched off once
        press(page, "x")
        page.value("window.crossed = 1")


def go_to(page: Browser, *at: int) -> None:
    for (number, axis, _, _), place in zip(PLANES.values(), (at[2], at[1], at[0]), strict=True):
        page.value(
            f"(() => {{ const bar = document.querySelectorAll('#viewer input[type=range]')[{number}];"
            f"bar.value = {place}; bar.dispatchEvent(new Event('input')); }})()"
        )
        assert page.value(AT).split(",")[axis] == str(place)


@pytest.mark.parametrize("plane", PLANES)
def test_every_pixel_is_the_voxel_at_its_place(page, plane):
    off(page)
    go_to(page, 6, 9, 3)
    grey = pixels(page, plane)
    expected = seen(volumes(ord("b"))[0], plane, (6, 9, 3)[PLANES[plane][1]])
    free = away_from_letters(plane)
    assert np.abs(grey[free] - expected[free][:, None]).max() <= 1
    assert np.ptp(grey[free], axis=1).max() == 0


@pytest.mark.parametrize(("layer", "volume"), [("reference", 1), ("result", 2)])
def test_a_fill_blends_the_labels_colour_into_their_voxels_alone(page, layer, volume):
    off(page)
    go_to(page, 6, 9, 2)
    choose(page, layer, "fill")
    arrays = volumes(ord("b"))
    grey, labels = seen(arrays[0], "axial", 2), seen(arrays[volume], "axial", 2)
    free, drawn = away_from_letters("axial"), pixels(page, "axial")
    for label, colour in enumerate(COLOURS, start=1):
        blended = grey[..., None] * (1 - OPACITY) + OPACITY * np.array(colour)
        there = (labels == label) & free
        assert there.any()
        assert np.abs(drawn - blended)[there].max() <= 2
    assert np.abs(drawn - grey[..., None])[(labels == 0) & free].max() <= 1


def test_a_contour_is_drawn_along_the_edge_and_leaves_the_middle_of_voxels_as_they_are(page):
    off(page)
    go_to(page, 6, 9, 2)
    choose(page, "reference", "contour")
    number, _, across, up = PLANES["axial"]
    column, row = SHAPE[0] - 1 - 11, SHAPE[1] - 1 - 5  # the voxel (11, 5, 2) is the wall's last to the right
    edge = page.value(
        f"(() => {{ const canvas = document.querySelectorAll('#viewer canvas')[{number}];"
        f"return [...canvas.getContext('2d').getImageData(Math.ceil({column} * canvas.width / {SHAPE[across]}),"
        f"Math.floor(({row} + 0.5) * canvas.height / {SHAPE[up]}), 1, 1).data.slice(0, 3)]; }})()"
    )
    assert np.abs(np.array(edge) - COLOURS[0]).max() <= 3
    arrays, free = volumes(ord("b")), away_from_letters("axial")
    assert np.abs(pixels(page, "axial") - seen(arrays[0], "axial", 2)[..., None])[free].max() <= 1


def test_a_heat_map_is_the_more_opaque_the_higher_and_the_readout_gives_its_value(page):
    off(page)
    go_to(page, 4, 2, 2)
    choose(page, "heat", "0")
    arrays = volumes(ord("b"))
    changed = np.abs(pixels(page, "axial") - seen(arrays[0], "axial", 2)[..., None]).max(axis=2)
    heat = seen(arrays[3], "axial", 2)
    free = away_from_letters("axial")
    assert changed[(heat == 0) & free].max() <= 1
    drawn = pixels(page, "axial")[heat == arrays[3].max()]
    assert np.abs(drawn - np.array([252, 255, 164])).max() <= 1  # the lightest of inferno
    assert "uncertainty: 0.2757 nats" in page.value(f"{part('readout')}.textContent")  # 64 of 255 steps of ln 3
    assert "uncertainty: 0 to 1.099 nats" in page.value(f"{part('legend')}.textContent")


def test_the_list_is_sorted_by_any_figure_with_the_worst_first(page):
    names = "[...document.querySelector('#viewer [data-part=cases]').options].map(o => o.text)"
    choose(page, "column", "0")
    choose(page, "structure", "mean")
    assert page.value(names) == ["0.4 · case_b", "0.7 · case_c", "0.9 · case_a"]
    choose(page, "structure", "scar")
    assert page.value(names) == ["0.1 · case_a", "0.3 · case_c", "0.6 · case_b"]
    choose(page, "column", "1")  # the furthest from 0 first, one without a value last
    assert page.value(names) == ["-5 · case_c", "1 · case_a", "case_b"]
    choose(page, "column", "0")
    choose(page, "structure", "mean")


def test_a_row_of_the_table_and_a_line_of_the_list_show_their_case_with_what_it_has(page):
    show(page, "case_c")
    assert page.value(f"{part('result-switch')}.hidden")
    assert page.value(f"{part('said')}.textContent") == "note of c"
    assert page.value("document.querySelector('tr.looked-at').dataset.row") == "case_c"
    page.value(f"{part('cases')}.value = '0'; {part('cases')}.dispatchEvent(new Event('change')); 0")
    page.wait_for(f"{SHOWN} == 'case_a'")
    assert not page.value(f"{part('result-switch')}.hidden")


def box(page: Browser, plane: str) -> dict:
    number = PLANES[plane][0]
    page.value(f"document.querySelectorAll('#viewer canvas')[{number}].scrollIntoView({{block: 'center'}})")
    return page.value(f"document.querySelectorAll('#viewer canvas')[{number}].getBoundingClientRect().toJSON()")


def mouse(page: Browser, kind: str, x: float, y: float, **more) -> None:
    page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **{"button": "left", "clickCount": 1, **more})


def test_a_click_moves_the_cross_hair_to_its_voxel_and_planes_keep_their_proportions_in_mm(page):
    off(page)
    shown = box(page, "coronal")
    assert shown["width"] / shown["height"] == pytest.approx(SHAPE[0] * SPACING[0] / (SHAPE[2] * SPACING[2]), rel=0.02)
    x = shown["x"] + (SHAPE[0] - 1 - 13 + 0.5) * shown["width"] / SHAPE[0]
    y = shown["y"] + (SHAPE[2] - 1 - 4 + 0.5) * shown["height"] / SHAPE[2]
    mouse(page, "mousePressed", x, y)
    mouse(page, "mouseReleased", x, y)
    at = page.value(AT).split(",")
    assert (at[0], at[2]) == ("13", "4")
    assert page.value(f"{part('readout')}.textContent").startswith("R 26.0, A ")


def test_the_wheel_and_the_arrows_go_from_slice_to_slice_and_stop_at_the_ends(page):
    off(page)
    go_to(page, 6, 9, 2)
    shown = box(page, "axial")
    middle = shown["x"] + 30, shown["y"] + 30
    mouse(page, "mouseWheel", *middle, deltaX=0, deltaY=-120, button="none")
    page.wait_for(f"{AT} == '6,9,3'")
    for _ in range(3):
        press(page, "ArrowDown", plane="sagittal")
    assert page.value(AT) == "3,9,3"
    press(page, "Home", plane="sagittal")
    assert page.value(AT) == "0,9,3"
    caption = "document.querySelectorAll('#viewer figcaption')[0].textContent"
    assert page.value(caption) == "axial, slice 4 of 5"


def test_dragging_with_the_right_button_changes_window_and_level_and_reset_takes_it_back(page):
    off(page)
    go_to(page, 6, 9, 3)
    shown = box(page, "axial")
    x, y = shown["x"] + 60, shown["y"] + 60
    mouse(page, "mousePressed", x, y, button="right", buttons=2)
    mouse(page, "mouseMoved", x - 150 * math.log(2), y, button="right", buttons=2)
    mouse(page, "mouseReleased", x, y, button="right")
    expected = (seen(volumes(ord("b"))[0], "axial", 3) - 63.75) / 127.5 * 255
    free = away_from_letters("axial")
    drawn = pixels(page, "axial")[..., 0]
    assert np.abs(drawn - expected.clip(0, 255))[free].max() <= 3
    assert re.search(r"window 63\.\d+ to 191\.\d", page.value(f"{part('readout')}.textContent"))
    page.value(f"{part('reset')}.click()")
    assert "window 0 to 255" in page.value(f"{part('readout')}.textContent")


def test_keys_go_to_the_next_case_switch_layers_and_find_the_largest_difference(page):
    off(page)
    press(page, "n")
    page.wait_for(f"{SHOWN} == 'case_c'")
    press(page, "p")
    page.wait_for(f"{SHOWN} == 'case_b'")
    press(page, "s")
    assert page.value(f"{part('result')}.value") == "fill"
    press(page, "d")
    _, reference, result, _ = volumes(ord("b"))
    wrong = reference != result
    most = [int(np.argmax(np.count_nonzero(wrong, axis=axes))) for axes in ((1, 2), (0, 2), (0, 1))]
    assert page.value(AT) == ",".join(map(str, most))


def test_a_finger_taps_the_cross_hair_and_drags_slices_once_it_is_told_to(page):
    off(page)
    go_to(page, 6, 9, 1)
    shown = box(page, "axial")
    x, y = shown["x"] + 0.25 * shown["width"], shown["y"] + 0.75 * shown["height"]

    def touch(kind: str, *points: tuple[float, float]) -> None:
        page.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": px, "y": py} for px, py in points])

    touch("touchStart", (x, y))
    touch("touchEnd")
    page.wait_for(f"{AT} == '14,3,1'")
    page.value("[...document.querySelectorAll('#viewer .tools button')].find(b => b.textContent == 'slices').click()")
    touch("touchStart", (x, y))
    touch("touchMove", (x, y - 15))
    touch("touchMove", (x, y - 30))
    touch("touchEnd")
    assert int(page.value(AT).split(",")[2]) > 1
    page.value("document.querySelector('#viewer .tools button').click()")


def test_nothing_was_complained_of(page):
    """The last of the file: errors of scripts, and what the page's own policy would have kept from loading."""
    assert page.value("1 + 1") == 2
    assert page.complaints == []
