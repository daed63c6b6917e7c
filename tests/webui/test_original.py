"""x1 and x2 in a webui, with classes as A1111 has them, against the embedded host's networks."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lib_hellomeme.errors import HostError, MissingFileError
from lib_hellomeme.settings import Settings
from lib_hellomeme.standalone.checkpoint import StableDiffusion, load_checkpoint
from lib_hellomeme.standalone.drawing import encode_picture
from lib_hellomeme.standalone.prompts import chunk_tokens, encode_prompt, tokenize
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.port import Call, Port
from lib_hellomeme.webui import a1111, original
from tests.goldens_format import seeded
from tests.random_weights import write_checkpoint
from tests.tiny import ldm_unet, uncond_cond

PROMPTS = {"cond": ["a woman, smiling"], "uncond": ["a man"]}
LONG = "a woman, " * 40


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("original") / "original.safetensors", seed=7)


@pytest.fixture(scope="module")
def theirs(file: Path) -> StableDiffusion:
    return load_checkpoint(file)


class Embeddings(nn.Module):
    """Where the webuis add textual inversion."""

    def __init__(self, wrapped: nn.Module) -> None:
        super().__init__()
        self.wrapped = wrapped

    def forward(self, tokens: Tensor) -> Tensor:
        return self.wrapped(tokens)


class Embedder(nn.Module):
    """A1111's cond_stage_model: prompts to (n, tokens, width)."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        embeddings = transformer.text_model.embeddings
        embeddings.token_embedding = Embeddings(embeddings.token_embedding)
        self.wrapped: Any = nn.Module()
        self.wrapped.transformer = transformer

    def forward(self, texts: Sequence[str]) -> Tensor:
        chunks = [torch.tensor(chunk_tokens(tokenize(text))) for text in texts]
        return torch.stack([self.wrapped.transformer(one).last_hidden_state.flatten(0, 1) for one in chunks])


class FirstStage(nn.Module):
    def __init__(self) -> None:
        from ldm.modules.diffusionmodules.model import Encoder

        super().__init__()
        self.encoder = Encoder(
            ch=32,
            out_ch=3,
            ch_mult=(1, 2, 4, 4),
            num_res_blocks=2,
            attn_resolutions=[],
            in_channels=3,
            resolution=64,
            z_channels=4,
            double_z=True,
        )
        self.quant_conv = nn.Conv2d(8, 8, 1)


@dataclass
class Scheduled:
    end_at_step: int
    cond: Tensor


class Parser(ModuleType):
    """A prompt in two halves: the second from the half of the steps on, as [first:second:0.5]."""

    @staticmethod
    def get_learned_conditioning(model: Any, prompts: list[str], steps: int, *_: Any) -> list[list[Scheduled]]:
        halves = [[text, text.upper() + " again"] for text in prompts]
        conds = [model.get_learned_conditioning(texts) for texts in halves]
        return [[Scheduled(steps // 2, cond[0]), Scheduled(steps, cond[1])] for cond in conds]

    @classmethod
    def get_multicond_learned_conditioning(cls, model: Any, prompts: list[str], steps: int, *_: Any) -> Any:
        schedules = cls.get_learned_conditioning(model, prompts, steps)
        return SimpleNamespace(batch=[[SimpleNamespace(schedules=schedule)] for schedule in schedules])


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch, file: Path) -> Any:
    fake: Any = ModuleType("modules")
    fake.devices = SimpleNamespace(autocast=nullcontext, device=torch.device("cpu"), dtype_unet=torch.float32)
    fake.prompt_parser = Parser("modules.prompt_parser")
    fake.sd_samplers = SimpleNamespace(
        find_sampler_config=lambda name: SimpleNamespace(total_steps=lambda steps: steps)
    )
    options = SimpleNamespace(use_old_scheduling=False, upcast_attn=False)
    fake.shared = SimpleNamespace(opts=options, loaded_hypernetworks=[])
    known = SimpleNamespace(filename=str(file))
    fake.sd_models = SimpleNamespace(checkpoint_aliases={"original.safetensors": known})
    monkeypatch.setitem(sys.modules, "modules", fake)
    return fake


@pytest.fixture
def p(modules: Any, weights: Any) -> Any:
    """A generation with a checkpoint of A1111's classes."""
    own = load_checkpoint(weights)
    sd_model: Any = SimpleNamespace(
        cond_stage_model=Embedder(own.text_encoder),
        first_stage_model=FirstStage(),
        model=SimpleNamespace(diffusion_model=ldm_unet()),
    )
    return SimpleNamespace(
        sd_model=sd_model,
        scripts=SimpleNamespace(alwayson_scripts=[]),
        prompts=PROMPTS["cond"],
        negative_prompts=PROMPTS["uncond"],
        firstpass_steps=4,
        steps=4,
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "own.safetensors")


def conds_of(model: Any, p: Any) -> original.Conds:
    """By the webui itself."""
    shim = SimpleNamespace(get_learned_conditioning=model)
    cond = Parser.get_multicond_learned_conditioning(shim, p.prompts, p.firstpass_steps)
    return cond, Parser.get_learned_conditioning(shim, p.negative_prompts, p.firstpass_steps)


@torch.inference_mode()
def look(p: Any, mode: str, conds: original.Conds | None = None) -> original.Look:
    settings = Settings.from_mapping({"reference_pass": mode, "original": "original.safetensors"})
    return original.look_of(p, a1111, settings, conds or conds_of(p.sd_model.cond_stage_model, p))  # type: ignore[arg-type]


@torch.inference_mode()
def test_x1_looks_with_the_files_networks(p: Any, theirs: StableDiffusion) -> None:
    seen = look(p, "x1")
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    torch.testing.assert_close(seen.encode(picture), encode_picture(theirs.vae, picture), rtol=1e-4, atol=1e-5)

    call = Call(seeded("x", (2, 4, 16, 16)), torch.tensor([0, 0]), seeded("c", (2, 77, 64)), uncond_cond())
    assert seen.source.unet is not None
    with seen.source.unet() as port:
        torch.testing.assert_close(port.run(call), DiffusersPort(theirs.unet).run(call), rtol=1e-4, atol=1e-4)

    assert seen.source.context is None
    assert seen.conds is not None
    shown = list(original._tensors(seen.conds))
    texts = [half for [text] in PROMPTS.values() for half in (text, text.upper() + " again")]
    for cond, text in zip(shown, texts, strict=True):
        torch.testing.assert_close(cond, encode_prompt(theirs.text_encoder, text)[0], rtol=1e-4, atol=1e-5)


def test_x1_gives_the_sampler_its_prompts(p: Any) -> None:
    seen = look(p, "x1")
    given = {"cond": "own", "uncond": "own", "s_min_uncond": 0}
    sampler = SimpleNamespace(sampler_extra_args=given)
    seen.give_prompts(sampler)
    assert seen.conds is not None
    assert sampler.sampler_extra_args == {"cond": seen.conds[0], "uncond": seen.conds[1], "s_min_uncond": 0}
    assert given["cond"] == "own"
    sampler.sampler_extra_args = {"cond": "own", "uncond": None}  # Forge at CFG 1
    seen.give_prompts(sampler)
    assert sampler.sampler_extra_args["uncond"] is None


def test_the_other_unet_is_let_go_at_once(p: Any) -> None:
    load = look(p, "x1").source.unet
    assert load is not None

    def use(load: Callable[[], AbstractContextManager[Port]]) -> weakref.ref[Any]:
        with load() as port:
            return weakref.ref(port.unet)  # type: ignore[attr-defined]

    gc.disable()
    try:
        assert use(load)() is None
    finally:
        gc.enable()


@torch.inference_mode()
def test_x2_reads_the_prompts_by_the_files_text_encoder(p: Any, theirs: StableDiffusion) -> None:
    p.prompts = [LONG]
    conds = conds_of(p.sd_model.cond_stage_model, p)
    seen = look(p, "x2", conds)
    assert (seen.source.unet, seen.conds) == (None, None)
    assert seen.source.context is not None
    own = p.sd_model.cond_stage_model
    short, long = own(PROMPTS["uncond"])[0], own([LONG])[0]
    assert len(long) == 2 * len(short)
    sample, timestep = torch.zeros(2, 4, 8, 8), torch.zeros(2)
    for filling in (short, own([""])[0]):  # Forge repeats the shorter row, A1111 fills it with an empty prompt
        context = torch.stack([torch.cat([short, filling]), long])
        read = seen.source.context(Call(sample, timestep, context, uncond_cond()))
        for row, text in zip(read, (PROMPTS["uncond"][0], LONG), strict=True):
            expected = encode_prompt(theirs.text_encoder, text)[0]
            torch.testing.assert_close(row[: len(expected)], expected, rtol=1e-4, atol=1e-5)
            assert torch.equal(row[len(expected) :], row[: len(row) - len(expected)])
    with pytest.raises(HostError, match="Another extension changes the prompts"):
        seen.source.context(Call(sample, timestep, torch.ones(2, 77, 64), uncond_cond()))


def test_x2_at_cfg_1_in_forge(p: Any) -> None:
    conds = conds_of(p.sd_model.cond_stage_model, p)
    assert look(p, "x2", (conds[0], None)).source.context is not None


def test_the_second_pass_of_hires_fix_has_its_prompts(p: Any) -> None:
    p.is_hr_pass, p.hr_prompts, p.hr_negative_prompts = True, ["a cat"], ["a dog"]
    p.hr_sampler_name, p.sampler_name, p.hr_second_pass_steps = None, "Euler", 0
    first, second = (look(p, "x1").conds for p.hr_prompts in (["a cat"], ["a mouse"]))
    assert first is not None
    assert second is not None
    assert not torch.equal(original._tensors(first)[0], original._tensors(second)[0])
    assert torch.equal(original._tensors(first)[-1], original._tensors(second)[-1])


def test_the_checkpoint_by_itself_needs_nothing() -> None:
    assert original.find_original(Settings()) is None


def test_files_are_found_by_name(modules: Any, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original, "folder", lambda: tmp_path)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "mine.ckpt").touch()

    def found(name: str) -> Path | None:
        return original.find_original(Settings.from_mapping({"reference_pass": "x1", "original": name}))

    assert found("original.safetensors") == file
    assert found("mine") == found("mine.ckpt") == tmp_path / "below" / "mine.ckpt"
    with pytest.raises(MissingFileError, match="no below among the webui's checkpoints"):
        found("below")
    with pytest.raises(MissingFileError, match="no /etc/passwd"):
        found("/etc/passwd")
    with pytest.raises(MissingFileError, match="name one of the webui's checkpoints"):
        found("")
