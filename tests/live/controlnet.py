"""Our reference units against sd-webui-controlnet's in the same running A1111, with the same noise in both.

    python -m tests.live.controlnet [--address http://127.0.0.1:7860] [--checkpoint NAME] [--size PX] [--steps N]
        [--kinds KIND ...]

The webui has this extension, sd-webui-controlnet and `tests/live/instruments` among its extensions and was started with
--api. Prints the largest difference of the pictures, of 255, in every case, and how far the reference moved the plain
picture; exits with 1 where a difference is above 2.

Two units of different kinds are left out: there, each empties the other's banks (see test_reference_units.py).
"""

from __future__ import annotations

import sys
from itertools import product

import numpy as np

from tests.live.webui import argument_parser, chosen_webui, drawing, ours, photo, theirs

KINDS = ("reference_only", "reference_adain", "reference_adain+attn")
BOUND = 2


def main() -> int:
    parser = argument_parser(__doc__, steps=4)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    chosen = parser.parse_args()
    webui = chosen_webui(chosen)
    size = {"width": chosen.size, "height": chosen.size, "steps": chosen.steps}
    (plain, *_), _ = webui.draw(**size)
    worst = 0
    webui.ask("/hellomeme/same_noise/1", method="POST")
    try:
        print("kind, units, weight, fidelity: difference of the two (mean) | moved by ControlNet, by us (mean)")
        for kind, count, weight, fidelity in product(chosen.kinds, (1, 2), (0.4, 1.0), (0.0, 0.5, 1.0)):
            pictures = (photo(chosen.size), drawing(chosen.size))[:count]
            units = [{"picture": each, "kind": kind, "weight": weight, "fidelity": fidelity} for each in pictures]
            (there, *_), _ = webui.draw(alwayson_scripts=theirs(*units), **size)
            (here, *_), _ = webui.draw(alwayson_scripts=ours(*units), **size)
            worst = max(worst, distance(here, there)[0])
            moved = f"{show(there, plain)}, {show(here, plain)}"
            print(f"{kind}, {count}, {weight}, {fidelity}: {show(here, there)} | {moved}", flush=True)
        print(f"largest difference {worst} of 255")
    finally:
        webui.ask("/hellomeme/same_noise/0", method="POST")
    (after, *_), _ = webui.draw(**size)
    print(f"the plain picture afterwards differs by {distance(after, plain)[0]}")
    return 0 if worst <= BOUND else 1


def distance(one: np.ndarray, other: np.ndarray) -> tuple[int, float]:
    """The largest difference and the mean one, of 255."""
    difference = np.abs(one.astype(int) - other.astype(int))
    return int(difference.max()), float(difference.mean())


def show(one: np.ndarray, other: np.ndarray) -> str:
    largest, mean = distance(one, other)
    return f"{largest} ({mean:.2f})"


if __name__ == "__main__":
    sys.exit(main())
