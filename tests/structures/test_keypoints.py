import re

import numpy as np
import pytest

from efftasks.structures.errors import UserError
from efftasks.structures.keypoints import keypoint_metadata, mirrored_names

PERSON = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow"),
    *("right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee"),
    *("left_ankle", "right_ankle"),
)


def test_persons_have_the_evaluators_sigmas():
    params = pytest.importorskip("pycocotools.cocoeval").Params(iouType="keypoints")
    assert np.allclose(keypoint_metadata({}, PERSON).sigmas, params.kpt_oks_sigmas)


def test_left_and_right_are_pairs():
    facts = keypoint_metadata({}, PERSON)
    assert facts.flip_pairs == ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))
    assert facts.mirror[:3] == (0, 2, 1)
    assert mirrored_names(["l_hand", "tail", "r_hand", "Left", "Right"]) == [(0, 2), (3, 4)]
    assert mirrored_names(["head", "tail", "leftover"]) == []


def test_what_is_said_comes_first():
    facts = keypoint_metadata(dict(sigmas=0.1, flip_pairs=[("a", "b")], skeleton=[(0, 2)]), ("a", "b", "c"))
    assert facts.sigmas == (0.1, 0.1, 0.1) and facts.flip_pairs == ((0, 1),) and facts.skeleton == ((0, 2),)
    assert facts.mirror == (1, 0, 2)
    assert keypoint_metadata(facts.to_dict()) == facts


@pytest.mark.parametrize(
    ("said", "names", "message"),
    [
        (dict(sigma=0.1), ("a",), "keypoints: got sigma, expected names, sigmas, flip_pairs, skeleton"),
        (dict(), (), "keypoints.names: got none"),
        (dict(sigmas=[0.1]), ("a", "b"), "keypoints.sigmas: got (0.1,), expected 2 numbers above 0"),
        (dict(sigmas=0.0), ("a",), "keypoints.sigmas: got (0.0,)"),
        (dict(flip_pairs=[("a", "z")]), ("a", "b"), "keypoints.flip_pairs: got 'z', expected one of a, b"),
        (dict(flip_pairs=[(0, 5)]), ("a", "b"), "keypoints.flip_pairs: got (0, 5), expected pairs of 0 to 1"),
        (dict(flip_pairs=[(0, 1), (1, 2)]), ("a", "b", "c"), "expected each keypoint in one pair at most"),
    ],
)
def test_wrong_facts_are_named(said, names, message):
    with pytest.raises(UserError, match=re.escape(message)):
        keypoint_metadata(said, names)
