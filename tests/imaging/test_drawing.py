from __future__ import annotations

import numpy as np
import pytest

from efftasks.imaging.drawing import contact_sheet, draw_instances, palette, track_palette


def gray(height: int = 120, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), 100, np.uint8)


def test_palette_colors_differ_and_a_longer_one_begins_with_the_shorter():
    colors = palette(20)
    assert palette(7) == colors[:7]
    assert palette(0) == []
    gaps = [np.abs(np.subtract(a, b)).sum() for i, a in enumerate(colors) for b in colors[:i]]
    assert min(gaps) > 20


def test_the_box_is_drawn_on_its_first_and_last_pixels_and_the_input_stays():
    image = gray()
    drawn = draw_instances(image, [[40, 50, 100, 110]], [0], ["a"])
    assert (image == 100).all()
    color = palette(1)[0]
    assert tuple(drawn[80, 40]) == color and tuple(drawn[80, 99]) == color and tuple(drawn[109, 70]) == color
    assert (drawn[80, 39] == 100).all() and (drawn[80, 100] == 100).all()


def test_a_mask_tints_its_pixels_and_no_other():
    masks = np.zeros((1, 120, 160), bool)
    masks[0, 60:80, 60:90] = True
    drawn = draw_instances(gray(), [[60, 60, 90, 80]], [0], [""], masks=masks)
    assert (drawn[70, 75] != 100).any()
    assert (drawn[100, 20] == 100).all()


def test_keypoints_with_zero_score_are_not_drawn():
    points = np.array([[[30.0, 90.0, 0.9], [120.0, 90.0, 0.0]]])
    drawn = draw_instances(gray(), None, [0], ["a"], keypoints=points, skeleton=[(0, 1)])
    assert (drawn[90, 30] != 100).any()
    assert (drawn[80:, 60:] == 100).all()


def test_no_objects_and_objects_off_the_picture():
    assert (draw_instances(gray(), np.zeros((0, 4)), [], ["a"]) == 100).all()
    far = [[-1e6, -1e6, -1e5, -1e5], [1e5, 5, 1e6, 50], [np.nan, 0, 1, 1]]
    points = np.full((3, 2, 3), 1e9)
    assert draw_instances(gray(), far, [0, 1, 9], ["a"], [0.1, 0.2, 0.3], None, points, [(0, 1)]).shape == (120, 160, 3)


def test_names_beyond_ascii_are_drawn_with_question_marks():
    box = [[40, 50, 100, 110]]
    expected = draw_instances(gray(), box, [0], ["caf? ?"])
    np.testing.assert_array_equal(draw_instances(gray(), box, [0], ["café \ud800"]), expected)


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("boxes_xyxy", {"boxes_xyxy": [[0, 0, 1]]}),
        ("scores", {"boxes_xyxy": [[0, 0, 1, 1]], "scores": [1, 2]}),
        ("masks", {"boxes_xyxy": [[0, 0, 1, 1]], "masks": np.zeros((1, 5, 5))}),
    ],
)
def test_arrays_that_do_not_fit_are_named(field, given):
    with pytest.raises(ValueError, match=f"{field}: got shape"):
        draw_instances(gray(), labels=[0], names=["a"], **given)


def test_contact_sheet_keeps_proportions_and_order():
    red, green = np.zeros((10, 20, 3), np.uint8), np.zeros((20, 10, 3), np.uint8)
    red[..., 2], green[..., 1] = 200, 200
    sheet = contact_sheet([red, green, red], columns=2, cell=40, gap=4)
    assert sheet.shape == (2 * 44 + 4, 2 * 44 + 4, 3)
    is_red, is_green = sheet[..., 2] == 200, sheet[..., 1] == 200
    assert is_red[:48].sum() == 40 * 20 and is_green.sum() == 20 * 40 and is_red[48:].sum() == 40 * 20
    assert not is_red[:48, 48:].any() and not is_green[:, :48].any()
    with pytest.raises(ValueError, match="images: got none"):
        contact_sheet([], 2, 10)


def test_a_track_has_its_color_and_its_number_in_the_caption():
    image = np.full((80, 400, 3), 90, np.uint8)
    boxes = [[10, 30, 40, 70], [220, 30, 260, 70]]

    def edge(picture, x):
        return tuple(int(value) for value in picture[50, x])

    by_class = draw_instances(image, boxes, [0, 1], ["cat", "dog"], [0.5, 0.5])
    tracks = draw_instances(image, boxes, [0, 1], ["cat", "dog"], [0.5, 0.5], track_ids=[67, -1])
    assert edge(tracks, 10) == track_palette()[67 % len(track_palette())] != edge(by_class, 10)
    assert edge(tracks, 220) == edge(by_class, 220)
    assert (tracks[:30, 10:200] != by_class[:30, 10:200]).any() and (tracks[:, 200:] == by_class[:, 200:]).all()
    with pytest.raises(ValueError, match="track_ids"):
        draw_instances(image, boxes, [0, 1], ["cat", "dog"], track_ids=[1])
