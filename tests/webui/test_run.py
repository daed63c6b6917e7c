"""The hooks, with a diffusers UNet in the place of a webui's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lib_hellomeme.errors import FaceError, HostError
from lib_hellomeme.settings import OPTION_FIELDS, Settings, infotext_key
from lib_hellomeme.taps.residual import add_residual
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.port import Call, Rows
from lib_hellomeme.webui import run
from lib_hellomeme.webui.host import ORDER, marked, within_sampling
from lib_hellomeme.webui.original import Look
from tests.tiny import CONTEXT_WIDTH, diffusers_unet

OWN_LOOK = Look(lambda picture: torch.zeros(1, 4, 8, 8))
NETWORKS = SimpleNamespace(reference=nn.Identity(), encoder=None)


class Processing:
    """What the hooks touch of a webui's StableDiffusionProcessing."""

    def __init__(self) -> None:
        self.extra_generation_params: dict[str, Any] = {"Other": 1}
        self.comments: list[str] = []
        self.scripts = SimpleNamespace(process_before_every_sampling=None)
        self.sampler: Any = None

    def comment(self, text: str) -> None:
        self.comments.append(text)


@pytest.fixture(autouse=True)
def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that lacks nothing."""
    monkeypatch.setattr(run, "check_complete", lambda generation: None)


@pytest.fixture
def listeners(monkeypatch: pytest.MonkeyPatch) -> list[Callable]:
    """The functions that listen to CFGDenoiser."""
    found: list[Callable] = []
    callbacks: Any = ModuleType("modules.script_callbacks")
    callbacks.on_cfg_denoiser, callbacks.remove_callbacks_for_function = found.append, found.remove
    modules: Any = ModuleType("modules")
    modules.script_callbacks = callbacks
    monkeypatch.setitem(sys.modules, "modules", modules)
    return found


@pytest.fixture(scope="module")
def port() -> DiffusersPort:
    return DiffusersPort(diffusers_unet())


class Host:
    """A host whose every row is cond."""

    def __init__(self, port: DiffusersPort) -> None:
        self.own_port = port

    def port(self, p: Any) -> DiffusersPort:
        return self.own_port

    def describe(self, step: Any, sample: Tensor, timestep: Tensor, context: Tensor, options: Any) -> Call:
        return Call(sample, timestep, context, Rows((False,) * len(sample)))


class Brighter:
    """Taps that change what the UNet draws; `begin` fails in the call of this number."""

    def __init__(self, failing: int | None = None, error: Exception | None = None) -> None:
        self.calls, self.failing, self.error = 0, failing, error

    def taps(self) -> list[Any]:
        return [add_residual("mid", lambda call: torch.ones(1, 1, 1, 1))]

    def begin(self, call: Call) -> None:
        self.calls += 1
        if self.calls == self.failing and self.error is not None:
            raise self.error


def draw(port: DiffusersPort) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    sample, context = (torch.randn(shape, generator=generator) for shape in ((1, 4, 16, 16), (1, 7, CONTEXT_WIDTH)))
    with torch.no_grad():
        return port.unet(sample, torch.tensor([10]), context, return_dict=False)[0]


def hooks(unet: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in unet.modules())


def attach(p: Any, port: DiffusersPort, brighter: Brighter) -> Any:
    return run.attached(p, Host(port), brighter, OWN_LOOK)  # type: ignore[arg-type]


def test_taps_act_while_attached_and_leave_nothing(listeners: list, port: DiffusersPort) -> None:
    plain = draw(port)
    with attach(Processing(), port, Brighter()):
        assert not torch.equal(draw(port), plain)
        assert len(listeners) == 1
    assert torch.equal(draw(port), plain)
    assert hooks(port.unet) == 0
    assert listeners == []


def test_an_error_in_the_middle_leaves_nothing(listeners: list, port: DiffusersPort) -> None:
    with pytest.raises(RuntimeError), attach(Processing(), port, Brighter()):
        raise RuntimeError("of somebody else")
    assert hooks(port.unet) == 0
    assert listeners == []


def test_a_refusal_in_the_middle_silences_the_taps_and_says_why(listeners: list, port: DiffusersPort) -> None:
    plain = draw(port)
    p = Processing()
    p.extra_generation_params |= Settings(enabled=True, pose_weight=0.5).to_infotext()
    with attach(p, port, Brighter(failing=2, error=HostError("Switch it off."))):
        assert not torch.equal(draw(port), plain)
        assert torch.equal(draw(port), plain)
        assert torch.equal(draw(port), plain)
    assert p.extra_generation_params == {"Other": 1, run.NOTE: "let go while drawing. Switch it off."}
    assert p.comments == ["HelloMeme: let go while drawing. Switch it off."]


def test_a_defect_in_the_middle_is_not_hidden(listeners: list, port: DiffusersPort) -> None:
    brighter = Brighter(failing=1, error=ZeroDivisionError())
    with pytest.raises(ZeroDivisionError), attach(Processing(), port, brighter):
        draw(port)
    assert hooks(port.unet) == 0


def test_a_refiner_that_draws_without_us_is_told(listeners: list, port: DiffusersPort) -> None:
    p, host = Processing(), Host(port)
    with run.attached(p, host, Brighter(), OWN_LOOK):  # type: ignore[arg-type]
        host.own_port = DiffusersPort(diffusers_unet())
    assert p.comments == ["HelloMeme: The refiner drew its steps without HelloMeme."]
    assert hooks(port.unet) == 0


class Sampler:
    def launch_sampling(self, steps: int, function: Callable[[], Any]) -> Any:
        return function()


def test_a_sampler_is_wrapped_once_however_often_it_is_asked() -> None:
    entered: list[str] = []
    sampler = Sampler()
    assert marked(sampler, "HelloMeme") is None

    def noting(name: str) -> Callable[[], Any]:
        def context() -> Any:
            entered.append(name)
            return torch.no_grad()

        return context

    within_sampling(sampler, "HelloMeme", noting("first"), mark=1)
    within_sampling(sampler, "HelloMeme", noting("second"), mark=2)
    assert marked(sampler, "HelloMeme") == 2
    assert sampler.launch_sampling(3, lambda: "drawn") == "drawn"
    assert entered == ["second"]


def test_a_sampler_kept_for_several_pictures_is_asked_before_each() -> None:
    entered: list[int] = []
    sampler = Sampler()
    for picture in range(2):
        assert marked(sampler, "HelloMeme") is None

        def context(picture: int = picture) -> Any:
            entered.append(picture)
            return torch.no_grad()

        within_sampling(sampler, "HelloMeme", context, mark=1)
        assert sampler.launch_sampling(3, lambda: "drawn") == "drawn"
    assert sampler.launch_sampling(3, lambda: "drawn without us") == "drawn without us"
    assert entered == [0, 1]


def test_both_scripts_wrap_one_sampler_references_first() -> None:
    entered: list[str] = []
    sampler = Sampler()
    for who in reversed(ORDER):
        within_sampling(sampler, who, lambda who=who: entered.append(who) or torch.no_grad(), mark=who)
    assert [marked(sampler, who) for who in ORDER] == list(ORDER)
    sampler.launch_sampling(3, lambda: None)
    assert tuple(entered) == ORDER


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(HostError, match="This webui is not supported"):
        marked(object(), "HelloMeme")


def test_nothing_is_done_while_it_is_off() -> None:
    p = Processing()
    run.prepare(p, [False])
    run.prepare_sampling(p, torch.zeros(1, 4, 8, 8), (None, None))
    assert p.extra_generation_params == {"Other": 1}
    assert p.comments == []


def test_a_missing_picture_is_told_and_the_webui_goes_on() -> None:
    p = Processing()
    run.prepare(p, [True])
    run.prepare_sampling(p, torch.zeros(1, 4, 8, 8), (None, None))
    assert p.extra_generation_params[run.NOTE].startswith("not used. Reference: there is no picture")
    assert not any(infotext_key(name) in p.extra_generation_params for name in OPTION_FIELDS)


def test_what_an_earlier_cell_said_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(request: Any) -> Any:
        raise FaceError("No face.")

    monkeypatch.setattr(run, "read_pictures", fail)
    p = Processing()
    shared = p.extra_generation_params = {"Other": 1, run.NOTE: "old", infotext_key("pose_weight"): 0.5}
    run.prepare(p, [True])
    assert p.extra_generation_params == {"Other": 1, run.NOTE: "not used. No face."}
    assert run.NOTE in shared  # a cell's parameters begin as the plot's own


def test_a_run_says_its_settings_and_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    portrait = SimpleNamespace(warnings=["Reference: 2 faces."])
    monkeypatch.setattr(run, "read_pictures", lambda request: portrait)
    monkeypatch.setattr(run, "networks_of", lambda settings: NETWORKS)
    p: Any = Processing()
    run.prepare(p, [{"pose_weight": 0.5}])
    assert p.hellomeme.settings == Settings(enabled=True, pose_weight=0.5)
    assert p.comments == ["HelloMeme: Reference: 2 faces."]
    assert p.extra_generation_params == {
        "Other": 1,
        infotext_key("enabled"): True,
        infotext_key("pose_weight"): 0.5,
        run.NOTE: "Reference: 2 faces.",
    }


def test_a_webui_without_the_hook_is_told() -> None:
    p = Processing()
    p.scripts = SimpleNamespace()
    run.prepare(p, [{"reference": np.zeros((8, 8, 3), np.uint8)}])
    assert "too old" in p.comments[0]


def test_a_defect_is_told_and_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "read_pictures", lambda request: 1 / 0)
    p = Processing()
    with pytest.raises(ZeroDivisionError):
        run.prepare(p, [True])
    assert "ZeroDivisionError" in p.comments[0]


def test_pictures_of_equal_content_are_equal() -> None:
    picture = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    assert run.Pixels(picture) == run.Pixels(picture.copy())
    assert run.Pixels(picture) != run.Pixels(picture.reshape(5, 4, 3))
    assert run.Pixels(picture) != run.Pixels(picture + 1)
