"""PyTorch model -> machine code that PyTorch's compiler makes ahead of time, in one package (.pt2)."""

from __future__ import annotations

import json
import platform
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efftasks.export.exporters.base import Exporter
from efftasks.export.one_image import check_one_image
from efftasks.structures.errors import WorkError, first_line
from efftasks.structures.spec import METADATA_KEY, ArtifactSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["EXPORTER", "export_aotinductor", "write_graph", "write_metadata"]

_NAMES_KEY = "names"  # what the runtime reads
# Of every x86-64 processor since 2013. PyTorch's default is all that the compiling machine has: a package from one with
# AVX-512 ends with an illegal instruction on one without. The width alone is not enough: the C++ compiler, told
# "native", uses what it likes.
_PORTABLE = {"cpp.simdlen": 256, "cpp.march": "x86-64-v3"}


def export_aotinductor(model: nn.Module, spec: ArtifactSpec, path: str | Path, opset: int = 18) -> Path:
    """Compile a model for one image of one size, with its description inside.

    Args:
        model: fused, in evaluation mode, on the CPU; satisfies ``Exportable``, or ``EndsEarly`` for files that end
            before their decoder.
        spec: what the file is.
        path: where to.
        opset: of no consequence, there is no ONNX on the way.

    Returns:
        The path.

    Raises:
        UserError: the model or the description cannot be exported.
        WorkError: the network cannot be traced or compiled.
    """
    import torch

    from efftasks.export.graph import graph_of

    image_input = spec.input
    check_one_image(image_input, ".pt2")
    images = torch.zeros(1, 3, image_input.height, image_input.width)
    names = [output.name for output in spec.outputs]
    written = _compile(graph_of(model, spec.decode), images, Path(path), image_input.name, names)
    write_metadata(written, spec)
    return written


def write_graph(module: nn.Module, images: Tensor, path: str | Path) -> Path:
    """Compile what a module does with images (1, 3, H, W), without a description.

    Raises:
        WorkError: the network cannot be traced or compiled.
    """
    return _compile(module, images, Path(path))


def write_metadata(path: str | Path, spec: ArtifactSpec) -> None:
    """Put the description into the package, in place of the one there.

    It goes there without ``files``: a file cannot hold its own digest.
    """
    _rewrite(Path(path), {METADATA_KEY: replace(spec, files=()).to_json()})


def _compile(
    module: nn.Module, images: Tensor, path: Path, input_name: str = "images", output_names: Sequence[str] = ()
) -> Path:
    import torch
    from torch._inductor import aoti_compile_and_package

    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = dict(_PORTABLE) if platform.machine().lower() in ("x86_64", "amd64") else {}
    try:
        with torch.no_grad():
            program = torch.export.export(module, (images,))
            aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)
    except Exception as error:  # of several libraries, and of the C++ compiler
        raise WorkError(
            f"{path}: the network cannot be compiled ({type(error).__name__}: {first_line(error)})"
        ) from error
    count = len(program.graph_signature.user_outputs)
    names = {"inputs": [input_name], "outputs": list(output_names) or [f"output_{i}" for i in range(count)]}
    _rewrite(path, {_NAMES_KEY: json.dumps(names)})
    return path


def _rewrite(path: Path, metadata: Mapping[str, str]) -> None:
    """Put entries into a package's metadata; its C++ sources, and the folders of this disk in it, are left out."""
    import torch
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    folders = [str(folder).encode() for folder in (Path(torch.__file__).parent, cache_dir())]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder, path.name)
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(draft, "w") as target:
            for entry in source.infolist():
                if entry.filename.endswith(".cpp"):
                    continue
                data = source.read(entry)
                if entry.filename.endswith("_metadata.json"):
                    data = json.dumps({**json.loads(data), **metadata}).encode()
                for name in folders:  # of headers, for messages: as long as before, or machine code would move
                    data = data.replace(name, b"." * len(name))
                target.writestr(zipfile.ZipInfo(entry.filename), data)  # stored, not compressed, and without a date
        draft.replace(path)


EXPORTER = Exporter(
    name="aotinductor",
    backend="aotinductor",
    precisions=("fp32",),
    export=export_aotinductor,
    write_graph=write_graph,
    write_metadata=write_metadata,
    take_bytes=None,
    modules=("torch",),
    extra="aotinductor",
    fixed_size=True,
)
