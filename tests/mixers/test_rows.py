"""Every mixer of the source has a row, by the syntax tree."""

import ast
from pathlib import Path

import pytest

import qna.mixers
from qna.mixers import MIXERS

ROOT = Path(qna.mixers.__file__).parent
# files of families: ROOT/family/file.py, and those of systems in folders of their own inside one
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in ROOT.glob("*/**/*.py")
    if path.name != "__init__.py"
}


def without_row(sources, names):
    """Public modules that lack a row, as "family/file.py: Class".

    A file that assigns ROW or ROWS holds mixers: each of its public modules has a row, or is the base of one
    that has. A file that does not holds parts, and must be imported by another file of its family: they are
    public for that file alone.

    Args:
        sources: "family/file.py" -> text.
        names: of the rows.
    """
    trees = {file: ast.parse(text) for file, text in sources.items()}
    return [
        f"{file}: {name}"
        for file, tree in trees.items()
        if _holds_rows(tree) or not _imported(file, trees)
        for name in _public_modules(tree)
        if not _reaches_a_row(name, tree, names)
    ]


def _holds_rows(tree):
    targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
    return any(isinstance(t, ast.Name) and t.id in ("ROW", "ROWS") for t in targets)


def _imported(file, trees):
    family = file.partition("/")[0]
    module = f"qna.mixers.{file.removesuffix('.py').replace('/', '.')}"
    return any(
        other != file and other.startswith(f"{family}/") and module in _imports(tree)
        for other, tree in trees.items()
    )


def _imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _classes(tree):
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _bases(node):
    return {ast.unparse(base).rpartition("[")[0] or ast.unparse(base) for base in node.bases}


def _public_modules(tree):
    """Classes without an underscore that have a `forward`, their own or a base's."""
    classes = _classes(tree)

    def is_module(name):
        if name not in classes:
            return name.startswith("nn.") or name == "Module" or name.endswith(("Layer", "Linear"))
        own = any(isinstance(f, ast.FunctionDef) and f.name == "forward" for f in classes[name].body)
        return own or any(is_module(base) for base in _bases(classes[name]))

    return [name for name in classes if not name.startswith("_") and is_module(name)]


def _reaches_a_row(name, tree, names):
    heirs = [heir for heir, node in _classes(tree).items() if name in _bases(node)]
    return name in names or any(_reaches_a_row(heir, tree, names) for heir in heirs)


def test_every_mixer_has_a_row():
    assert not without_row(SOURCES, MIXERS)


def test_every_row_is_collected():
    """The registry holds as many rows as the files make."""
    modules = [f"qna.mixers.{file.removesuffix('.py').replace('/', '.')}" for file in SOURCES]
    found = set()
    for name in modules:
        module = __import__(name, fromlist=["ROW"])
        found |= {
            row.name for row in [*getattr(module, "ROWS", ()), *filter(None, [getattr(module, "ROW", None)])]
        }
    assert found == set(MIXERS)


MIXER = "from torch import nn\nclass A(nn.Module):\n    def forward(self, x):\n        return x\n"


@pytest.mark.parametrize(
    ("sources", "missing"),
    [
        ({"a/a.py": MIXER}, ["a/a.py: A"]),
        ({"a/a.py": MIXER + "ROW = 1\n"}, ["a/a.py: A"]),
        ({"a/a.py": MIXER + "class B(A):\n    pass\nROW = 1\n"}, []),
        ({"a/a.py": MIXER, "a/b.py": "from qna.mixers.a.a import A\n"}, []),
        ({"a/c/a.py": MIXER, "a/b.py": "from qna.mixers.a.c.a import A\n"}, []),
        ({"a/c/a.py": MIXER}, ["a/c/a.py: A"]),
        ({"a/a.py": MIXER, "b/b.py": "from qna.mixers.a.a import A\n"}, ["a/a.py: A"]),
        ({"a/a.py": MIXER.replace("A", "_A")}, []),
        ({"a/a.py": MIXER.replace("A", "B")}, []),
    ],
    ids=[
        "no row",
        "a row of another",
        "a base",
        "a part",
        "a part in a folder",
        "a folder",
        "a stranger's part",
        "private",
        "a row",
    ],
)
def test_what_lacks_a_row(sources, missing):
    assert without_row(sources, {"B"}) == missing
