"""The package is imported before timm, whose import needs a repair."""

import qna.models  # noqa: F401
