"""The table of exporters."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from efftasks.apis.formats import exporter_for, find_exporter, move_artifact, suffix_of
from efftasks.cli.main import build_parser
from efftasks.export.exporters.base import Exporter
from efftasks.export.exporters.table import EXPORTERS
from efftasks.runtime.backends.base import Backend
from efftasks.runtime.backends.table import BACKENDS
from efftasks.runtime.preprocess import input_buffer, write_image
from efftasks.structures.comparison import PRECISIONS
from efftasks.structures.errors import UserError
from efftasks.structures.spec import InputSpec

ROOT = Path(__file__).resolve().parents[2]
RUNTIMES = [  # a C++ compiler takes half a minute
    pytest.param(backend, marks=pytest.mark.slow if name == "aotinductor" else (), id=name)
    for name, backend in BACKENDS.items()
]


@pytest.mark.parametrize("exporter", EXPORTERS.values(), ids=lambda exporter: exporter.name)
def test_every_exporter_writes_what_a_runtime_reads(exporter):
    assert EXPORTERS[exporter.name] is exporter
    assert suffix_of(exporter) == BACKENDS[exporter.backend].suffix
    assert exporter.precisions and set(exporter.precisions) <= set(PRECISIONS)
    if not exporter.available:
        pytest.skip(f"needs {exporter.missing}")
    assert find_exporter(exporter.name, exporter.precisions[0]) is exporter


def installed_exporter(backend: Backend) -> Exporter:
    """What writes files for a runtime; the test is skipped where one of both is not installed."""
    pytest.importorskip(backend.module)
    own = [exporter for exporter in EXPORTERS.values() if exporter.backend == backend.name]
    if not any(exporter.available for exporter in own):
        pytest.skip(f"needs {own[0].missing}")
    return exporter_for(backend.name)


@pytest.mark.parametrize("backend", RUNTIMES)
def test_a_graph_is_written_for_every_runtime(backend, tmp_path):
    exporter = installed_exporter(backend)
    path = tmp_path / f"graph{suffix_of(exporter)}"
    assert exporter.write_graph(torch.nn.Conv2d(3, 2, 3), torch.zeros(1, 3, 8, 8), path) == path
    values = next(iter(backend.open(path).run(torch.ones(1, 3, 8, 8).numpy()).values()))
    assert values.shape == (1, 2, 6, 6)


@pytest.mark.parametrize("mean, std", [((0, 0, 0), (255, 255, 255)), ((124, 116, 104), (58, 57, 59.5))], ids=str)
@pytest.mark.parametrize("color", ["RGB", "BGR"])
@pytest.mark.parametrize(
    "exporter", [x for x in EXPORTERS.values() if x.take_bytes is not None], ids=lambda exporter: exporter.name
)
def test_a_file_of_bytes_gives_what_one_of_floats_gives(exporter, color, mean, std, tmp_path):
    if not exporter.available:
        pytest.skip(f"needs {exporter.missing}")
    spec = InputSpec("images", 8, 10, mean=mean, std=std, color=color)
    path = tmp_path / f"graph{suffix_of(exporter)}"
    exporter.write_graph(torch.nn.Conv2d(3, 4, 3, padding=1), torch.zeros(1, 3, 8, 10), path)
    image = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    floats, pixels = (input_buffer(1, (8, 10), described) for described in (spec, spec.of_bytes()))
    write_image(floats[0], image, spec)
    write_image(pixels[0], image, spec.of_bytes())
    runtime = BACKENDS[exporter.backend]
    (expected,) = {name: value.copy() for name, value in runtime.open(path).run(floats).items()}.values()
    exporter.take_bytes(path, spec)
    assert sorted(part.name for part in tmp_path.iterdir()) == sorted(part.name for part in runtime.parts(path))
    session = runtime.open(path)
    for alpha in (pixels[..., 3].copy(), 0, np.arange(10)):
        pixels[..., 3] = alpha
        (result,) = session.run(pixels).values()
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", RUNTIMES)
def test_no_file_names_a_folder_of_this_disk(backend, tmp_path):
    """PyTorch notes on each node the lines of source that it came from."""
    exporter = installed_exporter(backend)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.SiLU()).eval()
    path = exporter.write_graph(network, torch.zeros(1, 3, 8, 8), tmp_path / f"graph{suffix_of(exporter)}")
    written = b"".join(path.with_suffix(suffix).read_bytes() for suffix in backend.files)
    folders = (ROOT, Path(torch.__file__).parents[1], tmp_path, Path.home())
    assert not [folder for folder in folders if str(folder).encode() in written]
    assert b"stack_trace" not in written and b".py" not in written


def test_what_is_missing_is_named(monkeypatch):
    (exporter, *_) = EXPORTERS.values()
    needy = replace(exporter, name="needy", modules=("onnx", "no_such_module"), extra="needs")
    monkeypatch.setitem(EXPORTERS, "needy", needy)
    with pytest.raises(UserError, match=r"--backend needy needs no_such_module, .* pip install 'efftasks\[needs\]'"):
        find_exporter("needy", "fp32")
    with pytest.raises(UserError, match=r"--precision: got 'int4', expected one of fp32"):
        find_exporter(exporter.name, "int4")
    with pytest.raises(UserError, match=r"--backend: got 'abacus', expected one of onnx, "):
        find_exporter("abacus", "fp32")
    monkeypatch.setitem(BACKENDS, "toy", replace(BACKENDS["openvino"], name="toy", suffix=".toy", also_reads=()))
    with pytest.raises(UserError, match="--backend: got 'toy', but nothing exports files for it"):
        exporter_for("toy")


def test_the_command_offers_what_the_table_has(monkeypatch, capsys):
    (exporter, *_) = EXPORTERS.values()
    monkeypatch.setitem(EXPORTERS, "half", replace(exporter, name="half", precisions=("fp16",)))
    args = build_parser().parse_args(["export", "c", "m", "--backend", "half", "--precision", "fp16"])
    assert (args.backend, args.precision) == ("half", "fp16")
    assert build_parser().parse_args(["export", "c", "m"]).backend == exporter.name
    with pytest.raises(SystemExit):
        build_parser().parse_args(["export", "c", "m", "--backend", "abacus"])
    assert "half" in capsys.readouterr().err


def test_all_files_of_an_artifact_move_together(tmp_path, monkeypatch):
    (exporter, *_) = EXPORTERS.values()
    monkeypatch.setitem(BACKENDS, "toy", replace(BACKENDS["openvino"], suffix=".a", files=(".a", ".b")))
    for suffix in (".a", ".b"):
        (tmp_path / f"draft{suffix}").write_text(suffix)
        (tmp_path / f"model{suffix}").write_text("older")
    moved = move_artifact(tmp_path / "draft.a", tmp_path / "model.a", replace(exporter, backend="toy"))
    assert moved == tmp_path / "model.a" and sorted(p.name for p in tmp_path.iterdir()) == ["model.a", "model.b"]
    assert all((tmp_path / f"model{suffix}").read_text() == suffix for suffix in (".a", ".b"))


def test_the_tables_import_nothing_heavy():
    code = (
        "import sys, efftasks.apis.formats; "
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'openvino', 'numpy', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
