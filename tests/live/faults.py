"""The known faults of reference units, looked for in a running webui.

    python -m tests.live.faults [--address http://127.0.0.1:7860] [--checkpoint NAME] [--size PX]

A1111 or Forge with this extension, started with --api; where A1111 has sd-webui-controlnet, and then
`tests/live/instruments` too, what happens beside it is checked, last: the blocks that its units leave patched keep
token merging off from then on, so start with a webui in which none has been used. Prints a line for each check and
exits with 1 where one fails.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tests.live.webui import Webui, drawing, ours, photo, png, theirs

NOTE = "HelloMeme references note"
ROUNDING = 2  # of 255: another number of rows in a call rounds otherwise
UNIT = {"picture": photo(), "kind": "reference_adain+attn"}
CLEAN = {**UNIT, "writing": "once"}  # no noise, which would depend on a unit's place
LONG = "a portrait of a woman, " * 20  # more than 75 tokens


DEFAULTS = {"token_merging_ratio": 0.0, "hypertile_enable_unet": False, "hypertile_max_tile_unet": 256} | {
    "batch_cond_uncond": True,
    "s_min_uncond_all": False,
    "skip_early_cond": 0.0,
}


class Checks:
    def __init__(self, webui: Webui, size: int) -> None:
        self.webui = webui
        self.size = size
        self.failed = 0
        self.note = ""
        self.forge = any(name.startswith("forge_") for name in webui.ask("/sdapi/v1/options"))

    def say(self, name: str, right: bool, detail: str = "") -> None:
        self.failed += not right
        print(f"{'ok   ' if right else 'FAULT'} {name} {detail}", flush=True)

    def draw(self, *units: dict[str, Any], path: str = "/sdapi/v1/txt2img", **wishes: Any) -> list[np.ndarray]:
        if units:
            wishes["alwayson_scripts"] = {**ours(*units), **wishes.get("alwayson_scripts", {})}
        pictures, info = self.webui.draw(path, **{"width": self.size, "height": self.size, **wishes})
        self.note = info["extra_generation_params"].get(NOTE, "")
        return pictures

    @contextmanager
    def options(self, **chosen: Any) -> Iterator[None]:
        """Settings of the webui while the context lasts. (What is sent along with a request stays behind in A1111, for
        options that its config.json does not name.)"""
        known = self.webui.ask("/sdapi/v1/options")
        self.webui.ask("/sdapi/v1/options", chosen)
        try:
            yield
        finally:
            self.webui.ask("/sdapi/v1/options", {name: known.get(name, DEFAULTS[name]) for name in chosen})

    def acts(self, name: str, **wishes: Any) -> None:
        """The unit changes the picture, and nothing is noted."""
        plain, changed = self.draw(**wishes)[0], self.draw(UNIT, **wishes)[0]
        moved = distance(changed, plain)
        self.say(name, moved > ROUNDING and not self.note, f"moved by {moved} {self.note}")

    def alike(self, name: str, one: np.ndarray, other: np.ndarray, bound: int = ROUNDING) -> None:
        self.say(name, distance(one, other) <= bound, f"differ by {distance(one, other)}")


def distance(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def kinds(checks: Checks) -> None:
    looks, styles = {**CLEAN, "kind": "reference_only"}, {**CLEAN, "kind": "reference_adain", "picture": drawing()}
    both, turned, alone = (checks.draw(*units)[0] for units in ((looks, styles), (styles, looks), (styles,)))
    checks.alike("units of different kinds in either order", both, turned)
    checks.say("a unit of another kind does not silence the first", distance(both, alone) > ROUNDING)
    twice, other = checks.draw(looks, looks)[0], checks.draw(looks, {**looks, "picture": drawing()})[0]
    checks.say("two units do not share one picture", distance(twice, other) > ROUNDING)


def start_and_end(checks: Checks) -> None:
    plain, whole = checks.draw()[0], checks.draw(UNIT)[0]
    late, early = checks.draw({**UNIT, "start": 0.5})[0], checks.draw({**UNIT, "end": 0.25})[0]
    parts = [{**UNIT, "end": 0.25}, {**UNIT, "start": 0.25}]
    for name, part in (("the last two of four steps", late), ("the first of four steps", early)):
        checks.say(f"{name} alone", distance(part, plain) > ROUNDING < distance(part, whole))
    clean = [{**part, "writing": "once"} for part in parts]
    checks.alike("two units after each other make one", checks.draw(*clean)[0], checks.draw(CLEAN)[0])


def rows(checks: Checks) -> None:
    whole = checks.draw(UNIT)[0]
    if not checks.forge:
        with checks.options(batch_cond_uncond=False):
            split = checks.draw(UNIT)[0]
        checks.alike("cond and uncond in calls of their own", split, whole)
        checks.acts("negative guidance minimum sigma", s_min_uncond=15.0)
        with checks.options(s_min_uncond_all=True):
            checks.acts("the same at all steps", s_min_uncond=15.0)
        with checks.options(skip_early_cond=0.5):
            checks.acts("no uncond in the first half")
    checks.acts("cfg 1", cfg_scale=1.0)
    checks.acts("prompts of different length", prompt=LONG)
    if not checks.forge:
        joint = checks.draw(UNIT, prompt=LONG)[0]
        with checks.options(batch_cond_uncond=False):
            split = checks.draw(UNIT, prompt=LONG)[0]
        checks.alike("prompts of different length, split", split, joint)
    checks.acts("a prompt with AND", prompt="a portrait AND a hat")
    pictures = checks.draw(UNIT, batch_size=2)
    pictures = pictures[1:] if len(pictures) == 3 else pictures  # a grid comes first
    checks.alike("first of a batch", pictures[0], whole)
    checks.alike("second of a batch", pictures[1], checks.draw(UNIT, seed=1235)[0])


def passes(checks: Checks) -> None:
    hires = {"enable_hr": True, "denoising_strength": 0.6, "hr_upscaler": "Latent", "hr_scale": 1.5}
    hires |= {"hr_additional_modules": ["Use same choices"]} if checks.forge else {}
    checks.acts("hires fix", **hires)
    plain = checks.draw(**hires)[0]
    least, most = (checks.draw({**UNIT, "fidelity": fidelity}, **hires)[0] for fidelity in (0.0, 1.0))
    checks.say("style fidelity in hires fix", distance(least, most) > ROUNDING, f"moves by {distance(least, most)}")
    checks.alike("hires fix again without us", checks.draw(**hires)[0], plain, bound=0)
    picture = {"init_images": [png(drawing())], "denoising_strength": 0.75, "path": "/sdapi/v1/img2img"}
    checks.acts("img2img", **picture)
    mask = np.zeros((256, 256, 3), np.uint8)
    mask[64:192, 64:192] = 255
    checks.acts("inpainting", mask=png(mask), **picture)


def company(checks: Checks) -> None:
    look = np.zeros((256, 256, 3), np.uint8)
    look[:128] = 255
    if not checks.forge:
        unmerged = checks.draw()[0]
        with checks.options(token_merging_ratio=0.5):
            checks.acts("token merging")
            plain, masked = checks.draw()[0], checks.draw({**UNIT, "look": png(look)})[0]
            checks.say("token merging is at work", distance(plain, unmerged) > 0)
            refused = "token merging" in checks.note and distance(masked, plain) == 0
            checks.say("a mask with token merging is refused in one line", refused, checks.note)
        with checks.options(hypertile_enable_unet=True, hypertile_max_tile_unet=128):
            checks.acts("Hypertile")
    whole = checks.draw(UNIT)[0]
    checks.alike("a mask of everything is none", checks.draw({**UNIT, "look": png(np.full_like(look, 255))})[0], whole)
    half = checks.draw({**UNIT, "look": png(look)})[0]
    checks.say("a mask changes where it looks", distance(half, whole) > ROUNDING)


def traces(checks: Checks) -> None:
    plain = checks.draw()[0]
    checks.draw(UNIT, {**UNIT, "kind": "reference_only"})
    checks.alike("nothing stays after a run", checks.draw()[0], plain, bound=0)
    wrong = checks.draw({"picture": photo(), "kind": "nothing"})[0]
    checks.alike("a mistake costs nothing but the effect", wrong, plain, bound=0)
    checks.say("and is said in one line", "is not one of" in checks.note and "\n" not in checks.note, checks.note)
    running = threading.Thread(target=lambda: checks.draw(UNIT, steps=60))
    running.start()
    time.sleep(4)
    checks.webui.ask("/sdapi/v1/interrupt", {})
    running.join()
    checks.alike("nothing stays after an interrupt", checks.draw()[0], plain, bound=0)


def controlnet(checks: Checks) -> None:
    before, plain = checks.draw(UNIT)[0], checks.draw()[0]
    checks.webui.ask("/hellomeme/same_noise/1", method="POST")
    alone, both = (checks.draw(*units, alwayson_scripts=theirs(UNIT))[0] for units in ((), (UNIT,)))
    checks.webui.ask("/hellomeme/same_noise/0", method="POST")
    checks.say("beside ControlNet's reference units we refuse", "not both" in checks.note, checks.note)
    checks.alike("and its picture is what it is without us", both, alone, bound=0)
    checks.alike("what it leaves patched does not matter to us", checks.draw(UNIT)[0], before, bound=0)
    checks.alike("nor to the plain picture", checks.draw()[0], plain)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="http://127.0.0.1:7860")
    parser.add_argument("--checkpoint", help="default: the one that is loaded")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--only", nargs="+", default=[], help="names of functions in this file")
    chosen = parser.parse_args()
    webui = Webui(chosen.address)
    if chosen.checkpoint:
        webui.choose(chosen.checkpoint)
    checks = Checks(webui, chosen.size)
    installed = [script["name"] for script in webui.ask("/sdapi/v1/script-info")]
    groups: list[Callable[[Checks], None]] = [kinds, start_and_end, rows, passes, company, traces]
    if "controlnet" in installed and not checks.forge:
        groups.append(controlnet)
    for group in groups:
        if not chosen.only or group.__name__ in chosen.only:
            group(checks)
    print(f"{checks.failed} of the checks failed" if checks.failed else "all is well")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
