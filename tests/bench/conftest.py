"""Makes timm importable beside a CPU-only torch, before the tests import it."""

import qna.models  # noqa: F401
from tests.bench.cores import cores_and_threads_stay_as_they_were  # noqa: F401
