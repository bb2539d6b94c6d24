"""Makes timm importable beside a CPU-only torch, before the tests import it."""

import pytest

import qna.models  # noqa: F401

pytest.register_assert_rewrite("tests.models.contract")
