"""Whether what an authors' checkpoint holds is exactly a model."""

from __future__ import annotations

from collections.abc import Mapping

from qna._core.errors import InvalidInput


def check_whole(
    name: str, model: str, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> None:
    """Check that a checkpoint has the tensors of a model and no others.

    Args:
        name: of the checkpoint, for errors.
        model: what it should be.
        expected: shapes by the authors' names.
        found: those of the checkpoint.

    Raises:
        InvalidInput: the first tensor that is missing, left over or of another shape.
    """
    missing = [path for path in expected if path not in found]
    extra = sorted(path for path in found if path not in expected)
    if missing:
        more = f" (and {len(missing) - 1} more)" * (len(missing) > 1)
        hint = f"; it has {extra[0]}, which a {model} has not" if extra else ""
        raise InvalidInput(f"{name} is no {model}: {missing[0]} is missing{more}{hint}")
    if extra:
        more = f" (and {len(extra) - 1} more)" * (len(extra) > 1)
        raise InvalidInput(f"{name} is no {model}: it has {extra[0]}{more}, which that model has not")
    for path, shape in expected.items():
        if found[path] != shape:
            raise InvalidInput(f"{name} is no {model}: {path} has shape {found[path]}, not {shape}")
