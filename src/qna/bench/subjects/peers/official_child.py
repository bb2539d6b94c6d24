"""Runs the authors' layer in a Python that has JAX: ``python official_child.py CHECKOUT THREADS``.

Their file is loaded from the checkout, jitted, and given leaves from a file. No torch here.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any

from qna.bench.measure.lines import answer
from qna.bench.measure.memory import peak_on_cpu


def main(checkout: Path, threads: int) -> None:
    """Serve "verify", "time" and "peak"."""
    cores = sorted(os.sched_getaffinity(0))
    # jax sizes its pool by the cores that it may use
    os.sched_setaffinity(0, cores[:threads])
    layer_class = load(checkout)
    built: dict[str, Any] = {"question": None}

    def runner(question: dict[str, Any], mode: str) -> Any:
        if built["question"] != question:
            built.update(question=question, calls=build(layer_class, question))
        return built["calls"][mode]

    def verify(question: dict[str, Any], mode: str, found: str) -> None:
        np = _numpy()

        built["question"] = None  # new leaves
        np.savez(found, **arrays(runner(question, mode)(), mode))

    def time_calls(question: dict[str, Any], mode: str, calls: int) -> list[float]:
        jax = _jax()

        run = runner(question, mode)
        jax.block_until_ready(run())
        seconds = []
        for _ in range(calls):
            begin = time.perf_counter()
            jax.block_until_ready(run())
            seconds.append(time.perf_counter() - begin)
        return seconds

    def peak(question: dict[str, Any], mode: str) -> int:
        jax = _jax()

        run = runner(question, mode)
        return peak_on_cpu(lambda: jax.block_until_ready(run()))

    answer({"verify": verify, "time": time_calls, "peak": peak})


def load(checkout: Path) -> Any:
    """Their layer class; names that JAX has dropped since are given back for the time of the import."""
    jax = _jax()

    for name, now in (("tree_map", jax.tree_util.tree_map), ("tree_leaves", jax.tree_util.tree_leaves)):
        if not hasattr(jax, name):
            setattr(jax, name, now)
    spec = importlib.util.spec_from_file_location("official_qna", checkout / "layers" / "qna.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FusedKQnA


def build(layer_class: Any, question: dict[str, Any]) -> dict[str, Any]:
    """The jitted calls of both modes on the leaves of the question's file."""
    jax, np = _jax(), _numpy()

    sizes, arrays = question["setting"], np.load(question["leaves"])
    taps = sizes["window"] ** 2
    layer = layer_class(
        features=sizes["dim"],
        heads=sizes["heads"],
        kernel_size=sizes["window"],
        stride=1,
        padding=sizes["window"] // 2,
        n_queries=sizes["queries"],
    )
    x, gradient = jax.numpy.asarray(arrays["x"]), jax.numpy.asarray(arrays["gradient"])
    tables = sizes["queries"] * sizes["heads"]
    parameters = {
        "query": arrays["query"],
        "Wk": arrays["key"],
        "to_v": {"kernel": arrays["value"]},
        "to_out": {"kernel": arrays["out"]},
        "rpe_bias": arrays["bias"].reshape(taps, tables),
        "attn_scale_weights": arrays["weight"].reshape(1, 1, taps, tables),
    }
    parameters = jax.tree_util.tree_map(jax.numpy.asarray, parameters)

    def apply(parameters: Any, x: Any) -> Any:
        return layer.apply({"params": parameters}, x)

    def backward(parameters: Any, x: Any, gradient: Any) -> Any:
        out, pull = jax.vjp(apply, parameters, x)
        return out, pull(gradient)

    forward_jit, backward_jit = jax.jit(apply), jax.jit(backward)
    return {
        "forward": lambda: forward_jit(parameters, x),
        "forward+backward": lambda: backward_jit(parameters, x, gradient),
    }


def arrays(result: Any, mode: str) -> dict[str, Any]:
    """Output and gradients by the names and shapes of the leaves."""
    np = _numpy()

    if mode == "forward":
        return {"output": np.asarray(result)}
    output, (parameters, x) = result
    return {
        "output": np.asarray(output),
        "x": np.asarray(x),
        "query": np.asarray(parameters["query"]),
        "key": np.asarray(parameters["Wk"]),
        "value": np.asarray(parameters["to_v"]["kernel"]),
        "out": np.asarray(parameters["to_out"]["kernel"]),
        "bias": np.asarray(parameters["rpe_bias"]),
        "weight": np.asarray(parameters["attn_scale_weights"]),
    }


def _jax() -> Any:
    """Of the Python that runs this file; the one that checks its types has none."""
    return importlib.import_module("jax")


def _numpy() -> Any:
    return importlib.import_module("numpy")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
