"""Models declare exactly the tensors whose rows are classes: those that differ between three and five classes."""

import pytest
import torch

from efftasks.apis import build, load_config
from efftasks.checkpoints.class_rows import class_rows
from efftasks.export.families import FAMILIES

# Their parts are not on the meta device: random depths are numbers, and slices are indices of channels.
ON_CPU = ("segformer-", "o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320_slim", "fpnlite-n_mobilenetv4-conv-s_1xb8-40e")
OTHERS = (
    "o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320_exit",
    "rtdetrv2-s_resnet18vd_1xb8-60e_custom-640_exit",
    "o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320_slim",
    "fpnlite-n_mobilenetv4-conv-s_1xb8-40e_camvid-480_slim",
)


def state_shapes(config: str, options: dict) -> tuple[torch.nn.Module, dict[str, tuple[int, ...]]]:
    with torch.device("cpu" if config.startswith(ON_CPU) else "meta"):
        model = build(load_config(config, options))
    return model, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def differing(config: str, options: dict, kind: str) -> tuple[set[str], dict[str, str]]:
    """Tensors of other shapes with five classes than with three, and what the model declares."""
    names = [f"class {i}" for i in range(5)]
    model, few = state_shapes(config, {**options, kind: names[:3]})
    _, many = state_shapes(config, {**options, kind: names})
    assert few.keys() == many.keys()
    changed = {name for name in few if few[name] != many[name]}
    assert all(few[name][1:] == many[name][1:] and many[name][0] - few[name][0] == 2 for name in changed)
    return changed, class_rows(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_with_a_row_for_each_class_are_those_that_differ(family: str) -> None:
    entry = FAMILIES[family]
    options = {key: value for key, value in entry.without_data.items() if key != "classes"}
    changed, declared = differing(entry.config, options, "classes")
    assert changed == {name for name, kind in declared.items() if kind == "classes"}
    assert bool(changed) == (entry.task != "top-down pose")  # it predicts no classes


def test_a_semantic_head_of_a_detector_has_its_own_classes() -> None:
    entry = FAMILIES["o2omulti"]
    changed, declared = differing(entry.config, dict(entry.without_data), "semantic_classes")
    assert changed == {name for name, kind in declared.items() if kind == "semantic_classes"} != set()


@pytest.mark.parametrize(
    "config", [pytest.param(name, marks=pytest.mark.slow if "_slim" in name else ()) for name in OTHERS]
)
def test_exits_and_widths_declare_theirs_too(config: str) -> None:
    changed, declared = differing(config, {"load_from": None}, "classes")
    assert changed == set(declared) != set()
