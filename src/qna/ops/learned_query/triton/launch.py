"""The kernels by name, and their launches."""

from __future__ import annotations

from typing import Any

from qna.ops._shared.triton import launch as shared


def run(launch: shared.Launch) -> Any:
    """Run it on the device of its tensors and the current stream; returns the compiled kernel."""
    return shared.run(launch, kernels())


def kernels() -> dict[str, Any]:
    """The compiled-on-demand kernels by name; here triton is imported."""
    from qna.ops.learned_query.triton import backward, exact, forward, products, products_backward

    return {
        "tabulate": forward.tabulate,
        "attend": forward.attend,
        "attend_far": exact.attend_far,
        "sum_inside": backward.sum_inside,
        "gather": backward.gather,
        "add_up": backward.add_up,
        "lay_out": products.lay_out,
        "attend_by_products": products.attend_by_products,
        "sum_inside_by_products": products_backward.sum_inside_by_products,
        "gather_by_products": products_backward.gather_by_products,
        "correlate": products_backward.correlate,
        "fold": products_backward.fold,
    }
