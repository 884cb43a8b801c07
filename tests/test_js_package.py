"""The JavaScript package: which files are published, and that its hand-written types are those of the code.

`make lint` installs the compiler of the types; without it, and without npm, tests are skipped.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

JS = Path(__file__).parents[1] / "js"
COMPILER = JS / "node_modules" / "typescript"
FILES = {"LICENSE", "README.md", "ibfast.d.ts", "ibfast.js", "package.json"}
MOST_LINES = 400


def modules(folder: Path = JS / "src") -> list[Path]:
    return sorted(folder.rglob("*.js"))


def test_the_package_has_its_modules_and_nothing_else() -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm")
    command = [npm, "pack", "--dry-run", "--json", "--offline"]
    output = subprocess.run(command, cwd=JS, capture_output=True, text=True, timeout=120, check=True).stdout
    (package,) = json.loads(output)
    assert {file["path"] for file in package["files"]} == FILES | {
        path.relative_to(JS).as_posix() for path in modules()
    }


def test_every_module_is_short_and_says_what_it_is() -> None:
    assert len(modules()) > 10
    for path in modules():
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("// "), path
        assert len(lines) <= MOST_LINES, path


def test_the_codec_knows_no_client() -> None:
    for path in modules(JS / "src" / "codec"):
        imported = [line for line in path.read_text(encoding="utf-8").splitlines() if "from " in line]
        assert not [line for line in imported if "client" in line], path


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package in which the types can be checked."""
    if shutil.which("node") is None or not COMPILER.exists():
        pytest.skip("there is no TypeScript: `make lint` installs it")
    copy = tmp_path / "js"
    shutil.copytree(JS, copy, ignore=shutil.ignore_patterns("node_modules"))
    return copy


def errors(copy: Path) -> str:
    command = ["node", str(COMPILER / "bin" / "tsc"), "--project", str(copy)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout


WRONG = {
    "ping": ("ping(data?: unknown)", "ping(data?: string)"),
    "symbol": ("readonly symbol: string;\n  readonly state", "readonly symbol: string | null;\n  readonly state"),
    "state": ("state(channel: number, seq?: number): Batch[]", "state(channel: number, seq?: number): RowBatch[]"),
    "uniform": ("uniform(n: number)", "uniform(n: number, m: number)"),
    "connect": ("function connect(url: string, options?:", "function connect(url: string, options:"),
    "StreamError": ("constructor(code: string, message: string,", "constructor(code: string, message?: string,"),
    "Bytes": ("export class Bits {", "export class Bytes {}\nexport class Bits {"),
}
"""Changes of the types, one for each comparison, by the name that the compiler reports."""


def test_types_that_differ_from_the_code_do_not_compile(copy: Path) -> None:
    types = copy / "ibfast.d.ts"
    text = types.read_text(encoding="utf-8")
    for declared, wrong in WRONG.values():
        assert text.count(declared) == 1, declared
        text = text.replace(declared, wrong)
    types.write_text(text, encoding="utf-8")
    found = "\n".join(line for line in errors(copy).splitlines() if "agreement.ts" in line)
    assert [name for name in WRONG if f'"{name}"' not in found] == [], found


def test_the_types_are_those_of_the_code(copy: Path) -> None:
    assert errors(copy) == ""
