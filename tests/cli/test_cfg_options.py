"""``--cfg-options`` and ``--epochs``: what is typed and what is meant."""

from __future__ import annotations

from typing import Any

import pytest

from efftasks.cli.main import main
from efftasks.cli.options import parse_options
from efftasks.structures.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("1e-3", 1e-3),
        ("true", True),
        ("None", None),
        ("ant", "ant"),
        ("a,b", ["a", "b"]),
        ("[a,b]", ["a", "b"]),
        ("('a','b')", ("a", "b")),
        ("(circle, glue tube)", ("circle", "glue tube")),
        ("glue tube", "glue tube"),
        ("'a,b'", "a,b"),
        ("[(1,2),[a,'b,c']]", [(1, 2), ["a", "b,c"]]),
        ("{'names': ['a', 'b']}", {"names": ["a", "b"]}),
        ("/data/mine", "/data/mine"),
        ("data/a(1", "data/a(1"),
        ("", ""),
        ("a=b", "a=b"),
    ],
)
def test_values(text: str, value: Any) -> None:
    options = parse_options([f"x.y={text}"])
    assert options == {"x.y": value} and type(options["x.y"]) is type(value)


@pytest.mark.parametrize("pair", ["x", "=3", "x=[a,b", "x=(a,(b)", "x=[a)]"])
def test_what_cannot_be_read(pair: str) -> None:
    with pytest.raises(UserError, match="--cfg-options: "):
        parse_options([pair])


def test_epochs_are_checked_as_the_key_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128", "--epochs", "0"]) == 2
    assert "max_epochs: got 0, expected a whole number from 1" in capsys.readouterr().err
