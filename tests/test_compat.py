"""mmdet and mmseg without compiled operators. Each case needs an interpreter in which nothing was imported before.

The scope rule, tested at the end: under ``default_scope="efftasks"`` a bare name inside a default of mmdet
(``BboxOverlaps2D`` in an assigner) is looked up among ours and not found. ``_scope_="mmdet"`` in the dict that builds
the mmdet part cures it; that is the one way used here.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT]))}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=environment, cwd=ROOT
    )


def check(code: str, *path: Path) -> str:
    result = run(code, *path)
    assert result.returncode == 0, result.stderr
    return result.stdout


def has_extension() -> bool:
    """Whether a compiled extension lies in the installed mmcv; looked up as files, not as compat does it."""
    spec = importlib.util.find_spec("mmcv")
    folders = spec.submodule_search_locations if spec is not None else None
    return any(True for folder in folders or () for _ in Path(folder).glob("_ext*"))


without_operators = pytest.mark.skipif(has_extension(), reason="this mmcv has compiled operators")


@without_operators
def test_mmdet_models_need_compat() -> None:
    bare = run("import mmdet.models")
    assert bare.returncode != 0
    assert "mmcv._ext" in bare.stderr
    check("import efftasks.compat, mmdet.models, mmdet.engine, mmdet.apis")


@without_operators
def test_mmseg_models_work() -> None:
    check("import efftasks.compat, mmseg.models, mmseg.datasets, mmseg.evaluation")


FAKE_TORCHVISION = """
import torch
if not hasattr(torch.ops.torchvision, "nms"):
    raise RuntimeError("operator torchvision::nms does not exist")
"""


@pytest.mark.parametrize("content", [FAKE_TORCHVISION, "", None], ids=["for another torch", "fitting", "absent"])
def test_a_torchvision_for_another_torch_imports(content: str | None, tmp_path: Path) -> None:
    if content is None and importlib.util.find_spec("torchvision") is not None:
        pytest.skip("torchvision is here")
    if content is not None:
        (tmp_path / "torchvision").mkdir()
        (tmp_path / "torchvision" / "__init__.py").write_text(content)
    found = check(
        """
        import sys, torch
        import efftasks.compat
        print("torchvision" in sys.modules, hasattr(torch.ops.torchvision, "nms"))
        """,
        tmp_path,
    )
    assert found == f"{content is not None} {bool(content)}\n"


@without_operators
def test_calling_an_operator_names_it() -> None:
    out = check("""
        import torch
        import efftasks.compat
        import mmcv.ops
        print(efftasks.compat.has_compiled_mmcv())
        for call in (
            lambda: mmcv.ops.nms(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([0.5]), 0.5),
            lambda: mmcv.ops.roi_align(torch.zeros(1, 1, 8, 8), torch.zeros(1, 5), (2, 2)),
        ):
            try:
                call()
            except efftasks.compat.CompiledOperatorMissing as error:
                print(error)
    """)
    told, nms, roi_align = out.strip().splitlines()
    assert told == "False"
    assert "'nms'" in nms
    assert "'roi_align_forward'" in roi_align
    assert "without compiled operators" in nms


def test_loaded_extension_is_left_alone() -> None:
    check("""
        import sys, types
        real = sys.modules["mmcv._ext"] = types.ModuleType("mmcv._ext")
        real.nms = lambda: "compiled"
        import efftasks.compat
        assert sys.modules["mmcv._ext"] is real
        assert efftasks.compat.has_compiled_mmcv()
    """)


def test_installed_extension_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").write_text("")
    (tmp_path / "mmcv" / "_ext.py").write_text("def nms(): return 'compiled'\n")
    out = check("import efftasks.compat; from mmcv import _ext; print(_ext.__file__, _ext.nms())", tmp_path)
    assert str(tmp_path) in out
    assert "compiled" in out


def test_compat_without_mmcv_does_no_harm() -> None:
    check("""
        import importlib.util
        find_spec = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name.startswith("mmcv") else find_spec(name, *rest)
        import efftasks.compat
        assert not efftasks.compat.has_compiled_mmcv()
    """)


def test_scope_rule_for_parts_of_mmdet() -> None:
    wrong, right = check("""
        import efftasks.compat
        from mmengine.registry import DefaultScope
        from efftasks.registry import TASK_UTILS
        DefaultScope.get_instance("test", scope_name="efftasks")
        assigner = dict(type="mmdet.MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.5)
        try:
            TASK_UTILS.build(assigner)
        except KeyError as error:
            print(error)
        print(type(TASK_UTILS.build(dict(assigner, _scope_="mmdet")).iou_calculator).__module__)
    """).splitlines()[-2:]
    assert "BboxOverlaps2D is not in the efftasks::task util registry" in wrong
    assert right.startswith("mmdet.models.task_modules")
