"""What a sampling step costs with the networks attached, against the plain step: `python -m lib_hellomeme benchmark`.

The plain step and the step of each generation are timed in turn in one process, so that a machine that slows down slows
down all; on a machine that others use too, the processor time tells more than the clock. Weights are random: a step's
time does not depend on their values.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lib_hellomeme.checkpoints.catalog import GENERATIONS, files_of
from lib_hellomeme.checkpoints.layouts import LAYOUTS, build_on_meta
from lib_hellomeme.checkpoints.load import placed
from lib_hellomeme.networks.control import ProjectedControl
from lib_hellomeme.networks.expression import ArkitExpression
from lib_hellomeme.networks.reference import ReferenceAdapter
from lib_hellomeme.recipes.hellomeme import Reenactment
from lib_hellomeme.standalone.timing import time_in_turn
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.port import Call, Rows

CONTEXT_WIDTH = 768
TOKENS = 77


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = list(GENERATIONS)
    parser.add_argument("--generation", nargs="+", choices=names, default=["v5c"], metavar="NAME", help="default: v5c")
    parser.add_argument("--size", type=int, default=256, help="side of the picture in px (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=7, help="turns to time (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="where to run (default: %(default)s)")
    parser.add_argument("--half", action="store_true", help="float16 instead of float32")


def run(arguments: argparse.Namespace) -> None:
    device = torch.device(arguments.device)
    dtype = torch.float16 if arguments.half else torch.float32
    port = DiffusersPort(full_unet().to(device, dtype))
    call = random_call(arguments.size, device, dtype)
    steps = [lambda: run_step(port, call), *(_full_step(port, call, name) for name in arguments.generation)]
    with torch.inference_mode():
        plain, *full = time_in_turn(steps, arguments.pairs)
    where = f"{str(dtype)[6:]} on {device}, {torch.get_num_threads()} threads"
    print(f"{arguments.size} px, two rows, {where}, {arguments.pairs} turns")
    print(f"plain step {statistics.median(step.clock for step in plain):.3f} s (median)")
    for name, seconds in zip(arguments.generation, full, strict=True):
        by_clock = [step.clock / bare.clock for step, bare in zip(seconds, plain, strict=True)]
        by_processor = [step.processor / bare.processor for step, bare in zip(seconds, plain, strict=True)]
        spread = f"median {statistics.median(by_clock):.3f}, from {min(by_clock):.3f} to {max(by_clock):.3f}"
        print(f"{name}: ratio {spread}; of processor time {statistics.median(by_processor):.3f}")


def _full_step(port: DiffusersPort, call: Call, generation: str) -> Callable[[], None]:
    """A step with everything on; its first one runs the write pass too."""
    adapter = _randomised(build_on_meta(LAYOUTS[files_of(generation)[0].layout or ""], {}))
    assert isinstance(adapter, ReferenceAdapter)
    adapter.fold()  # as load_networks does
    layers = placed(adapter, port.device, port.dtype).sites()
    control = random_control(generation, 8 * call.sample.shape[-1], port.device, port.dtype)
    reenactment = Reenactment(port, layers, call.sample[1:], control, control)

    def step() -> None:
        with port.attach(reenactment.taps(), lambda *_: call, reenactment.begin):
            run_step(port, call)

    return step


def full_unet() -> nn.Module:
    """SD1.5's UNet with random weights."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=CONTEXT_WIDTH, attention_head_dim=8)
    return _randomised(unet)


def _randomised(network: nn.Module) -> nn.Module:
    """A network from the meta device, ready for inference; much faster than its own initialisation."""
    network.to_empty(device="cpu").eval().requires_grad_(False)
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.uniform_(-0.02, 0.02)
    return network


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
        built: list[Any] = [LAYOUTS[file.layout].build({}) for file in files_of(generation, "arkit") if file.layout]
        _, *networks = built
        control = (ProjectedControl(*networks) if len(networks) == 2 else networks[0]).to("meta")
        expression = ArkitExpression(torch.empty(2, 51), torch.empty(2, 3, 1024))
        shapes = {site: residual.shape for site, residual in control(torch.empty(2, 3, side, side), expression).items()}
    return {site: 0.1 * torch.randn(shape, device=device, dtype=dtype) for site, shape in shapes.items()}
