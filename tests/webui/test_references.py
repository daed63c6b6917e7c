"""The hooks of reference units, with a diffusers UNet in the place of a webui's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lib_hellomeme.errors import HostError
from lib_hellomeme.recipes.hellomeme import Reenactment
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.port import Call, Rows
from lib_hellomeme.webui import references
from lib_hellomeme.webui.host import taps_attached, within_sampling
from lib_hellomeme.webui.reference_settings import ReferenceSettings, Request, is_unit_key
from tests.tiny import CONTEXT_WIDTH, diffusers_unet
from tests.webui.test_run import Processing, Sampler, hooks, listeners  # noqa: F401

PHOTO = np.random.default_rng(0).integers(0, 255, (40, 24, 3), dtype=np.uint8)
NOTE = "HelloMeme references note"


class Host:
    """Rows [cond..., uncond...]; the VAE takes every 8th px."""

    def __init__(self, port: DiffusersPort) -> None:
        self.own_port, self.encoded = port, []
        self.refusal: HostError | None = None

    def check(self, p: Any) -> None: ...

    def refuse_references(self, p: Any) -> None:
        if self.refusal:
            raise self.refusal

    def port(self, p: Any) -> DiffusersPort:
        return self.own_port

    def reserve(self, p: Any, size: int) -> None:
        self.reserved = size

    def alphas_cumprod(self, p: Any) -> Tensor:
        return torch.linspace(0.999, 0.005, 1000)

    def empty_prompt(self, p: Any) -> Tensor:
        return torch.zeros(1, 7, CONTEXT_WIDTH)

    def encode(self, p: Any, picture: np.ndarray) -> Tensor:
        self.encoded.append(picture)
        small = torch.from_numpy(picture[::8, ::8]).permute(2, 0, 1)[None].float() / 127.5 - 1
        return torch.cat([small, small[:, :1]], dim=1)

    def describe(self, step: Any, sample: Tensor, timestep: Tensor, context: Tensor, options: Any) -> Call:
        pictures = len(sample) // 2
        rows = Rows((False,) * pictures + (True,) * pictures, picture=tuple(range(pictures)) * 2)
        return Call(sample, timestep, context, rows)


@pytest.fixture(scope="module")
def port() -> DiffusersPort:
    return DiffusersPort(diffusers_unet())


@pytest.fixture
def host(port: DiffusersPort, monkeypatch: pytest.MonkeyPatch) -> Host:
    found = Host(port)
    monkeypatch.setattr(references, "host_of", lambda p: found)
    return found


def asked(*units: Any, seeds: tuple[int, ...] = (5,)) -> Any:
    p: Any = Processing()
    p.seeds, p.sampler = list(seeds), Sampler()
    references.prepare(p, units)
    return p


def unit(**wishes: Any) -> dict[str, Any]:
    from tests.webui.test_reference_settings import encoded

    return {"picture": encoded(PHOTO), **wishes}


def latents(seeds: tuple[int, ...] = (5,), height: int = 16) -> Tensor:
    return torch.cat([torch.randn(1, 4, height, 16, generator=torch.Generator().manual_seed(s)) for s in seeds])


def step(port: DiffusersPort, sample: Tensor) -> Tensor:
    n = len(sample)
    words = torch.randn(2, 7, CONTEXT_WIDTH, generator=torch.Generator().manual_seed(1)).repeat_interleave(n, 0)
    with torch.inference_mode():
        return port.unet(sample.repeat(2, 1, 1, 1), torch.tensor(500), words, return_dict=False)[0]


def drawn(p: Any, port: DiffusersPort, sample: Tensor) -> Tensor:
    references.prepare_sampling(p, sample)
    return p.sampler.launch_sampling(1, lambda: step(port, sample))


def test_units_act_while_sampling_and_leave_nothing(listeners: list, host: Host, port: DiffusersPort) -> None:  # noqa: F811
    plain = step(port, latents())
    p = asked(unit(kind="reference_adain+attn", weight=0.5))
    assert not torch.equal(drawn(p, port, latents()), plain)
    assert p.extra_generation_params == {
        "Other": 1,
        "Reference unit 1 enable": True,
        "Reference unit 1 kind": "reference_adain+attn",
        "Reference unit 1 weight": 0.5,
    }
    assert torch.equal(step(port, latents()), plain)
    assert hooks(port.unet) == 0
    assert listeners == []


def test_an_interrupt_leaves_nothing(listeners: list, host: Host, port: DiffusersPort) -> None:  # noqa: F811
    plain, p = step(port, latents()), asked(unit())
    references.prepare_sampling(p, latents())

    def interrupted() -> None:
        step(port, latents())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        p.sampler.launch_sampling(1, interrupted)
    assert torch.equal(step(port, latents()), plain)
    assert hooks(port.unet) == 0
    assert listeners == []


@pytest.mark.parametrize("writing", ["compatible", "one row", "once"])
def test_a_picture_does_not_depend_on_its_batch(listeners: list, host: Host, port: DiffusersPort, writing: str) -> None:  # noqa: F811
    both = drawn(asked(unit(writing=writing), seeds=(7, 8)), port, latents((7, 8)))
    alone = drawn(asked(unit(writing=writing), seeds=(8,)), port, latents((8,)))
    torch.testing.assert_close(both[[1, 3]], alone, atol=2e-5, rtol=1e-4)


def test_a_hires_pass_has_references_of_its_own_size(listeners: list, host: Host, port: DiffusersPort) -> None:  # noqa: F811
    p = asked(unit())
    drawn(p, port, latents())
    p.sampler = Sampler()
    references.prepare_sampling(p, latents(height=24))
    references.prepare_sampling(p, latents(height=24))  # Forge asks twice
    p.sampler.launch_sampling(1, lambda: step(port, latents(height=24)))
    assert [picture.shape for picture in host.encoded] == [(128, 128, 3), (192, 128, 3)]
    assert "note" not in str(p.extra_generation_params)


def test_masks_are_brought_to_where_the_picture_is() -> None:
    look = np.zeros((20, 12), np.uint8)
    look[10:, :] = 255
    apply = np.full((5, 5), 255, np.uint8)
    request = Request(1, ReferenceSettings(enabled=True), PHOTO, look, apply)
    made = references.unit_of(None, Host(None), request, 64, 64)  # type: ignore[arg-type]
    assert made.look is not None
    assert made.apply is not None
    assert made.look.shape == (1, 1, 64, 64)  # of a 24 x 40 px picture the middle 24 x 24
    assert torch.equal(made.look[0, 0, :, 0] > 0.5, torch.arange(64) >= 32)
    assert made.apply.shape == (1, 1, 5, 5)
    assert float(made.apply.min()) == 1.0


def test_what_cannot_be_is_one_line_and_the_webui_goes_on(listeners: list, host: Host, port: DiffusersPort) -> None:  # noqa: F811
    plain = step(port, latents())
    for p in (asked(unit(), {"picture": ""}), asked(unit(kind="nothing"))):
        assert torch.equal(drawn(p, port, latents()), plain)
        assert p.extra_generation_params[NOTE].startswith("not used. Reference unit ")
        assert not any(is_unit_key(key) for key in p.extra_generation_params)
    host.refusal = HostError("Not both.")
    p = asked(unit())
    assert torch.equal(drawn(p, port, latents()), plain)
    assert p.extra_generation_params == {"Other": 1, NOTE: "not used. Not both."}


def test_what_an_earlier_cell_said_is_forgotten() -> None:
    p: Any = Processing()
    kept = {"Other": 1, "Reference unit x": 2, "Reference unit 1 height": 3}
    p.extra_generation_params = {**kept, NOTE: "old", "Reference unit 12 weight": 0.5}
    references.prepare(p, [False])
    assert p.extra_generation_params == kept


def test_hellomeme_and_references_do_not_see_each_other_write(listeners: list, host: Host, port: DiffusersPort) -> None:  # noqa: F811
    """Both in one sampling: each one's write pass is the bare UNet's, as if it were alone, and both act."""
    prepared: list[Tensor] = []

    class Layer:
        def prepare(self, bank: Tensor) -> Any:
            prepared.append(bank)
            return SimpleNamespace(rows=lambda chosen: bank[chosen])

        def read(self, hidden: Tensor, bank: Any) -> Tensor:
            return torch.ones_like(hidden)

    def sampled(with_references: bool) -> tuple[Tensor, Tensor]:
        p = asked(unit(kind="reference_adain+attn", enabled=with_references))
        reenactment = Reenactment(port, {"mid": Layer()}, latents((3,)), {}, None)
        taps = lambda: taps_attached(p, host, reenactment, lambda error: pytest.fail(str(error)))  # type: ignore[arg-type]  # noqa: E731
        within_sampling(p.sampler, "HelloMeme", taps, mark=1)
        return drawn(p, port, latents()), prepared[-1]

    (alone, bank_alone), (both, bank) = sampled(False), sampled(True)
    torch.testing.assert_close(bank, bank_alone)
    assert not torch.allclose(both, alone, atol=1e-3)

    wrote: list[Tensor] = []
    own = port.run

    def run(call: Call, taps: Any = ()) -> Tensor:
        wrote.append(own(call))  # without recording taps: all of the pass
        return own(call, taps)

    port.run, port.room = run, lambda call: 0  # type: ignore[method-assign]
    try:
        torch.testing.assert_close(sampled(True)[0], both)
        beside = wrote[-2:] if len(wrote) > 1 else wrote
        wrote.clear()
        drawn(asked(unit(kind="reference_adain+attn")), port, latents())
    finally:
        port.run = own  # type: ignore[method-assign]
        del port.room
    assert any(torch.equal(each, wrote[0]) for each in beside)
