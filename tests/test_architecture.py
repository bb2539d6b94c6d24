"""The import rule, one door to each third party, unique class names and sizes, checked on the syntax tree."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import qna

ROOT = Path(qna.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MODULES = {path: ast.parse(path.read_text(), str(path)) for path in FILES}

# layer -> layers that it may import; its own is always allowed
MAY_IMPORT = {
    "_core": set(),
    "ops": {"_core"},
    "mixers": {"_core", "ops"},
    "models": {"_core", "ops", "mixers"},
    "data": {"_core"},
    "plots": {"_core"},
    "analysis": {"_core", "ops", "mixers", "models"},
    "eval": {"_core", "ops", "mixers", "models", "data"},
    # a run evaluates after each epoch
    "train": {"_core", "ops", "mixers", "models", "data", "eval"},
    # accuracy within a budget is measured of training runs
    "bench": {"_core", "ops", "mixers", "models", "data", "analysis", "train"},
    "cli": {"_core", "ops", "mixers", "models", "data", "plots", "analysis", "eval", "train", "bench"},
}

# folders whose sub-packages must not import each other
SIBLINGS_APART = ("ops", "mixers")

# third party -> where it may be imported
DOORS = {
    # peers to compare with, where they are installed
    "natten": ("bench/peers/neighbourhood.py",),
    "jax": (),  # runs in another Python only, which imports it by name
    "triton": ("ops/*/triton.py", "ops/*/triton_*.py"),
    "timm": ("models/timm_entry.py", "models/sharing.py", "data/*", "train/*", "bench/peers/from_timm.py"),
    "torchvision": ("models/timm_entry.py", "data/*"),
    "matplotlib": ("plots/*",),
    "msgpack": ("models/convert.py",),
    "sklearn": ("data/*",),
    "accelerate": ("train/*",),
    "rich": ("cli/*", "train/*", "bench/*"),
    "tyro": ("cli/*",),
}


def imports_of(tree, path):
    """Yield (dotted name, node) for every import, also those inside functions."""
    package = path.relative_to(ROOT.parent).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            for alias in node.names:
                yield f"{module}.{alias.name}", node


def ids(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_imports_go_one_way(path):
    parts = path.relative_to(ROOT).parts
    if len(parts) == 1:
        return  # qna/__init__.py and __main__.py may name anything
    layer = parts[0]
    assert layer in MAY_IMPORT, f"{layer} is a new layer: add it to MAY_IMPORT and to ARCHITECTURE.md"
    for name, node in imports_of(MODULES[path], path):
        target = name.split(".")
        if target[0] != "qna" or len(target) < 2 or target[1] == "__version__":
            continue
        assert target[1] == layer or target[1] in MAY_IMPORT[layer], f"{path}:{node.lineno} imports {name}"
        if layer in SIBLINGS_APART and target[1] == layer and len(parts) > 2 and len(target) > 3:
            own, other = parts[1], target[2]
            assert own == other or other.startswith("_"), f"{path}:{node.lineno} imports its sibling {name}"


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_third_parties_have_one_door(path):
    relative = path.relative_to(ROOT)
    for name, node in imports_of(MODULES[path], path):
        doors = DOORS.get(name.split(".")[0])
        assert doors is None or any(relative.match(door) for door in doors), (
            f"{path}:{node.lineno} imports {name}; its doors are {doors}"
        )


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_sizes(path):
    assert len(path.read_text().splitlines()) <= 500, f"{path} has more than 500 lines"
    for node in ast.walk(MODULES[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            a = node.args
            names = [x.arg for x in [*a.posonlyargs, *a.args, *a.kwonlyargs] if x.arg not in ("self", "cls")]
            assert len(names) <= 12, f"{path}:{node.lineno} {node.name} has {len(names)} parameters"


def test_class_names_are_unique():
    homes = defaultdict(list)
    for path, tree in MODULES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(str(path))
    twice = {name: paths for name, paths in homes.items() if len(paths) > 1}
    assert not twice
