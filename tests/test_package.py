"""The sdist and the wheel: built from the checkout, without generated code; the wheel works in an empty environment."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
SOURCES = (".py", ".pyx", ".pxd", ".pyi")


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def generated_code(names: list[str]) -> list[str]:
    return [name for name in names if name.endswith((".c", ".cpp", ".html"))]


def test_the_sdist_has_the_sources_and_no_generated_code(tmp_path: Path) -> None:
    run(sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", tmp_path, cwd=CHECKOUT)
    (sdist,) = tmp_path.glob("ibfast-*.tar.gz")
    with tarfile.open(sdist) as file:
        names = file.getnames()
    assert generated_code(names) == []
    sources = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "ibfast").rglob("*") if path.suffix in SOURCES}
    assert sources <= {name.partition("/")[2] for name in names}


def test_the_wheel_works_in_an_empty_environment(tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, CHECKOUT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("ibfast-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert generated_code(names) == []
    kept = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "ibfast").rglob("*") if path.suffix in SOURCES}
    assert {*kept, "ibfast/py.typed"} <= set(names)
    venv.create(tmp_path / "env", with_pip=True)
    scripts = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    run(scripts / "python", "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    installed = run(scripts / "python", "-c", "import ibfast; print(ibfast.__file__)", cwd=tmp_path)
    assert Path(installed.strip()).is_relative_to(tmp_path / "env")
    shown = run(scripts / "ibfast", "demo", "--seconds", "1", cwd=tmp_path)
    assert "lost 0" in shown.rstrip().splitlines()[-1]
