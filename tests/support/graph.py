"""The import graph of the package, read from its sources, and the layers that it has.

python -m tests.support.graph      every arrow between two folders, and whether one leads up
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2] / "ibfast"

VOCABULARY = "vocabulary"
LAYERS = (
    {VOCABULARY},
    {"feed", "wire"},
    {"codec", "decoder", "sim"},
    {"_core"},
    {"config"},
    {"policy"},
    {"connection"},
    {"fanout"},
    {"engine"},
    {"client"},
    {"ibfast"},
    {"commands"},
    {"__main__"},
)
"""From the bottom: folders, and the modules beside them that are no vocabulary. What stands side by side shares
nothing."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def layer_of(module: str) -> str:
    """Return the folder at the top of the package that a module stands in, or its own name where it has a layer."""
    top = module.split(".")[1] if "." in module else module
    return top if any(top in layers for layers in LAYERS) else VOCABULARY


def python_imports(path: Path) -> set[str]:
    """Every module that a Python file names in an import, inside of functions and type checks too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            modules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES
            found |= modules
            # A package that only lends its name to a module of it is not imported for its own sake.
            if len(modules) < len(node.names):
                found.add(node.module)
    return found


CYTHON_IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import\b|c?import\s+([\w.]+))", re.MULTILINE)


def cython_imports(path: Path) -> set[str]:
    return {first or second for first, second in CYTHON_IMPORT.findall(path.read_text())}


PYTHON = {module_name(path): path for path in ROOT.rglob("*.py")}
CYTHON = sorted([*ROOT.rglob("*.pyx"), *ROOT.rglob("*.pxd")])
COMPILED = {module_name(path) for path in CYTHON if path.suffix == ".pyx"}
MODULES = set(PYTHON) | {module_name(path) for path in CYTHON}

IMPORTS = {name: python_imports(path) for name, path in PYTHON.items()}
for source in CYTHON:
    IMPORTS.setdefault(module_name(source), set()).update(cython_imports(source))


def reached_from(*names: str) -> set[str]:
    """Everything that these modules import, they themselves or what they import."""
    reached: set[str] = set()
    left = list(names)
    while left:
        for name in IMPORTS.get(left.pop(), ()):
            if name not in reached:
                reached.add(name)
                left.append(name)
    return reached


def own(names: set[str]) -> set[str]:
    return {name for name in names if name.partition(".")[0] == "ibfast"}


def upwards(imports: dict[str, set[str]]) -> set[tuple[str, str]]:
    """The imports that lead to a layer above, or beside."""
    height = {layer: number for number, layers in enumerate(LAYERS) for layer in layers}
    return {
        (module, name)
        for module, names in imports.items()
        for name in own(names)
        if layer_of(module) != layer_of(name) and height[layer_of(module)] <= height[layer_of(name)]
    }


def picture() -> str:
    """Return a line for each layer, from the top: which layers it imports from, and how often."""
    arrows: dict[str, Counter[str]] = {}
    for module, names in IMPORTS.items():
        arrows.setdefault(layer_of(module), Counter()).update(map(layer_of, own(names)))
    lines = []
    for layer in (layer for layers in reversed(LAYERS) for layer in sorted(layers)):
        below = [f"{other} {count}" for other, count in arrows.get(layer, Counter()).most_common() if other != layer]
        lines.append(f"{layer:<12} -> {', '.join(below) or 'nothing'}")
    found = sorted(f"{module} -> {name}" for module, name in upwards(IMPORTS))
    return "\n".join([*lines, "", f"arrows that lead up: {', '.join(found) or 'none'}"])


if __name__ == "__main__":
    print(picture())
