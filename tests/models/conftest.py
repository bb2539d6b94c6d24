"""Makes timm importable beside a CPU-only torch, before the tests import it."""

import qna.models  # noqa: F401
