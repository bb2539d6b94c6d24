"""Cache policies by name: numbers become their options."""

import pytest

from qna._core.errors import InvalidInput, UnknownName
from qna.mixers.causal.policies import POLICIES, policy_of
from qna.parts.kv_cache import CachePolicy, KeepAll, KeepWindow


def test_by_name():
    assert policy_of("all") == KeepAll()
    assert policy_of("window:window=5") == KeepWindow(5)
    assert policy_of("window:sinks=4,window=12") == KeepWindow(12, 4)
    assert all(issubclass(policy, CachePolicy) for policy in POLICIES.values())


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        ("al", UnknownName, "unknown cache policy 'al'; did you mean 'all'"),
        ("window:windows=3", UnknownName, "unknown option of window 'windows'; did you mean 'window'"),
        ("window", InvalidInput, "cache policy 'window' lacks an option: .*window.*; it has window, sinks"),
        ("window:window=x", InvalidInput, "window: window must be a number, got 'x'"),
        ("window:window=3,window=4", InvalidInput, "window is given twice"),
        ("window:window=2.5", InvalidInput, "window must be an integer of at least 1, got 2.5"),
    ],
)
def test_what_is_refused(text, kind, told):
    with pytest.raises(kind, match=told):
        policy_of(text)
