"""What reference units cost in a running A1111: the time in the UNet, the plain picture's = 1.

    python -m tests.live.speed [--address http://127.0.0.1:7860] [--checkpoint NAME] [--steps 20] [--rounds 5]

The webui has this extension, sd-webui-controlnet and `tests/live/instruments` among its extensions and was started with
--api. In each round every way draws one picture, so that a machine that slows down slows down all of them. Printed for
each way: the median over the rounds of its seconds in the UNet over the plain picture's of the same round, and all of
them, by the clock and, for a machine that others use too, by the processor. What is done once a picture is spread
over 20 steps, whatever --steps says.
"""

from __future__ import annotations

import statistics
from typing import Any

from tests.live.webui import Webui, argument_parser, chosen_webui, ours, photo, theirs

STEPS = 20


def main() -> None:
    parser = argument_parser(__doc__, steps=STEPS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fidelity", type=float, default=0.5)
    chosen = parser.parse_args()
    webui = chosen_webui(chosen)
    unit = {"picture": photo(chosen.size), "fidelity": chosen.fidelity}
    ways = {
        "plain": {},
        "ControlNet": theirs(unit),
        "compatible": ours(unit),
        "one row": ours({**unit, "writing": "one row"}),
        "once": ours({**unit, "writing": "once"}),
    }
    size = {"width": chosen.size, "height": chosen.size}
    webui.draw(steps=1, **size)
    ratios: dict[str, list[tuple[float, ...]]] = {way: [] for way in ways}
    for turn in range(chosen.rounds):
        seconds = {}
        for way, scripts in ways.items():
            seconds[way] = in_unet(webui, chosen.steps, alwayson_scripts=scripts, **size)
            ratios[way].append(tuple(own / plain for own, plain in zip(seconds[way], seconds["plain"], strict=True)))
            clock, processor = seconds[way]
            print(
                f"round {turn + 1}, {way}: {clock:.1f} s for {STEPS} steps, {processor:.1f} s of the processor",
                flush=True,
            )
    for way, measured in ratios.items():
        for name, column in zip(("clock", "processor"), zip(*measured, strict=True), strict=True):
            shown = ", ".join(f"{ratio:.2f}" for ratio in column)
            print(f"{way}, by the {name}: median {statistics.median(column):.3f} of {shown}")


def in_unet(webui: Webui, steps: int, **wishes: Any) -> tuple[float, ...]:
    """Seconds that a picture of 20 steps spends in the UNet, by the clock and the processor, from one of so many."""
    webui.ask("/hellomeme/unet_seconds")
    webui.draw(steps=steps, **wishes)
    first, *others = webui.ask("/hellomeme/unet_seconds")
    return tuple(
        one + (STEPS - 1) * statistics.mean(rest) for one, rest in zip(first, zip(*others, strict=True), strict=True)
    )


if __name__ == "__main__":
    main()
