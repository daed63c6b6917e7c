"""What a sampling step costs with the networks attached, against the plain step: `python -m lib_hellomeme benchmark`.

Both sides are timed in turn in one process, so that a machine that slows down slows down both. Weights are random: a
step's time does not depend on their values.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lib_hellomeme.checkpoints.catalog import GENERATIONS, files_of
from lib_hellomeme.checkpoints.layouts import LAYOUTS
from lib_hellomeme.networks.control import ProjectedControl
from lib_hellomeme.networks.expression import ArkitExpression
from lib_hellomeme.networks.reference import ReferenceAdapter
from lib_hellomeme.recipes.hellomeme import Reenactment
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.port import Call, Rows

CONTEXT_WIDTH = 768
TOKENS = 77


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--generation", choices=list(GENERATIONS), default="v5c", help="default: %(default)s")
    parser.add_argument("--size", type=int, default=256, help="side of the picture in px (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of steps to time (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="where to run (default: %(default)s)")
    parser.add_argument("--half", action="store_true", help="float16 instead of float32")


def run(arguments: argparse.Namespace) -> None:
    device = torch.device(arguments.device)
    dtype = torch.float16 if arguments.half else torch.float32
    port = DiffusersPort(full_unet().to(device, dtype))
    call = random_call(arguments.size, device, dtype)
    control = random_control(arguments.generation, arguments.size, device, dtype)
    adapter = LAYOUTS[files_of(arguments.generation)[0].layout or ""].build({})
    assert isinstance(adapter, ReferenceAdapter)
    adapter.fold()  # as load_networks does
    layers = adapter.eval().requires_grad_(False).to(device, dtype).sites()
    reenactment = Reenactment(port, layers, call.sample[1:], control, control)

    def full_step() -> None:
        with port.attach(reenactment.taps(), lambda *_: call, reenactment.begin):
            run_step(port, call)

    plain, full = time_in_turn(lambda: run_step(port, call), full_step, arguments.pairs)
    ratios = [b / a for a, b in zip(plain, full, strict=True)]
    where = f"{str(dtype)[6:]} on {device}, {torch.get_num_threads()} threads"
    print(f"{arguments.generation}, {arguments.size} px, two rows, {where}, {arguments.pairs} alternating pairs")
    print(f"plain step {statistics.median(plain):.3f} s, with everything on {statistics.median(full):.3f} s (medians)")
    print(f"ratio: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")


def full_unet() -> nn.Module:
    """SD1.5's UNet with random weights."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(cross_attention_dim=CONTEXT_WIDTH, attention_head_dim=8).eval().requires_grad_(False)


def random_call(side: int, device: torch.device, dtype: torch.dtype) -> Call:
    """Rows [uncond, cond] of a picture of side x side px."""
    latent = side // 8
    return Call(
        torch.randn(2, 4, latent, latent, device=device, dtype=dtype),
        torch.full((2,), 500, device=device),
        torch.randn(2, TOKENS, CONTEXT_WIDTH, device=device, dtype=dtype),
        Rows((True, False)),
    )


def run_step(port: DiffusersPort, call: Call) -> None:
    """One call of the UNet as a sampler makes it, until it is done."""
    port.unet(call.sample, call.timestep, call.context, return_dict=False)
    if call.sample.device.type == "cuda":
        torch.cuda.synchronize()


def random_control(generation: str, side: int, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Residuals of nobody and of a face where this generation adds them. Their shapes come from its networks."""
    with torch.device("meta"):
        _, *networks = (LAYOUTS[file.layout].build({}) for file in files_of(generation, "arkit") if file.layout)
        control = (ProjectedControl(*networks) if len(networks) == 2 else networks[0]).to("meta")
        expression = ArkitExpression(torch.empty(2, 51), torch.empty(2, 3, 1024))
        shapes = {site: residual.shape for site, residual in control(torch.empty(2, 3, side, side), expression).items()}
    return {site: 0.1 * torch.randn(shape, device=device, dtype=dtype) for site, shape in shapes.items()}


@torch.inference_mode()
def time_in_turn(a: Callable[[], None], b: Callable[[], None], pairs: int) -> tuple[list[float], list[float]]:
    """Seconds of each run of a and of b, alternating, after one run of each that is not counted."""
    seconds: tuple[list[float], list[float]] = [], []
    for turn in range(pairs + 1):
        for function, kept in zip((a, b), seconds, strict=True):
            start = time.perf_counter()
            function()
            if turn:
                kept.append(time.perf_counter() - start)
    return seconds
