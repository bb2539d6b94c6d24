"""torch-geometric, where it is installed."""

import warnings

import pytest


@pytest.fixture(scope="session")
def geometric():
    with warnings.catch_warnings():
        # of its own functions that it compiles in a way which torch 2.13 calls old
        warnings.simplefilter("ignore", DeprecationWarning)
        return pytest.importorskip("torch_geometric", reason="qna[graph] brings it")
