"""What a sampling step costs with a reference unit, against the plain step:
`python -m lib_hellomeme benchmark-reference`.

All ways of writing take turns in one process, so that a machine that slows down slows down all of them. Weights are
random: a step's time does not depend on their values.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from lib_hellomeme.recipes.reference import Kind, ReferenceUnits, Unit
from lib_hellomeme.sampling.banks import Writing
from lib_hellomeme.standalone.benchmark import CONTEXT_WIDTH, TOKENS, full_unet
from lib_hellomeme.taps.attention import record_tokens
from lib_hellomeme.taps.bank import Bank
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.port import SELF_ATTENTION, Call, Rows

STEPS = 20  # of the generation over which a single write pass is spread


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", default="reference_only", help="default: %(default)s")
    parser.add_argument("--fidelity", type=float, default=0.5, help="default: %(default)s")
    parser.add_argument("--size", type=int, default=256, help="side of the picture in px (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="steps to time in each way (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="where to run (default: %(default)s)")
    parser.add_argument("--half", action="store_true", help="float16 instead of float32")


def run(arguments: argparse.Namespace) -> None:
    device = torch.device(arguments.device)
    dtype = torch.float16 if arguments.half else torch.float32
    port = DiffusersPort(full_unet().to(device, dtype))
    latent = arguments.size // 8
    call = Call(
        torch.randn(2, 4, latent, latent, device=device, dtype=dtype),
        torch.full((2,), 999.0, device=device),
        torch.randn(2, TOKENS, CONTEXT_WIDTH, device=device, dtype=dtype),
        Rows((False, True)),
    )
    ways = steps_by_way(port, call, arguments.kind, arguments.fidelity)
    seconds = time_in_turns(ways, arguments.turns, device)
    where = f"{str(dtype)[6:]} on {device}, {torch.get_num_threads()} threads"
    print(f"{arguments.kind}, fidelity {arguments.fidelity}, {arguments.size} px, two rows, {where}")
    report(seconds)
    print(f"bank of a row: {bank_bytes(port, call) / (arguments.size / 1000) ** 2 / 1e6:.0f} MB per megapixel")


def steps_by_way(port: DiffusersPort, call: Call, kind: Kind, fidelity: float) -> dict[str, Callable[[int], None]]:
    """For each way a function that takes the n-th step of a generation."""
    unit = Unit(torch.randn_like(call.sample[:1]), kind, fidelity=fidelity)
    alphas_cumprod = torch.linspace(0.999, 0.005, 1000)
    shared = call.context[:1]

    def step(recipe: ReferenceUnits | None) -> Callable[[int], None]:
        def take(turn: int) -> None:
            now = replace(call, timestep=call.timestep - turn)
            if recipe is None:
                port.unet(now.sample, now.timestep, now.context, return_dict=False)
                return
            with port.attach(recipe.taps(), lambda *_: now, recipe.begin):
                port.unet(now.sample, now.timestep, now.context, return_dict=False)

        return take

    def units(writing: Writing) -> ReferenceUnits:
        return ReferenceUnits(port, [replace(unit, writing=writing)], alphas_cumprod)

    return {
        "plain": step(None),
        "written for each row at each step": step(units(Writing())),
        "one row written at each step": step(units(Writing(context=shared))),
        "one row written once": step(units(Writing("once", context=shared))),
    }


@torch.inference_mode()
def time_in_turns(ways: dict[str, Callable[[int], None]], turns: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each step, the first ones first, after a plain one that is not counted."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    ways["plain"](0)
    for turn in range(turns + 1):
        for way, step in ways.items():
            start = time.perf_counter()
            step(turn)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[way].append(time.perf_counter() - start)
    return seconds


def report(seconds: dict[str, list[float]]) -> None:
    plain = seconds["plain"]
    print(f"plain step {statistics.median(plain):.3f} s (median)")
    for way, taken in seconds.items():
        ratios = [a / b for a, b in zip(taken, plain, strict=True)]
        first, rest = ratios[0], statistics.median(ratios[1:])
        spread = (first + (STEPS - 1) * rest) / STEPS
        print(
            f"{way}: first step {first:.2f}, later steps {rest:.2f} (medians), {STEPS} steps {spread:.2f} times plain"
        )


@torch.inference_mode()
def bank_bytes(port: DiffusersPort, call: Call) -> int:
    """What one written row keeps of all self-attention layers."""
    bank: Bank = {}
    row = Call(call.sample[:1], call.timestep[:1], call.context[:1], call.rows.chosen([0]))
    port.run(row, [record_tokens(site, bank) for site in SELF_ATTENTION])
    return sum(tokens.nbytes for tokens in bank.values())
