"""Silence around libraries."""

from __future__ import annotations

import logging
import os
import sys
import warnings

import pytest

from efftasks.export.quiet import quiet


def test_nothing_is_printed_inside_and_everything_after(capfd):
    level = logging.root.manager.disable
    with quiet():
        print("a")
        print("b", file=sys.stderr)
        os.write(2, b"c")
        logging.getLogger("efftasks.test").warning("d")
        warnings.warn("e", UserWarning, stacklevel=1)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(KeyError, match="f"), quiet():
        raise KeyError("f")
    os.write(2, b"g")
    print("h")
    assert capfd.readouterr() == ("h\n", "g") and logging.root.manager.disable == level
