"""One sentence and an exit code for everything that can go wrong, from the exceptions the libraries really raise."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from mmengine.registry import DefaultScope, Registry

from efftasks.cli.errors import Failure, explain
from efftasks.registry import HOOKS, MODELS, TRANSFORMS
from efftasks.structures.errors import UserError, WorkError


def raised_by(call: Any, *args: Any, **kwargs: Any) -> Exception:
    try:
        call(*args, **kwargs)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.fixture(autouse=True)
def scope() -> None:
    DefaultScope.get_instance("cli-errors", scope_name="efftasks")


@pytest.mark.parametrize(
    ("registry", "typed", "meant"),
    [
        (MODELS, "Detectr", "Detector"),
        (MODELS, "MobileNetv4", "MobileNetV4"),
        (MODELS, "mmdet.FPNN", "mmdet.FPN"),
        (MODELS, "FPN", "mmdet.FPN"),  # the right name without its scope
        (MODELS, "mmseg.PIDNett", "mmseg.PIDNet"),
        (MODELS, "mmdt.RTMDet", "mmdet.RTMDet"),
        (HOOKS, "EMAHok", "EMAHook"),  # mmengine's own
        (TRANSFORMS, "LoadImag", "LoadImage"),
    ],
)
def test_misspelt_type_names_the_nearest(registry: Registry, typed: str, meant: str) -> None:
    failure = explain(raised_by(registry.build, dict(type=typed)))
    assert failure.code == 2
    assert repr(typed) in failure.sentence
    assert f"did you mean {meant!r}?" in failure.sentence


def test_type_like_nothing_else() -> None:
    failure = explain(raised_by(MODELS.build, dict(type="Qxyzzyq")))
    assert failure == Failure("type='Qxyzzyq' in the config: there is no such model; no registered name is like it", 2)


def test_misspelt_type_inside_a_constructor_as_upstream_wraps_it() -> None:
    inner = "Detectr is not in the efftasks::model registry. Please check whether the value of `Detectr` is correct"
    failure = explain(KeyError(f"class `Wrapper` in somewhere/wrapper.py: '{inner}'"))
    assert failure.code == 2
    assert "'Detectr'" in failure.sentence
    assert "'Detector'" in failure.sentence


def test_missing_type() -> None:
    failure = explain(raised_by(MODELS.build, dict(typ="Detector")))
    assert failure == Failure("a part of the config that must be built has no 'type': {'typ': 'Detector'}", 2)


def test_wrong_argument_in_a_config() -> None:
    failure = explain(raised_by(MODELS.build, dict(type="DetPreprocessor", men=1)))
    assert failure == Failure(
        "wrong arguments in the config: DetPreprocessor got an unexpected keyword argument 'men'", 2
    )


def test_missing_arguments_in_a_config() -> None:
    failure = explain(raised_by(MODELS.build, dict(type="DetPreprocessor", std=(255.0,) * 3)))
    assert failure.code == 2
    assert failure.sentence.startswith("wrong arguments in the config: DetPreprocessor missing 1 required")
    assert "'mean'" in failure.sentence


def test_type_error_of_a_bug_is_not_blamed_on_the_config() -> None:
    failure = explain(raised_by(len, 3))
    assert failure.code == 1
    assert "unexpected TypeError" in failure.sentence
    assert "--debug" in failure.sentence


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UserError("a.json: bbox: got 3 numbers, expected 4"), Failure("a.json: bbox: got 3 numbers, expected 4", 2)),
        (ValueError("size: got 0"), Failure("size: got 0", 2)),
        (WorkError("x.pth: could not be saved"), Failure("x.pth: could not be saved", 1)),
        (RuntimeError("first\nsecond"), Failure("first", 1)),
        (RuntimeError("Error(s) in loading:\n\tMissing key\n\tmore"), Failure("Error(s) in loading: Missing key", 1)),
        (RuntimeError(), Failure("no reason was given", 1)),
        (FileNotFoundError("a.py: no such config"), Failure("a.py: no such config", 2)),
        (OSError(errno.ENOSPC, "No space left on device", "w/x.pth"), Failure("w/x.pth: No space left on device", 1)),
        (KeyboardInterrupt(), Failure("interrupted", 130)),
        (KeyError("k"), Failure("unexpected KeyError: k (run again with --debug for the traceback)", 1)),
    ],
    ids=repr,
)
def test_sentence_and_code(error: BaseException, expected: Failure) -> None:
    assert explain(error) == expected


def test_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "no.txt"
    assert explain(raised_by(path.read_text)) == Failure(f"{path}: no such file or folder", 2)


def test_error_of_a_worker_process_is_unwrapped() -> None:
    message = (
        "Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "x.py", line 1, in f\nefftasks.structures.errors.UserError: a.png: not an image\n'
    )
    assert explain(UserError(message)) == Failure("a.png: not an image", 2)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("torch", "pip install 'efftasks[train]'"),
        ("mmengine.config", "pip install 'efftasks[train]'"),
        ("onnxscript", "pip install 'efftasks[export]'"),
        ("timm", "pip install 'efftasks[timm]'"),
        ("onnxruntime", "pip install efftasks"),
        ("my_project.layers", "there is no module named 'my_project.layers'"),
    ],
)
def test_missing_module_names_the_extra(module: str, words: str) -> None:
    failure = explain(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert failure.code == 2
    assert words in failure.sentence
