"""The drawn world in a running webui: the embedded host's pictures, and what the style LoRA makes of them.

    python -m tests.live.drawn [--address http://127.0.0.1:7860] [--world DIR] [--count N] [--sheet PICTURE]

A1111 with this extension, started with --api and with the world's folder as --hellomeme-models; the world's
drawn-people.safetensors lies among its checkpoints, with the .yaml that `write-yaml` makes, and comic.safetensors among
its LoRAs.
Exits with 1 where a picture differs from the embedded host's by more than 2 of 255.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lib_hellomeme.settings import Settings
from lib_hellomeme.standalone.drawing import Drawing
from lib_hellomeme.standalone.evaluation import Case, measured, unseen_case
from lib_hellomeme.standalone.host import EmbeddedHost
from lib_hellomeme.standalone.pictures import save_picture
from lib_hellomeme.standalone.sheet import contact_sheet
from lib_hellomeme.standalone.world import LORA, NEEDED, WORLD, need_world
from lib_hellomeme.training import measuring
from lib_hellomeme.training.base import CHECKPOINT
from lib_hellomeme.training.faces import turned_degrees
from lib_hellomeme.training.measure import MeasuringNetwork, identity_error, load_measuring_network
from tests.live.webui import Webui, argument_parser, chosen_webui, png

BOUND = 2  # of 255
SIZE, CFG, SEED = 128, 3.0, 31415
SAMPLERS = ("Euler", "DDIM")
STYLE = Path(LORA).stem


def main() -> int:
    parser = argument_parser(__doc__, steps=20)
    parser.set_defaults(checkpoint=Path(CHECKPOINT).stem)
    parser.add_argument("--world", type=Path, default=WORLD, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--count", type=int, default=6, help="people (default: %(default)s)")
    parser.add_argument("--sheet", metavar="PICTURE", help="also put the pictures on a sheet")
    chosen = parser.parse_args()
    world, webui = need_world(chosen.world, (*NEEDED, LORA)), chosen_webui(chosen)
    plain = EmbeddedHost(world / CHECKPOINT, world, device="cpu")
    inked = EmbeddedHost(world / CHECKPOINT, world, [(str(world / LORA), 1.0)], device="cpu")
    cases = [unseen_case(SEED, index, SIZE) for index in range(chosen.count)]
    rows, worst = [], 0
    for case, sampler in ((case, sampler) for sampler in SAMPLERS for case in cases):
        row = []
        for host, prompt in ((plain, ""), (inked, f"<lora:{STYLE}:1>")):
            there = draw_there(webui, case, sampler, prompt, chosen.steps)
            here = draw_here(host, case, sampler, chosen.steps)
            difference = int(np.abs(there.astype(int) - here).max())
            worst = max(worst, difference)
            print(f"{sampler}, person {case.seed}, {prompt or 'no LoRA'}: differ by {difference}", flush=True)
            row += [("webui", there), ("embedded host", here)]
        portrait = case.portrait
        rows.append([("reference", portrait.reference.picture), ("driver", portrait.driving.picture), *row])
    report_style(
        load_measuring_network(world / measuring.FILE), [row[2][1] for row in rows], [row[4][1] for row in rows]
    )
    if chosen.sheet:
        save_picture(contact_sheet(rows, side=SIZE), chosen.sheet)
    print(f"largest difference: {worst} of 255 (bound {BOUND})")
    return int(worst > BOUND)


def draw_there(webui: Webui, case: Case, sampler: str, prompt: str, steps: int) -> np.ndarray:
    """By the webui, RGB uint8 (SIZE, SIZE, 3)."""
    request: dict[str, Any] = {
        "fit": "crop",
        "reference": png(case.portrait.reference.picture),
        "driving": png(case.portrait.driving.picture),
    }
    pictures, info = webui.draw(
        prompt=prompt,
        negative_prompt="",
        width=SIZE,
        height=SIZE,
        steps=steps,
        cfg_scale=CFG,
        seed=case.seed,
        sampler_name=sampler,
        alwayson_scripts={"HelloMeme": {"args": [request]}},
    )
    for name, text in info["extra_generation_params"].items():
        if name == "HelloMeme note":
            print(f"  note: {text}")
    return pictures[0]


def draw_here(host: EmbeddedHost, case: Case, sampler: str, steps: int) -> np.ndarray:
    """By the embedded host, likewise."""
    drawing = Drawing("", "", steps, CFG, case.seed, sampler, SIZE, SIZE)
    settings = Settings(enabled=True, fit="crop")
    portrait = case.portrait
    return host.reenact(portrait.reference.picture, portrait.driving.picture, settings, drawing, progress=False).picture


def report_style(network: MeasuringNetwork, plain: list[np.ndarray], inked: list[np.ndarray]) -> None:
    """How far the LoRA moves pictures, how dark they get at edges, and what stays."""
    before, after = measured(network, plain), measured(network, inked)
    poses = [turned_degrees(a.rotation, b.rotation) for a, b in zip(before, after, strict=True)]
    identities = [identity_error(a, b) for a, b in zip(before, after, strict=True)]
    others = [identity_error(a, b) for a, b in zip(before, after[1:] + after[:1], strict=True)]
    moved = np.abs(np.stack(plain).astype(float) - np.stack(inked)).mean()
    print(
        f"the LoRA moves pictures by {moved:.1f} of 255 on average and ink from {ink(plain):.3f} to {ink(inked):.3f}; "
        f"heads turn by {np.mean(poses):.1f} degrees, identity error {np.mean(identities):.3f} (another person's "
        f"{np.mean(others):.3f})"
    )


def ink(pictures: list[np.ndarray]) -> float:
    """Mean size of the brightness' second differences, of 1: drawn lines raise it."""
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255 for picture in pictures]
    return float(np.mean([np.abs(cv2.Laplacian(one, cv2.CV_32F)).mean() for one in grey]))


if __name__ == "__main__":
    sys.exit(main())
