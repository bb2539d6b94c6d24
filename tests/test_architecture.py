"""The import rule, one door to each third party, unique class names and sizes, checked on the syntax tree."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import qna

ROOT = Path(qna.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MODULES = {path: ast.parse(path.read_text(), str(path)) for path in FILES}

MODELS = {"_core", "ops", "parts", "mixers", "models"}
TRAIN = {*MODELS, "tiling", "adapters", "data", "analysis", "eval", "train"}

# layer -> layers that it may import; its own is always allowed
MAY_IMPORT = {
    "_core": set(),
    "ops": {"_core"},
    "parts": {"_core", "ops"},
    "tiling": {"_core", "parts"},
    "graph": {"_core", "parts"},
    "mixers": {"_core", "ops", "parts"},
    "models": MODELS,
    "adapters": MODELS,
    "data": {"_core"},
    "plots": {"_core"},
    "analysis": {*MODELS, "adapters"},
    "eval": {*MODELS, "adapters", "data"},
    "export": {*MODELS, "adapters"},
    # a run evaluates after each epoch
    "train": TRAIN,
    # accuracy within a budget is measured of training runs
    "bench": TRAIN,
    # a laboratory measures as benchmarks do and draws its own picture
    "labs": {*TRAIN, "graph", "bench", "plots"},
    "cli": {*TRAIN, "export", "bench", "labs", "plots"},
}

# folders whose sub-packages must not import each other
SIBLINGS_APART = ("ops", "mixers", "models", "adapters", "train/tasks", "labs")

# rooms of a layer, in the order of their imports: each may import itself and those before it
ROOMS = {"bench": ("measure", "subjects", "publish")}

# third party -> where it may be imported
DOORS = {
    # peers to compare with, where they are installed
    "natten": ("bench/subjects/peers/neighbourhood.py",),
    "jax": ("bench/subjects/peers/official_child.py",),  # which runs in another Python
    "triton": ("ops/*/triton/*.py",),
    "timm": (
        "models/timm_entry.py",
        "models/registry.py",
        "models/resolve.py",
        "models/sharing.py",
        "data/images/*",
        "train/*",
        "bench/subjects/peers/from_timm.py",
    ),
    # torchmetrics needs it for boxes, and peft's transformers; neither can import it beside every torch
    "torchvision": ("models/timm_entry.py", "data/images/*", "eval/boxes.py", "adapters/lora.py"),
    # commands ask for it before the work
    "matplotlib": ("plots/*", "cli/explain.py", "cli/lab.py", "cli/simulate_gna.py"),
    "segmentation_models_pytorch": ("models/segmenter.py", "train/tasks/segmentation.py"),
    "monai": ("data/volumes/*", "models/volumes.py", "eval/lesions.py", "train/tasks/volumes.py"),
    "nibabel": ("data/volumes/nifti.py",),
    "skimage": ("data/scenes/*",),
    "diffusers": ("labs/sketch_clouds/diffusion.py",),
    "trimesh": ("labs/sketch_clouds/things.py",),
    "msgpack": ("models/flax_file.py",),
    "onnxscript": ("ops/*/onnx.py", "export/*"),
    "onnx": ("export/*",),
    "onnx_ir": ("export/*",),
    "onnxruntime": ("export/*",),
    "sklearn": ("data/images/*",),
    "accelerate": ("train/*",),
    "tokenizers": ("data/text/*",),
    "peft": ("adapters/lora.py",),
    "transformers": ("models/detectors/*", "models/transformers_attention.py"),
    "torch_geometric": ("graph/message_passing.py",),
    "huggingface_hub": ("models/detectors/*", "models/sharing.py"),
    "torchmetrics": ("eval/*",),
    "rich": ("cli/*", "train/*", "bench/publish/*"),
    "tyro": ("cli/*",),
}


# functions that import the module which their first argument names
IMPORTERS = {"require", "import_vision", "import_module"}


def imports_of(tree, path):
    """Yield (dotted name, node) for every import; those inside functions and by `IMPORTERS` count too."""
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
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in IMPORTERS and isinstance(node.args[0].value, str):
                yield node.args[0].value, node


def module_name(path):
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


NAMES = {module_name(path) for path in FILES}


def module_of(name):
    """The module that a dotted name lies in; None outside the package."""
    while name and name not in NAMES:
        name = name.rpartition(".")[0]
    return name or None


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


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_siblings_stay_apart(path):
    folder = next((f for f in SIBLINGS_APART if path.is_relative_to(ROOT / f)), None)
    if folder is None or path.parent == ROOT / folder:
        return
    own = path.relative_to(ROOT / folder).parts[0]
    siblings = {p.name for p in (ROOT / folder).iterdir() if p.is_dir() and not p.name.startswith("_")}
    prefix = "qna." + folder.replace("/", ".") + "."
    for name, node in imports_of(MODULES[path], path):
        other = name.removeprefix(prefix).split(".")[0] if name.startswith(prefix) else own
        assert other == own or other not in siblings, f"{path}:{node.lineno} imports its sibling {name}"


@pytest.mark.parametrize(
    "path", [p for layer in ROOMS for p in FILES if p.is_relative_to(ROOT / layer)], ids=ids
)
def test_rooms_of_a_layer_are_entered_one_way(path):
    layer, *room = path.relative_to(ROOT).parts[:-1]
    order = ROOMS[layer]
    assert not room or room[0] in order, f"{room[0]} is a new room: add it to ROOMS"
    behind = order[order.index(room[0]) + 1 :] if room else order
    # also by a string: processes are told by name what to import
    named = [(n.value, n) for n in ast.walk(MODULES[path]) if isinstance(n, ast.Constant)]
    for name, node in [*imports_of(MODULES[path], path), *named]:
        found = next((r for r in behind if str(name).startswith(f"qna.{layer}.{r}.")), None)
        assert found is None, f"{path}:{node.lineno} names {name}, which lies behind it"


def test_no_circle_of_imports():
    """Also none through imports that wait in a function, or that only a type checker follows."""
    graph = {
        module_name(path): {m for name, _ in imports_of(tree, path) if (m := module_of(name))}
        for path, tree in MODULES.items()
    }
    while leaves := [m for m, targets in graph.items() if not (targets - {m}) & graph.keys()]:
        for leaf in leaves:
            del graph[leaf]
    # what leads into a circle is not part of one
    while roots := graph.keys() - {t for m, targets in graph.items() for t in targets if t != m}:
        for root in roots:
            del graph[root]
    assert not graph, f"circles run through {sorted(graph)}"


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
