"""Rows of prediction layers by class name: pairs of names, tensors, and the lines of the log."""

import pytest
import torch
from torch import nn

from efftasks.checkpoints.class_rows import ClassCarry, class_rows, matching_classes
from efftasks.structures.errors import UserError


class Head(nn.Module):
    """A layer with a row for each class, one without, and an embedding with one more row."""

    def __init__(self, classes: int, width: int = 2) -> None:
        super().__init__()
        self.score = nn.Linear(width, classes)
        self.box = nn.Linear(width, 4)
        self.embedding = nn.Embedding(classes + 1, width)

    def class_rows(self) -> dict[str, str]:
        return {"score.weight": "classes", "score.bias": "classes", "embedding.weight": "classes"}


class Model(nn.Module):
    def __init__(self, classes: int, width: int = 2) -> None:
        super().__init__()
        self.head = Head(classes, width)
        self.guide = Head(classes, width)


OLD = {"classes": ["cat", "dog", "cow"]}


def numbered(model: nn.Module, start: float = 100.0) -> dict[str, torch.Tensor]:
    """The state of a model with another value in each row: its index plus ``start``."""
    return {
        name: (torch.arange(len(tensor)) + start).reshape(-1, *[1] * (tensor.ndim - 1)).expand_as(tensor).clone()
        for name, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize(
    ("old", "new", "renamed", "expected"),
    [
        (["a", "b", "c"], ["c", "a"], {}, {0: 2, 1: 0}),
        (["a", "b"], ["x"], {}, {}),
        (["Traffic Light", "car"], ["traffic_light", "Car"], {}, {0: 0, 1: 1}),
        (["Car", "car"], ["CAR"], {}, {}),  # two candidates
        (["car"], ["Car", "CAR"], {}, {}),  # two that may take it
        (["car", "Car"], ["Car", "CAR"], {}, {0: 1, 1: 0}),  # equal names first, then one candidate is left
        (["person", "bus"], ["worker", "bus"], {"worker": "person"}, {0: 0, 1: 1}),
        (["a-b"], ["ab"], {}, {0: 0}),
        (["_", "x"], ["-", "x"], {}, {1: 1}),  # nothing is left of these names
        (["person"], ["worker", "guest"], {"worker": "person", "guest": "person"}, {0: 0, 1: 0}),
    ],
)
def test_pairs_of_classes(old, new, renamed, expected):
    assert matching_classes(old, new, renamed) == expected


def test_the_rows_of_a_class_move_with_its_name():
    model, file = Model(4), Model(3)
    carried = ClassCarry({"classes": ("dog", "bird", "Cat", "fish")}).apply(model, numbered(file), OLD, "file.pth")
    fresh = model.state_dict()
    for name in ("head.score.weight", "head.score.bias", "head.embedding.weight"):
        rows, old, new = carried.weights[name], numbered(file)[name], fresh[name]
        expected = [old[1], new[1], old[0], new[3], *([old[3]] if "embedding" in name else [])]
        torch.testing.assert_close(rows, torch.stack(expected), rtol=0, atol=0)
    torch.testing.assert_close(carried.weights["head.box.weight"], numbered(file)["head.box.weight"])
    assert carried.infos == (
        "file.pth: classes: 2 of 4 are carried by name (dog, Cat); new bird, fish; not needed cow; "
        "with other names 'Cat' from 'cat'",
    )
    assert carried.warnings == ()


def test_another_order_of_the_same_classes_is_followed():
    carried = ClassCarry({"classes": ("cow", "cat", "dog")}).apply(Model(3), numbered(Model(3)), OLD, "file.pth")
    assert carried.weights["head.score.bias"].tolist() == [102, 100, 101]
    assert carried.infos == ("file.pth: classes: all 3 are carried, in another order",)


def test_the_model_and_the_file_stay_as_they_are():
    model, weights = Model(3), numbered(Model(3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ClassCarry({"classes": ("cow", "cat", "dog")}).apply(model, weights, OLD, "file.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert weights["head.score.bias"].tolist() == [100, 101, 102]


def test_without_a_common_class_all_rows_are_new_and_a_warning_says_so():
    model = Model(3)
    carried = ClassCarry({"classes": ("x", "y", "z")}).apply(model, numbered(Model(3)), OLD, "file.pth")
    assert torch.equal(carried.weights["head.score.weight"], model.head.score.weight)
    assert carried.warnings == ("file.pth: classes: 0 of 3 are carried by name; new x, y, z; not needed cat, dog, cow",)


def test_false_starts_all_prediction_layers_anew():
    model = Model(3)
    carried = ClassCarry({"classes": tuple(OLD["classes"])}, False).apply(model, numbered(Model(3)), OLD, "file.pth")
    assert torch.equal(carried.weights["head.score.weight"], model.head.score.weight)
    assert carried.weights["head.box.bias"].tolist() == [100, 101, 102, 103]
    assert "carry_classes=False" in carried.infos[0]


@pytest.mark.parametrize("trained_on", [{}, {"classes": []}, {"semantic_classes": ["cat", "dog", "cow"]}])
def test_a_file_without_names_is_taken_as_it_is(trained_on):
    weights = numbered(Model(3))
    carried = ClassCarry({"classes": ("cow", "cat", "dog")}).apply(Model(3), weights, trained_on, "file.pth")
    assert all(carried.weights[name] is tensor for name, tensor in weights.items()) and not carried.infos


def test_a_model_that_declares_no_rows_is_warned_about():
    carried = ClassCarry({"classes": ("cow", "cat", "dog")}).apply(nn.Linear(2, 3), {}, OLD, "file.pth")
    assert "rows of other classes" in carried.warnings[0]
    same = ClassCarry({"classes": tuple(OLD["classes"])}).apply(nn.Linear(2, 3), {}, OLD, "file.pth")
    assert same.warnings == ()


def test_another_width_is_left_for_the_comparison_of_architectures():
    weights = numbered(Model(3, width=3))
    carried = ClassCarry({"classes": ("cow", "cat")}).apply(Model(2), weights, OLD, "file.pth")
    assert carried.weights["head.score.weight"].shape == (3, 3)


def test_a_guide_declares_nothing():
    assert all(name.startswith("head.") for name in class_rows(Model(3)))


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"worker": "cat"}, "carry_classes: got 'worker', but the config has no such class, it has ox"),
        ({"ox": "cov"}, "carry_classes: got 'cov', but file.pth has no such class; did you mean 'cow'?"),
    ],
)
def test_names_that_do_not_exist_are_refused(setting, sentence):
    with pytest.raises(UserError, match="carry_classes") as caught:
        ClassCarry({"classes": ("ox",)}, setting).apply(Model(1), numbered(Model(3)), OLD, "file.pth")
    assert str(caught.value) == sentence


@pytest.mark.parametrize("value", ["no", 1, ["cat"], {"a": 1}])
def test_other_settings_are_refused(value):
    with pytest.raises(UserError, match="carry_classes: got"):
        ClassCarry.of_config({"carry_classes": value})
