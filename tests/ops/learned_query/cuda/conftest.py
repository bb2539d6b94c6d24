"""A card that is not there."""

import pytest

from qna.ops.learned_query.cuda import backend, plan
from tests.ops.learned_query.cuda import on_host


@pytest.fixture
def card(monkeypatch):
    """Launches run on the host, threads in their order or, after `card("backwards")`, in the other."""
    monkeypatch.setattr(backend, "run", on_host.run_on_host)
    monkeypatch.setattr(plan, "limits", lambda device: on_host.LIMITS)

    def order(name):
        monkeypatch.setitem(on_host.order, "backwards", name == "backwards")

    return order
