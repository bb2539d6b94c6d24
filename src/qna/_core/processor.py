"""What this machine's processor says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Processor:
    """A processor, as far as the choice among kernels asks.

    Attributes:
        vendor: "AuthenticAMD", "GenuineIntel", or "" where the system does not tell.
        flags: what it can do, as Linux names it ("avx2", "avx512_bf16"); empty where it does not tell.
    """

    vendor: str
    flags: frozenset[str]

    @property
    def name(self) -> str:
        """Vendor and widest vectors, "AuthenticAMD AVX2", which tables of times go by; "" if not told."""
        widest = "AVX512" if "avx512f" in self.flags else "AVX2" if "avx2" in self.flags else ""
        return f"{self.vendor} {widest}" if self.vendor and widest else ""


@cache
def this_processor() -> Processor:
    """The first processor that the system lists; machines with unlike ones are not told apart."""
    try:
        text = _INFO.read_text()
    except OSError:
        text = ""
    told: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        told.setdefault(key.strip(), value.strip())
    return Processor(told.get("vendor_id", ""), frozenset(told.get("flags", "").split()))
