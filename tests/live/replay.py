"""One UNet call recorded in a webui (tests/live/recorder), computed again through diffusers' UNet.

    python -m tests.live.replay RECORD.safetensors --checkpoint FILE --models DIR

prints, for the bank of the write pass and for the call's output, the largest difference and how it stands to the
tolerance of the golden values, 1e-4 + 1e-3 * |value|. Exits with 1 where it is exceeded.
"""

from __future__ import annotations

import argparse
import sys

import torch
from safetensors.torch import load_file
from torch import Tensor

from lib_hellomeme.checkpoints.load import placed
from lib_hellomeme.recipes import hellomeme
from lib_hellomeme.recipes.reenact import load_networks
from lib_hellomeme.standalone.checkpoint import load_checkpoint
from lib_hellomeme.taps.bank import record
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.port import Call, Rows, Tap


@torch.inference_mode()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--generation", default="v5c")
    chosen = parser.parse_args()
    recorded = load_file(chosen.recording)
    port = DiffusersPort(load_checkpoint(chosen.checkpoint, torch.device("cpu"), torch.float32).unet)
    adapter = load_networks(chosen.generation, chosen.models).reference
    layers = placed(adapter, port.device, port.dtype).sites()
    rows = Rows(tuple(recorded["uncond"].tolist()))
    call = Call(recorded["sample"], recorded["timestep"], recorded["context"], rows)
    control, write_control = part(recorded, "control"), part(recorded, "write_control")
    reenactment = hellomeme.Reenactment(port, layers, recorded["reference"], control, write_control or None)

    written: dict[str, Tensor] = {}
    hellomeme.record = lambda site, bank: both(record(site, written), record(site, bank))
    plain = port.unet(call.sample, call.timestep, call.context, return_dict=False)[0]
    with port.attach(reenactment.taps(), lambda *_: call, reenactment.begin):
        output = port.unet(call.sample, call.timestep, call.context, return_dict=False)[0]
    print(f"rows {['uncond' if uncond else 'cond' for uncond in rows.uncond]}, sample {list(call.sample.shape)}")
    print(f"the networks change the output by up to {(output - plain).abs().max():.3g}")
    agree = [compare(f"bank at {site}", written[site], there) for site, there in part(recorded, "bank").items()]
    return 0 if all([*agree, compare("output", output, recorded["output"])]) else 1


def part(recorded: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.split("/")[1]: tensor for key, tensor in recorded.items() if key.startswith(f"{name}/")}


def both(first: Tap, second: Tap) -> Tap:
    return Tap(first.site, lambda hidden, call: second.function(first.function(hidden, call), call), first.skip)


def compare(name: str, ours: Tensor, theirs: Tensor) -> bool:
    difference = (ours - theirs.float()).abs()
    share = float((difference / (1e-4 + 1e-3 * theirs.float().abs())).max())
    print(f"{name}: largest difference {difference.max():.3g}, {share:.3f} of the tolerance")
    return share <= 1


if __name__ == "__main__":
    sys.exit(main())
