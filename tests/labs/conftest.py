import pytest
import torch

from qna import labs
from qna.bench.measure.cores import CORES, pin
from tests.labs.toy import TOY


@pytest.fixture(autouse=True)
def cores_and_threads_stay_as_they_were():
    threads = torch.get_num_threads()
    yield
    pin(len(CORES))
    torch.set_num_threads(threads)


@pytest.fixture
def toy(monkeypatch):
    """A laboratory that is registered while a test runs."""
    monkeypatch.setitem(labs.LABS, TOY.name, TOY)
    return TOY
