"""The examples in the docstrings of the public names run and give what they say."""

import doctest
import re
from importlib import import_module

import pytest

import sdsnn_lightning

PARTS = (
    "types",
    "strategies.base",
    "strategies.schedules",
    "classifier",
    "distiller",
    "online",
    "segments",
    "data.base",
    "progress",
)
MODULES = ("", *(f".{part}" for part in PARTS))
"""Where the public names are documented."""


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module):
    found = doctest.testmod(import_module(f"sdsnn_lightning{module}"))
    assert found.attempted > 0
    assert found.failed == 0


def test_every_public_name_exists_and_is_in_an_example():
    examples = "\n".join(
        example.source
        for module in MODULES
        for test in doctest.DocTestFinder().find(import_module(f"sdsnn_lightning{module}"))
        for example in test.examples
    )
    for name in sdsnn_lightning.__all__:
        assert getattr(sdsnn_lightning, name).__doc__
        assert re.search(rf"\b{name}\b", examples), name
    with pytest.raises(AttributeError, match="has no attribute 'Leeky'"):
        _ = sdsnn_lightning.Leeky
