"""Holds the import direction: a module imports only from lower lines of the table below, or from its own package."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "fanin"

# Lowest first. Names on one line never import each other.
LINES = (
    "errors arguments write",
    "weights masks missing_names",
    "dtypes",
    "config",
    "registry",
    "activations initializers regularizers constraints",
    "kernels",
    "graph",
    "layers",
    "program",
    "losses metrics optimizers callbacks",
    "training",
    "formats",
    "adapters",
    "models",
    "attach",
    "saving",
    "backend mixed_precision",
    "utils",
    "__init__",
    "sklearn",  # on top: `import fanin` never imports it
)
EXCEPTIONS = {("metrics", "losses")}  # a loss can be watched as a metric
LINE = {name: number for number, names in enumerate(LINES) for name in names.split()}

# Imported where they are used, never by `import fanin`.
LATE = (
    "torch._dynamo",
    "h5py",
    "rich",
    "sklearn",
    "matplotlib",
    "safetensors",
    "tensorboard",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "pandas",
)


def module_name(path: Path) -> str:
    """src/fanin/layers/dense.py -> "layers.dense", src/fanin/layers/__init__.py -> "layers.__init__"."""
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def imported(node: ast.Import | ast.ImportFrom, module: str) -> list[str]:
    """The parts of fanin that one import statement takes from: "layers" for `from fanin.layers.dense import Dense`."""
    if isinstance(node, ast.Import):
        paths = [alias.name.split(".") for alias in node.names]
    else:
        base = node.module.split(".") if node.module else []
        if node.level:  # relative: one dot is the module's own package
            package = ["fanin", *module.split(".")]
            base = package[: len(package) - node.level] + base
        paths = [[*base, alias.name] for alias in node.names] if base == ["fanin"] else [base]
    return [part(path) for path in paths if path[0] == "fanin"]


def part(path: list[str]) -> str:
    """`from fanin import activations` takes a module, `from fanin import Dense` a name of the package's __init__."""
    if len(path) == 1:
        return "__init__"
    name = path[1]
    known = name in LINE or (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").exists() or len(path) > 2
    return name if known else "__init__"


def faults(module: str, source: str) -> list[str]:
    """What a module's imports break, each with its line number."""
    own = module.split(".")[0]
    if own not in LINE:
        return [f"fanin.{own} has no place in the order of imports: add it to LINES in tests/test_imports.py."]
    tree = ast.parse(source)
    inside = {
        child
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for other in imported(node, module):
            if node in inside:
                found.append(f"line {node.lineno}: imports fanin.{other} inside a function; import it at the top.")
            if other == own or (own, other) in EXCEPTIONS:
                continue
            if other not in LINE:
                found.append(f"line {node.lineno}: fanin.{other} is not in LINES of tests/test_imports.py; add it.")
            elif LINE[other] >= LINE[own]:
                where = "beside" if LINE[other] == LINE[own] else "above"
                found.append(f"line {node.lineno}: fanin.{own} may not import fanin.{other}, which stands {where} it.")
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=module_name)
def test_imports_go_downwards(path: Path) -> None:
    found = faults(module_name(path), path.read_text())
    assert not found, "\n".join([str(path), *found])


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("errors", "from fanin.dtypes import as_dtype", "fanin.errors may not import fanin.dtypes, which stands above"),
        ("layers.dense", "from fanin import activations, models", "may not import fanin.models, which stands above"),
        ("layers.dense", "import fanin.models.sequential", "may not import fanin.models"),
        ("layers.dense", "import fanin", "may not import fanin.__init__"),
        ("layers.dense", "from fanin import Sequential", "may not import fanin.__init__"),
        ("layers.dense", "from .. import models", "may not import fanin.models"),
        ("layers.__init__", "from ..models import Model", "may not import fanin.models"),
        ("losses", "from fanin.metrics import Mean", "may not import fanin.metrics, which stands beside it"),
        (
            "models.model",
            "def f():\n    from fanin.layers import Dense",
            "imports fanin.layers inside a function",
        ),
        ("dtypes", "if TYPE_CHECKING:\n    from fanin.layers import Layer", "line 2: fanin.dtypes may not import"),
        ("attic", "import torch", "fanin.attic has no place in the order of imports: add it"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, message: str) -> None:
    assert any(message in fault for fault in faults(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("layers.dense", "from fanin.layers.base.layer import Layer\nfrom .layer import Layer\nfrom . import layer"),
        ("layers.dense", "import torch\nfrom fanin import activations\nfrom ..kernels import Full"),
        ("metrics", "from fanin.losses import Loss"),
        ("formats.hdf5", "def read():\n    import h5py"),
        ("__init__", "from fanin.models import Sequential"),
    ],
)
def test_a_right_import_is_let_through(module: str, source: str) -> None:
    assert faults(module, source) == []


def test_import_fanin_leaves_large_libraries_alone() -> None:
    code = f"import sys, fanin; print(*(name for name in {LATE!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [], "import these inside the function that uses them"
