"""What the live checks need of a running webui's API. Standard library, numpy and Pillow only."""

from __future__ import annotations

import argparse
import base64
import io
import json
import urllib.request
from typing import Any

import numpy as np
from PIL import Image


class Webui:
    """The API at an address like http://127.0.0.1:7860."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def ask(self, path: str, given: Any = None, method: str | None = None) -> Any:
        data = None if given is None else json.dumps(given).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        with self.open(request, timeout=3600) as answer:
            return json.loads(answer.read() or b"null")

    def draw(self, path: str = "/sdapi/v1/txt2img", **wishes: Any) -> tuple[list[np.ndarray], dict[str, Any]]:
        """The pictures, uint8 (H, W, 3), and the answer's info."""
        usual = {
            "prompt": "a portrait of a woman",
            "negative_prompt": "blurry",
            "width": 256,
            "height": 256,
            "steps": 4,
            "cfg_scale": 7.0,
            "seed": 1234,
            "sampler_name": "Euler",
            "save_images": False,
        }
        answer = self.ask(path, {**usual, **wishes})
        pictures = [
            np.array(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")) for text in answer["images"]
        ]
        return pictures, json.loads(answer["info"])

    def choose(self, checkpoint: str) -> None:
        """Load a checkpoint. Raises RuntimeError where the webui, which says nothing, has another one afterwards."""
        self.ask("/sdapi/v1/options", {"sd_model_checkpoint": checkpoint})
        loaded = self.ask("/sdapi/v1/options")["sd_model_checkpoint"]
        if not loaded.startswith(checkpoint):
            raise RuntimeError(f"the webui has loaded {loaded}, not {checkpoint}: see its log, or ask again")


def argument_parser(description: str | None, steps: int) -> argparse.ArgumentParser:
    """The arguments that all checks take. steps: the default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="http://127.0.0.1:7860")
    parser.add_argument("--checkpoint", help="default: the one that is loaded")
    parser.add_argument("--size", type=int, default=256, help="px (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=steps, help="default: %(default)s")
    return parser


def chosen_webui(chosen: argparse.Namespace) -> Webui:
    """The webui that the arguments name, with their checkpoint loaded."""
    webui = Webui(chosen.address)
    if chosen.checkpoint:
        webui.choose(chosen.checkpoint)
    return webui


def png(picture: np.ndarray) -> str:
    """A picture as the API takes it."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def photo(side: int = 256) -> np.ndarray:
    """A reference: RGB uint8 (side, side, 3)."""
    from skimage import data

    return np.array(Image.fromarray(data.astronaut()[:300, 80:380]).resize((side, side)))


def drawing(side: int = 256) -> np.ndarray:
    """Another one."""
    from skimage import data

    return np.array(Image.fromarray(data.coffee()[:400, 100:500]).resize((side, side)))


def ours(*units: dict[str, Any]) -> dict[str, Any]:
    """`alwayson_scripts` with these reference units, a picture among the names of each."""
    encoded = [{**unit, "picture": png(unit["picture"])} for unit in units]
    return {"HelloMeme references": {"args": encoded}}


def theirs(*units: dict[str, Any]) -> dict[str, Any]:
    """The same units for sd-webui-controlnet."""
    return {"controlnet": {"args": [_their_unit(unit) for unit in units]}}


def _their_unit(unit: dict[str, Any]) -> dict[str, Any]:
    return {
        "enabled": True,
        "module": unit.get("kind", "reference_only"),
        "model": "None",
        "image": png(unit["picture"]),
        "weight": unit.get("weight", 1.0),
        "processor_res": 256,
        "threshold_a": unit.get("fidelity", 0.5),
        "guidance_start": 0.0,
        "guidance_end": 1.0,
        "control_mode": unit.get("mode", "Balanced"),
        "resize_mode": "Crop and Resize",
        "pixel_perfect": False,
    }
