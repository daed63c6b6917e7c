"""A small extension for measurements in a real A1111, beside sd-webui-controlnet. Link the folder
`tests/live/instruments` into the webui's extensions. It adds two addresses:

GET  /hellomeme/unet_seconds      what each UNet call took since the last time this was asked, write passes included: by
                                  the clock, and of the processor
POST /hellomeme/same_noise/{on}   1: ControlNet and HelloMeme give references the same noise, and encode them to the
                                  mean of the VAE's posterior; 0: each its own, as ever
"""

import sys
import time
from contextlib import ExitStack
from unittest import mock

import torch
from modules import script_callbacks

seconds: list[tuple[float, float]] = []
replaced = ExitStack()
last = {"timestep": None, "unit": 0}


def watch(model):
    """Time every call of a model's UNet, with everybody's hooks: the module about it does nothing else."""
    about, began = model.model, []

    def finish(*_):
        clock, processor = began.pop()
        seconds.append((time.perf_counter() - clock, time.process_time() - processor))

    about.register_forward_pre_hook(lambda *_: began.append((time.perf_counter(), time.process_time())))
    about.register_forward_hook(finish)


def asked_seconds():
    given = list(seconds)
    seconds.clear()
    return given


def noise(shape, timestep, unit, uncond):
    from lib_hellomeme.sampling.noising import seeded_noise

    return seeded_noise(shape, "the same", round(float(timestep), 3), unit, bool(uncond))


def same_noise(on: int):
    from ldm.modules.distributions.distributions import DiagonalGaussianDistribution

    from lib_hellomeme.recipes import reference

    replaced.close()
    last.update(timestep=None, unit=0)
    if not on:
        return "noise as ever"
    hook = sys.modules["scripts.hook"]
    own = hook.predict_q_sample

    def predict_q_sample(ldm, x_start, t, noise_given=None):
        """ControlNet's; it asks once for each unit in a UNet call, with the rows [cond, uncond]."""
        last["unit"] = last["unit"] + 1 if last["timestep"] == float(t[0]) else 0
        last["timestep"] = float(t[0])
        rows = [noise(x_start[:1].shape, t[0], last["unit"], row) for row in range(len(x_start))]
        return own(ldm, x_start, t, torch.cat(rows).to(x_start))

    def noise_of(unit, place, seeds):
        return lambda call, row: noise(unit.latents.shape, call.timestep[row].round(), place, call.rows.uncond[row])

    replaced.enter_context(mock.patch.object(hook, "predict_q_sample", predict_q_sample))
    replaced.enter_context(mock.patch.object(reference, "_noise_of", noise_of))
    mode = DiagonalGaussianDistribution.mode
    replaced.enter_context(mock.patch.object(DiagonalGaussianDistribution, "sample", mode))
    return "the same noise"


def start(_, app):
    app.add_api_route("/hellomeme/unet_seconds", asked_seconds, methods=["GET"])
    app.add_api_route("/hellomeme/same_noise/{on}", same_noise, methods=["POST"])


script_callbacks.on_app_started(start)
script_callbacks.on_model_loaded(watch)
