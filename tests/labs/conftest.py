import pytest

from qna import labs
from tests.bench.cores import cores_and_threads_stay_as_they_were  # noqa: F401
from tests.labs.toy import TOY


@pytest.fixture
def toy(monkeypatch):
    """A laboratory that is registered while a test runs."""
    monkeypatch.setitem(labs.LABS, TOY.name, TOY)
    return TOY
