"""The examples in the docstrings of the losses run, and every public function has one."""

import doctest
import inspect

import pytest
from test_closed_forms import NAMES, REAL


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name):
    outcome = doctest.testmod(getattr(REAL, name))
    assert outcome.attempted and not outcome.failed


@pytest.mark.parametrize("name", NAMES)
def test_every_public_function_has_an_example(name):
    module = getattr(REAL, name)
    public = [f for f in vars(module).values() if inspect.isfunction(f) and f.__module__ == module.__name__]
    missing = [f.__name__ for f in public if not f.__name__.startswith("_") and ">>>" not in (f.__doc__ or "")]
    assert not missing
