"""Run by the webui at its start: adds what is missing and changes nothing that is there.

Everything else that this extension needs (torch, einops, opencv, safetensors) the webuis bring. MediaPipe finds the
faces. It is installed without its dependencies, which would exchange the webui's numpy, protobuf and opencv.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tempfile

NEW_PROTOBUF = (4, 25, 3)  # what the files in mediapipe 0.10.21 were generated for; older versions cannot read them
NEEDED_BY_MEDIAPIPE = {"absl": "absl-py", "attr": "attrs", "flatbuffers": "flatbuffers", "matplotlib": "matplotlib"}


def main() -> None:
    if importlib.util.find_spec("mediapipe"):  # of whatever version: other extensions rely on theirs
        return
    print("HelloMeme: installing mediapipe, which finds faces")
    missing = [package for module, package in NEEDED_BY_MEDIAPIPE.items() if not importlib.util.find_spec(module)]
    # mediapipe comes last, as its being there is what later starts look at.
    if not ((not missing or pip_install(*missing)) and pip_install("--no-deps", mediapipe_for(protobuf_version()))):
        print("HelloMeme: mediapipe could not be installed; no face will be found until it is. See the README.")


def mediapipe_for(protobuf: tuple[int, ...]) -> str:
    """The last release whose models are in the wheel and which this protobuf can read."""
    return "mediapipe==0.10.21" if protobuf >= NEW_PROTOBUF else "mediapipe==0.10.9"


def protobuf_version() -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in re.findall(r"\d+", importlib.metadata.version("protobuf"))[:3])
    except importlib.metadata.PackageNotFoundError:
        return ()


def pip_install(*arguments: str) -> bool:
    """Whether pip installed this, with every installed package held at its version."""
    index = ["--index-url", os.environ["INDEX_URL"]] if os.environ.get("INDEX_URL") else []
    with tempfile.TemporaryDirectory() as folder:
        constraints = os.path.join(folder, "installed.txt")
        with open(constraints, "w", encoding="utf-8") as file:
            file.writelines(f"{name}=={version}\n" for name, version in installed())
        command = [sys.executable, "-m", "pip", "install", "--prefer-binary", "-c", constraints, *index, *arguments]
        result = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if result.returncode:
        print(f"HelloMeme: {(result.stderr.strip().splitlines() or ['pip failed'])[-1]}")
    return result.returncode == 0


def installed() -> list[tuple[str, str]]:
    """Names and versions of all packages. Local versions (torch 2.1.2+cu121) are kept whole."""
    found = ((one.metadata["Name"], one.version) for one in importlib.metadata.distributions())
    return sorted({(name, version) for name, version in found if name and version})


if __name__ == "__main__":
    main()
