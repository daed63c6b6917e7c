from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lib_hellomeme.errors import SettingsError
from lib_hellomeme.standalone.checkpoint import StableDiffusion
from lib_hellomeme.standalone.drawing import Drawing, Guidance, decode_latents, draw, encode_picture
from lib_hellomeme.standalone.prompts import encode_prompt
from lib_hellomeme.standalone.samplers import SAMPLERS, timestep_of, uniform_sigmas
from tests.goldens_format import seeded

SMALL = Drawing("a woman", "a man", steps=3, cfg=4.0, seed=7, width=64, height=96)


def changed(**wishes) -> Drawing:
    return Drawing(**{**vars(SMALL), **wishes})


@torch.inference_mode()
def drawn_plainly(model: StableDiffusion, drawing: Drawing) -> np.ndarray:
    """Euler's method written out, a row at a time."""
    uncond, cond = (encode_prompt(model.text_encoder, text) for text in (drawing.negative_prompt, drawing.prompt))
    torch.manual_seed(drawing.seed)
    sigmas = uniform_sigmas(drawing.steps)
    x = torch.randn(4, drawing.height // 8, drawing.width // 8)[None] * sigmas[0]

    def noise_in(x: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        return model.unet(x / (sigma**2 + 1) ** 0.5, timestep_of(sigma), encoder_hidden_states=context).sample

    for step in range(drawing.steps):
        without, towards = (noise_in(x, sigmas[step], context) for context in (uncond, cond))
        x = x + (without + drawing.cfg * (towards - without)) * (sigmas[step + 1] - sigmas[step])
    return decode_latents(model.vae, x)


def test_a_picture_is_what_euler_makes_of_the_seed(host):
    picture = draw(host.model, SMALL, progress=False)
    assert picture.shape == (96, 64, 3)
    assert picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - drawn_plainly(host.model, SMALL)).max() <= 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_same_seed_same_picture(host, sampler):
    first, again = (draw(host.model, changed(sampler=sampler), progress=False) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize(
    "wish",
    [
        {"seed": 8},
        {"prompt": "a dog"},
        {"negative_prompt": ""},
        {"steps": 4},
        {"cfg": 5.0},
        {"sampler": "Euler a"},
        {"sampler": "DPM++ 2M"},
        {"sampler": "DDIM"},
        {"prompt": "a woman " * 50},
    ],
)
def test_every_wish_changes_the_picture(host, wish):
    assert not np.array_equal(
        draw(host.model, SMALL, progress=False), draw(host.model, changed(**wish), progress=False)
    )


def test_at_scale_one_the_negative_prompt_means_nothing(host):
    pictures = [draw(host.model, changed(cfg=1.0, negative_prompt=text), progress=False) for text in ("", "a man")]
    assert np.array_equal(pictures[0], pictures[1])


@torch.inference_mode()
def test_prompts_of_different_length_are_two_calls(host):
    x, timestep = seeded("x", (1, 4, 8, 8)), torch.tensor(500.0)
    short, long = (encode_prompt(host.model.text_encoder, text) for text in ("a man", "a woman " * 50))
    calls = []
    handle = host.model.unet.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append((args[0].shape[0], kwargs["encoder_hidden_states"].shape[1])),
        with_kwargs=True,
    )
    try:
        guidance = Guidance(host.model.unet, short, long, 3.0, steps=4)
        got = guidance(x, timestep)
        same = Guidance(host.model.unet, short, short, 3.0, steps=4)(x, timestep)
    finally:
        handle.remove()
    assert calls == [(1, 77), (1, 154), (2, 77)]
    alone = [host.model.unet(x, timestep, encoder_hidden_states=context).sample for context in (short, long)]
    torch.testing.assert_close(got, alone[0] + 3.0 * (alone[1] - alone[0]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(same, alone[0], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_guidance_says_which_rows_it_runs(host):
    described = []

    class Unet(torch.nn.Module):
        dtype = torch.float32

        def forward(self, x: Tensor, timestep: Tensor, **options) -> tuple[Tensor]:
            described.append(guidance.describe(x, timestep, options["encoder_hidden_states"], {}))
            return (x,)

    context = torch.zeros(1, 77, 8)
    for uncond, scale in ((context, 2.0), (context, 1.0), (torch.zeros(1, 154, 8), 2.0)):
        guidance = Guidance(Unet(), uncond, context, scale, steps=4)
        guidance(torch.zeros(1, 4, 8, 8), torch.tensor(0.0))
    assert [call.rows.uncond for call in described] == [(True, False), (False,), (True,), (False,)]
    guidance(torch.zeros(1, 4, 8, 8), torch.tensor(0.0))
    assert described[-1].progress == 0.25


def test_encoding_is_the_posteriors_mean(host):
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    latents = encode_picture(host.model.vae, picture)
    assert latents.shape == (1, 4, 8, 12)
    assert torch.equal(latents, encode_picture(host.model.vae, picture))
    with torch.inference_mode():
        shares = torch.from_numpy(picture.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        moments = host.model.vae.quant_conv(host.model.vae.encoder(shares))
    torch.testing.assert_close(latents, moments[:, :4] * 0.18215, atol=1e-5, rtol=1e-4)


def test_decoding_cuts_off():
    class Vae:
        dtype = torch.float32

        def decode(self, latents: Tensor):
            assert torch.equal(latents * 0.18215, torch.zeros(1, 4, 1, 1))
            values = torch.tensor([-1.5, -1.0, 0.0, 0.999, 1.0, 1.5]).expand(3, 1, 6)[None]
            return type("Decoded", (), {"sample": values})

    assert decode_latents(Vae(), torch.zeros(1, 4, 1, 1))[0, :, 0].tolist() == [0, 0, 127, 254, 255, 255]


@pytest.mark.parametrize(
    ("wish", "word"),
    [
        ({"steps": 0}, "Steps"),
        ({"cfg": 0.5}, "CFG"),
        ({"seed": -1}, "Seed"),
        ({"sampler": "LMS"}, "sampler"),
        ({"width": 500}, "500x96"),
        ({"height": 0}, "64x0"),
        ({"width": 8192}, "8192x96"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(wish, word):
    with pytest.raises(SettingsError, match=word):
        changed(**wish)
