"""PyTorch model -> ncnn's form (.param and .bin), by way of TorchScript and pnnx."""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from efftasks.export.exporters.base import Exporter
from efftasks.export.one_image import check_one_image
from efftasks.structures.errors import WorkError, first_line
from efftasks.structures.spec import ArtifactSpec, QuantizationSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["EXPORTER", "export_ncnn", "write_graph"]

_INPUT, _OUTPUT = "in0", "out{}"  # names that pnnx gives


def export_ncnn(model: nn.Module, spec: ArtifactSpec, path: str | Path, opset: int = 18) -> Path:
    """Write a model as ncnn's files. They have no room for a description, which must lie beside them.

    Args:
        model: fused, in evaluation mode, on the CPU. It satisfies ``EndsEarly``, or ``Exportable`` where the
            description has no decoder and the outputs are the model's own.
        spec: what the file is: one image of one size. Weights are stored in 16 bits where its precision is ``fp16``.
        path: of the ``.param``; its weights go beside it.
        opset: of no consequence, there is no ONNX on the way.

    Returns:
        The path.

    Raises:
        UserError: the model or the description cannot be exported.
        WorkError: the conversion failed, or the network has operators that ncnn lacks.
    """
    import torch

    from efftasks.export.graph import graph_of

    image_input = spec.input
    check_one_image(image_input, ".param")
    graph = graph_of(model, spec.decode)
    images = torch.zeros(1, 3, image_input.height, image_input.width)
    names = [output.name for output in spec.outputs]
    return _convert(graph, images, Path(path), image_input.name, names, spec.precision == "fp16")


def write_graph(module: nn.Module, images: Tensor, path: str | Path) -> Path:
    """Write what a module does with images (1, 3, H, W), without a description.

    Raises:
        WorkError: the conversion failed, or the network has operators that ncnn lacks.
    """
    return _convert(module, images, Path(path))


def write_metadata(path: str | Path, spec: ArtifactSpec) -> None:
    """Nothing: the format has no room for a description."""


def _convert(
    module: nn.Module,
    images: Tensor,
    path: Path,
    input_name: str = _INPUT,
    output_names: Sequence[str] = (),
    half: bool = False,
) -> Path:
    """Trace a module and convert it; pnnx leaves a dozen files, of which two are kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".pnnx-") as folder:
        _trace(module, images, Path(folder, "graph.pt"), path)
        _run_pnnx(Path(folder), images, half, path)
        graph, weights = Path(folder, "graph.ncnn.param"), Path(folder, "graph.ncnn.bin")
        layers = graph.read_text(encoding="utf-8").splitlines()
        foreign = sorted({kind for kind in (line.split()[0] for line in layers[2:]) if not kind.isalnum()})
        if foreign:
            raise WorkError(f"{path}: ncnn has no operator for {', '.join(foreign)}; export to another --backend")
        names = {_INPUT: input_name, **{_OUTPUT.format(i): name for i, name in enumerate(output_names)}}
        graph.write_text("\n".join([*layers[:2], *(_renamed(line, names) for line in layers[2:])]) + "\n")
        weights.replace(path.with_suffix(".bin"))
        graph.replace(path)
    return path


def _trace(module: nn.Module, images: Tensor, target: Path, path: Path) -> None:
    """Save a module as TorchScript, which pnnx reads."""
    import torch

    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of shapes that become constants, as they are to
            torch.jit.trace(module, images, check_trace=False).save(str(target))
    except Exception as error:
        raise WorkError(
            f"{path}: the network cannot be traced ({type(error).__name__}: {first_line(error)})"
        ) from error


def _run_pnnx(folder: Path, images: Tensor, half: bool, path: Path) -> None:
    """Convert ``graph.pt`` of a folder there. Its weights of 16 bits are pnnx's default."""
    import pnnx

    shape = ",".join(map(str, images.shape))
    command = [pnnx.EXEC_PATH, "graph.pt", f"inputshape=[{shape}]", f"fp16={int(half)}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0 or not (folder / "graph.ncnn.bin").is_file():
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise WorkError(
            f"{path}: pnnx cannot convert the network (exit code {done.returncode}: "
            f"{'; '.join(lines[-3:]) or 'no message'})"
        )


def _renamed(line: str, names: dict[str, str]) -> str:
    """A line of a .param file with other names of blobs: kind, name, two counts, the blobs, and parameters."""
    fields = line.split()
    end = 4 + int(fields[2]) + int(fields[3])
    blobs = [names.get(field, field) for field in fields[4:end]]
    return " ".join([*fields[:4], *blobs, *fields[end:]])


EXPORTER = Exporter(
    name="ncnn",
    backend="ncnn",
    precisions=("fp32", "fp16"),
    export=export_ncnn,
    write_graph=write_graph,
    write_metadata=write_metadata,
    take_bytes=None,
    modules=("pnnx", "ncnn"),
    extra="ncnn",
    stem="model.ncnn",
    undecoded="ncnn has no top-k, gather and argmax",
    selects=False,
    fixed_size=True,
    refuses=dict.fromkeys(
        ("dfine", "deim", "deimv2", "rtdetrv2", "dfineseg", "detrpose"),
        "ncnn has no top-k and gather, which select the queries before the decoder runs",
    ),
    storage={"fp16": QuantizationSpec(weights="float16", activations="float32")},
)
