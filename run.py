"""Two commands on a fresh machine, with Python 3.10 to 3.12 and nothing else:

    python run.py demo    runs the whole chain on a real photo and leaves pictures in outputs/
    python run.py test    runs the tests

The first run makes .venv and installs what requirements-standalone.txt names. Further arguments are passed on.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
REQUIREMENTS = ROOT / "requirements-standalone.txt"
INSTALLED = ENVIRONMENT / "installed.sha256"
# Two processes, as the tests use one thread each; a file's tests stay together, for what they share, and the files in
# the order of tests/conftest.py.
TEST = ["-m", "pytest", "--numprocesses", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
COMMANDS = {"demo": ["-m", "lib_hellomeme", "demo"], "test": TEST}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in COMMANDS:
        return fail(f"say what to do: python run.py {' or python run.py '.join(COMMANDS)}")
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        return fail(f"this is Python {sys.version.split()[0]}; start run.py with Python 3.10, 3.11 or 3.12")
    try:
        problem = prepare_environment()
        if problem:
            return fail(problem)
        return subprocess.call([str(PYTHON), *COMMANDS[arguments[0]], *arguments[1:]], cwd=ROOT)
    except KeyboardInterrupt:
        return fail("interrupted; the same command goes on where it stopped")


def prepare_environment() -> str:
    """What went wrong, in one line; empty where everything is installed."""
    if INSTALLED.is_file() and INSTALLED.read_text() == fingerprint():
        return ""
    print(f"run.py: making {ENVIRONMENT}", flush=True)
    try:
        other = PYTHON.exists() and version_of(PYTHON) != sys.version_info[:2]
        # Links where `python -m venv` makes them: a copy cannot take the place of a link to its own original.
        venv.create(ENVIRONMENT, with_pip=True, clear=other, symlinks=os.name != "nt")
    except (subprocess.CalledProcessError, OSError) as error:
        return f"no virtual environment could be made ({error}); on Debian and Ubuntu: sudo apt install python3-venv"
    torch = next(line for line in REQUIREMENTS.read_text().split("\n") if line.startswith("torch=="))
    steps = {
        f"1/2 installing {torch}": [torch, "-c", str(REQUIREMENTS)],
        "2/2 installing the other packages": ["--no-deps", "-r", str(REQUIREMENTS)],
    }
    for title, packages in steps.items():
        print(f"run.py: {title}", flush=True)
        pip = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--prefer-binary", *packages]
        if subprocess.call(pip):
            return (
                "the packages could not be installed; pip's last lines say why. With a connection and 8 GB of free "
                "space, run the same command again"
            )
    INSTALLED.write_text(fingerprint())
    return ""


def fingerprint() -> str:
    """Changes with the requirements, this Python and the place of the environment."""
    facts = (REQUIREMENTS.read_text(), str(sys.version_info[:2]), str(ENVIRONMENT))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def version_of(python: Path) -> tuple[int, ...]:
    """(3, 11) for a Python 3.11; empty where it does not run, as after its folder was moved."""
    command = [str(python), "-c", "import sys; print(*sys.version_info[:2])"]
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ()
    return tuple(int(part) for part in result.stdout.split())


def fail(problem: str) -> int:
    print(f"run.py: {problem}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
