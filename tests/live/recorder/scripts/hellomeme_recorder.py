"""A small extension for tests in a real webui: it keeps the first UNet call that HelloMeme acts in.

Link the folder `tests/live/recorder` into the webui's extensions and start it with HELLOMEME_RECORD=FILE.safetensors.
`python -m tests.live.replay` then computes the same call through diffusers' UNet.
"""

import os

import torch
from modules import script_callbacks
from safetensors.torch import save_file

FILE = os.environ.get("HELLOMEME_RECORD", "")


def start(*_):
    from lib_hellomeme.recipes import hellomeme

    kept: dict[str, torch.Tensor] = {}
    original_record, original_begin = hellomeme.record, hellomeme.Reenactment.begin

    def record(site, bank):
        tap = original_record(site, bank)

        def keep(hidden, call):
            kept[f"bank/{site}"] = hidden.clone()
            return tap.function(hidden, call)

        return hellomeme.Tap(site, keep, tap.skip)

    def begin(self, call):
        original_begin(self, call)
        if os.path.exists(FILE) or not any(name.startswith("bank/") for name in kept):
            return
        kept["uncond"] = torch.tensor(call.rows.uncond)
        kept.update(sample=call.sample, timestep=call.timestep, context=call.context, reference=self.reference)
        for name, control in (("control", self.control), ("write_control", self.write_control)):
            kept.update({f"{name}/{site}": features for site, features in control.items()})

        def finish(module, args, output):
            handle.remove()
            kept["output"] = output
            save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in kept.items()}, FILE)

        handle = self.port.unet.register_forward_hook(finish)

    hellomeme.record, hellomeme.Reenactment.begin = record, begin


if FILE:
    script_callbacks.on_app_started(start)
