"""What exporters of files of one image ask of a description. Standard library only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from efftasks.structures.errors import UserError

if TYPE_CHECKING:
    from efftasks.structures.spec import InputSpec

__all__ = ["check_one_image"]


def check_one_image(image_input: InputSpec, suffix: str, layout: str = "NCHW") -> None:
    """Whether an input is that of a file which takes one image of one size in float32.

    Args:
        image_input: of the description.
        suffix: of the file, for the message.
        layout: of its images.

    Raises:
        UserError: it is not.
    """
    for field, expected in (
        ("layout", layout),
        ("dtype", "float32"),
        ("dynamic_batch", False),
        ("dynamic_size", False),
    ):
        if getattr(image_input, field) != expected:
            raise UserError(
                f"input.{field}: got {getattr(image_input, field)!r}, a {suffix} file is written with {expected!r}"
            )
