"""Cache policies by name, for command lines and configurations."""

from __future__ import annotations

from qna._core.named_options import configured
from qna.parts.heavy_hitters import KeepHeavy
from qna.parts.kv_cache import CachePolicy, KeepAll, KeepWindow
from qna.parts.proxy_prefill import ProxyPrefill
from qna.parts.shifted_groups import KeepGroups

POLICIES: dict[str, type[CachePolicy]] = {
    "all": KeepAll,
    "window": KeepWindow,
    "heavy": KeepHeavy,
    "groups": KeepGroups,
    "proxy": ProxyPrefill,
}


def policy_of(text: str) -> CachePolicy:
    """The policy that "all" or "window:window=1024,sinks=4" names.

    Raises:
        UnknownName: for a policy or an option that there is not, with the nearest names.
        InvalidInput: for a value that is refused, or one that is missing.
    """
    return configured("cache policy", text, POLICIES)
