"""The stages on tiny runs: what they train, what they leave alone, and that users' code loads what they write."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from lib_hellomeme.errors import MissingFileError, SettingsError
from lib_hellomeme.face.condition import condition_input
from lib_hellomeme.face.track import ARKIT_INDEX
from lib_hellomeme.networks.attention import Attention
from lib_hellomeme.networks.positional import stacked_positions
from lib_hellomeme.recipes.hellomeme import Reenactment
from lib_hellomeme.recipes.reenact import load_networks
from lib_hellomeme.standalone import train as command
from lib_hellomeme.standalone.checkpoint import load_checkpoint
from lib_hellomeme.standalone.lora import add_lora
from lib_hellomeme.standalone.prompts import encode_prompt
from lib_hellomeme.standalone.world import LORA, MOTION, NEEDED
from lib_hellomeme.taps.bank import Bank, record
from lib_hellomeme.training import control_base
from lib_hellomeme.training.adapters import (
    BEFORE,
    FACE_WEIGHT,
    Heads,
    control_of,
    face_weight,
    heads_of,
    load_adapters,
)
from lib_hellomeme.training.autoencoder import UNSEEN, load_vae
from lib_hellomeme.training.base import BaseStage
from lib_hellomeme.training.beginnings import ADDED, look_at_same_place
from lib_hellomeme.training.command import STAGES
from lib_hellomeme.training.control import begin_projection
from lib_hellomeme.training.control_base import DRAWINGS, begin_base, draw, maps_of
from lib_hellomeme.training.data import Request
from lib_hellomeme.training.diffusion import STEPS, latents_loss, seeded, velocity, velocity_loss, weighted_mean
from lib_hellomeme.training.faces import face_state, random_face
from lib_hellomeme.training.finish import FinishStage
from lib_hellomeme.training.joint import CONTRAST, PURE, JointStage, pairs_loss
from lib_hellomeme.training.loop import Recipe, Run, mixed_precision
from lib_hellomeme.training.measure import load_measuring_network
from lib_hellomeme.training.models import (
    LATENT_SCALE,
    Adapters,
    new_control,
    new_unet,
    new_vae,
    normalise_latents,
    posterior,
    rebuild,
)
from lib_hellomeme.training.pool import encode, to_tensor
from lib_hellomeme.training.reference import (
    FALL,
    FIRST_TIMESTEP,
    ReferenceStage,
    begin_reference,
    codes_of,
    draw_by,
    new_readouts,
    predict_velocity,
    timesteps_at,
    write_reference,
)
from lib_hellomeme.training.refine import RefineStage
from lib_hellomeme.training.style import LowRank, attach_lora
from lib_hellomeme.unet.diffusers import DiffusersPort
from lib_hellomeme.unet.port import Call, Rows

# Not in the graph: the PD-FGC entrance, which ARKit's coefficients do not take, and a matrix that only sees the zeros
# that stand for face parts.
WITHOUT_GRADIENT = ("control.base.emo_", "control.base.face_pre_proj.linear_1.weight")


def arguments(stage: str, folder: Path, **changes: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    options = {"size": 64, "steps": 2, "batch": 2, "people": 2, "views": 4, "save-every": 1, "device": "cpu"} | changes
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return parser.parse_args([stage, "--out", str(folder), *words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All stages, one after the other, for two steps each."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        for room in ("base", "adapters", "motion"):
            patch.setattr(f"lib_hellomeme.training.{room}.SAMPLING_STEPS", 2)
        for room in ("adapters", "motion"):
            patch.setattr(f"lib_hellomeme.training.{room}.SHOWN", 1)
        patch.setattr("lib_hellomeme.training.autoencoder.SCALED_BY", 4)
        for stage in STAGES:
            command.run(arguments(stage, folder))
        yield folder


def recipe(stage: str, size: int = 64) -> Recipe:
    return Recipe(stage, steps=2, seed=0, size=size, batch=2, people=2, views=4, rate=1e-3)


def work(folder: Path) -> Run:
    return Run(folder, torch.device("cpu"), workers=0, save_every=1, validate_every=100, half=False)


def test_losses_are_finite_and_sheets_are_drawn(folder: Path) -> None:
    for stage in STAGES:
        losses = torch.load(folder / stage / "state.pt", weights_only=True)["losses"]
        assert len(losses) == 2
        assert np.isfinite(losses).all()
        assert (folder / stage / "0000002.png").is_file()
        assert (folder / stage / "loss.png").is_file()


def test_users_code_loads_what_is_exported(folder: Path) -> None:
    model = load_checkpoint(folder / "drawn-people.safetensors")
    assert model.prediction == "v"
    vae = load_vae(folder, torch.device("cpu"))
    pictures = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    torch.testing.assert_close(encode(model.vae, pictures), encode(vae, pictures))
    assert encode_prompt(model.text_encoder, "a woman with red hair").shape == (1, 77, 64)
    networks = load_networks("v5c", folder)
    assert set(networks.reference.sites()) == {f"up.{level}" for level in range(4)}
    weight = model.unet.get_parameter("mid_block.attentions.0.transformer_blocks.0.attn1.to_v.weight")
    before = weight.clone()
    add_lora(model, folder / "comic.safetensors", 100.0)
    assert not torch.equal(weight, before)
    assert load_measuring_network(folder / "measure.safetensors").pose.out_features == 3


def test_the_decoder_learns_alone(folder: Path) -> None:
    before, after = (load_file(folder / stage / "vae.safetensors") for stage in ("vae", "decoder"))
    changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"decoder"}


def test_everything_exported_is_half_precision_and_small(folder: Path) -> None:
    files = [folder / name for name in (*NEEDED, *MOTION, LORA)]
    kinds = {str(value.dtype) for file in files for key, value in load_file(file).items() if not key.endswith("alpha")}
    assert kinds == {"torch.float16"}
    assert sum(file.stat().st_size for file in files) < 75e6


@pytest.mark.parametrize("stage", STAGES)
def test_resumed_stages_are_the_same_bit_for_bit(
    stage: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (*folder.glob("*.safetensors"), *folder.glob("*/*.safetensors")):
        if file.parent.name != stage:
            copy = tmp_path / file.relative_to(folder)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(file.read_bytes())
    kinds = {
        "vae": "autoencoder.VaeStage",
        "decoder": "autoencoder.VaeStage",
        "base": "base.BaseStage",
        "control_base": "control_base.ControlBaseStage",
        "style": "style.StyleStage",
        "motion": "motion.ClipStage",
        "animatediff": "motion.ClipStage",
        "measure": "measuring.MeasureStage",
    }
    whole = f"lib_hellomeme.training.{kinds.get(stage, 'adapters.AdapterStage')}.validate"
    with monkeypatch.context() as patch:
        # The first validation, after the first step, is where this run is killed.
        patch.setattr(whole, lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            command.run(arguments(stage, tmp_path, **{"validate-every": 1}))
    command.run(arguments(stage, tmp_path))
    states = [torch.load(path / stage / "state.pt", weights_only=True) for path in (folder, tmp_path)]
    assert states[0]["losses"] == states[1]["losses"]
    for part in ("networks", "average"):
        assert all(torch.equal(value, states[1][part][name]) for name, value in states[0][part].items())


def test_base_learns_in_every_tensor(folder: Path) -> None:
    stage = BaseStage(recipe("base"), work(folder), command.TOOLS)
    stage.loss(0).backward()
    # One pixel at the lowest level asks nobody but itself.
    alone = [name for name, value in stage.networks.named_parameters() if value.grad is None or not value.grad.any()]
    assert all("attn1.to_q" in name or "attn1.to_k" in name for name in alone)


def random_adapters() -> Adapters:
    """Past their silent beginning."""
    torch.manual_seed(1)
    networks = Adapters()
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return networks


def heads(seed: int, uncond: tuple[bool, ...], size: int = 128) -> Heads:
    generator = seeded(seed)
    condition = torch.rand(len(uncond), 3, size, size, generator=generator) * 2 - 1
    coefficients = torch.rand(len(uncond), 51, generator=generator)
    nobody = torch.tensor(uncond)
    return Heads(
        torch.where(nobody[:, None, None, None], -1.0, condition), torch.where(nobody[:, None], 0.0, coefficients)
    )


@pytest.fixture(scope="module")
def port() -> DiffusersPort:
    torch.manual_seed(0)
    return DiffusersPort(new_unet().eval().requires_grad_(False))


@pytest.mark.parametrize("half", [False, True])
def test_gradients_reach_every_adapter_tensor_and_no_base_tensor(port: DiffusersPort, half: bool) -> None:
    networks, (call, bank, target) = random_adapters(), given(port, Rows((True, False)))
    with mixed_precision("cpu", enabled=half):
        predicted = predict_velocity(port, networks, call, bank, target)
    predicted.float().square().mean().backward()
    silent = {name for name, value in networks.named_parameters() if value.grad is None or not value.grad.any()}
    assert {name for name in silent if not name.startswith(WITHOUT_GRADIENT)} == set()
    assert all(parameter.grad is None for parameter in port.unet.parameters())


COND = Rows((False,) * 4)


def given(port: DiffusersPort, rows: Rows = COND) -> tuple[Call, Bank, Heads]:
    """What predict_velocity takes, with any features in the bank."""
    generator, count = seeded(3), len(rows.uncond)
    latents = torch.randn(count, 4, 16, 16, generator=generator)
    timestep = torch.linspace(100, 900, count).long()
    call = Call(latents, timestep, torch.randn(count, 77, 64, generator=generator), rows)
    bank: Bank = {}
    with torch.no_grad():
        port.run(replace(call, sample=latents.flip(-1)), [record(f"up.{level}", bank) for level in range(4)])
    return call, bank, heads(6, rows.uncond)


def test_a_new_projection_adds_nothing_and_its_first_step_changes_that(port: DiffusersPort) -> None:
    call, _, target = given(port)
    torch.manual_seed(0)
    control = new_control()
    begin_base(control.base, target)
    rates = begin_projection(port, control, call, target)
    assert set(rates) == set(control.projection.parameters())
    assert not any(added.any() for added in control_of(control, target).values())
    control_of(control, target)["up.3"].sum().backward()
    gradient = control.get_parameter("projection.map320_to_640.proj.weight").grad
    assert gradient is not None
    assert gradient.any()


def test_expression_and_pose_can_be_told_from_a_new_bases_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """By ridge regression, of heads it was not fitted to. With all waves of the embedding, much less of them could."""
    generator, size, count, fitted = np.random.default_rng(0), 128, 600, 450
    faces = [random_face(generator, size) for _ in range(count)]
    drawn = [condition_input(face.rotation, face.translation, size, size) for face in faces]
    seen = Heads(
        torch.from_numpy(np.stack(drawn)), torch.from_numpy(np.stack([face.coefficients for face in faces])).float()
    )
    names = [ARKIT_INDEX[name] for name in ("jawOpen", "mouthSmileLeft", "browInnerUp", "eyeBlinkLeft")]
    rotations = torch.from_numpy(np.stack([face.rotation for face in faces])).float()
    truth = torch.cat([seen.coefficients[:, names], rotations], dim=1)
    truth = truth - truth[:fitted].mean(dim=0)

    def explained() -> float:
        torch.manual_seed(0)
        base = new_control().base
        begin_base(base, Heads(*(value[:32] for value in seen)))
        with torch.no_grad():
            features = maps_of(base, seen)[2].flatten(1)
        features = features - features[:fitted].mean(dim=0)
        known = features[:fitted] @ features[:fitted].T
        ridge = known.diagonal().mean() * 0.1 * torch.eye(fitted)
        told = features[fitted:] @ (features[:fitted].T @ torch.linalg.solve(known + ridge, truth[:fitted]))
        return float((1 - (told - truth[fitted:]).square().sum(dim=0) / truth[fitted:].square().sum(dim=0)).mean())

    assert explained() > 0.4
    monkeypatch.setattr("lib_hellomeme.training.control_base.SMOOTH", 1e9)
    assert explained() < 0.25


def test_a_base_learns_from_what_each_part_changes() -> None:
    heads, pictures = draw(Request(0, 128, DRAWINGS), 12, workers=0)
    assert pictures.shape == (12, 15, 32, 32)
    resting, parts = pictures[:, :3], pictures[:, 3:].unflatten(1, (4, 3)).abs().amax(dim=(0, 2)) > 0.1
    assert resting.min() >= -1
    assert resting.max() <= 1
    assert (parts.float().mean(dim=(1, 2)) > 0.01).all()
    assert (parts.float().mean(dim=(1, 2)) < 0.4).all()  # in the face alone
    height = torch.arange(32.0)[:, None].expand(32, 32)
    eyes, brows, jaw, mouth = (float(height[part].mean()) for part in parts)
    assert brows < eyes < mouth
    assert eyes < jaw
    base = new_control().base
    begin_base(base, heads)
    readouts = control_base.new_readouts(base, 32, heads)
    for index in range(len(readouts)):
        bias = readouts.get_parameter(f"{index}.bias")
        bias.data += torch.arange(len(bias)) + index
    drawn = control_base.draw_by(base, readouts, heads, 32)
    assert [one.shape for one in drawn] == [pictures.shape] * 4
    coarsest = drawn[0][0]  # every cell of 16 x 16 px holds its readout's values in order: channel, row, column
    assert coarsest[0, 0, :3].tolist() == [0, 1, 2]
    assert coarsest[0, 1, 0] == 16
    assert coarsest[1, 16, 16] == 256


def test_a_new_reference_adds_a_little_of_what_it_is_given(port: DiffusersPort) -> None:
    call, bank, target = given(port)
    torch.manual_seed(0)
    networks = Adapters()
    begin_base(networks.control.base, target)
    begin_projection(port, networks.control, call, target)
    rates = begin_reference(port, networks, call, bank, target)
    assert set(rates) == set(networks.reference.parameters())
    features: Bank = {}
    layers = networks.reference.sites()
    with torch.no_grad():
        port.run(call, [record(site, features) for site in layers])
        for site, layer in layers.items():
            added = layer.read(features[site], layer.prepare(bank[site]))
            other = layer.read(features[site], layer.prepare(bank[site].flip(0)))
            deviation = (features[site] - features[site].mean(dim=(0, 2, 3), keepdim=True)).std()
            assert 0.3 * ADDED < added.std() / deviation < 3 * ADDED, site
            assert (other - added).std() > 0.1 * added.std(), site


def test_training_sees_what_the_recipe_draws(port: DiffusersPort) -> None:
    networks, rows = random_adapters().eval(), Rows((True, False))
    latents = torch.randn(1, 4, 16, 16, generator=seeded(3)).repeat(2, 1, 1, 1)
    reference = torch.randn(1, 4, 16, 16, generator=seeded(7))
    call = Call(latents, torch.tensor([500, 500]), torch.randn(2, 77, 64, generator=seeded(4)), rows)
    own, target = heads(5, rows.uncond), heads(6, rows.uncond)
    with torch.no_grad():
        seen = torch.cat([torch.zeros_like(reference), reference])
        bank = write_reference(port, networks, replace(call, sample=seen, timestep=torch.zeros(2).long()), own)
        trained = predict_velocity(port, networks, call, bank, target)
        control, write_control = (control_of(networks.control, given) for given in (target, own))
        reenactment = Reenactment(port, networks.reference.sites(), reference, control, write_control)
        with port.attach(reenactment.taps(), lambda *_: call, reenactment.begin):
            drawn = port.unet(call.sample, call.timestep, call.context).sample
    assert (trained - port.run(call)).abs().max() > 1e-2
    torch.testing.assert_close(trained, drawn, rtol=0, atol=2e-5)


def test_adapters_lose_their_conditions_as_guidance_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib_hellomeme.training.reference.WRITTEN_AT_ONCE", 4)  # of five: the last one is alone
    stage = ReferenceStage(recipe("reference"), work(folder), command.TOOLS)
    batch = stage.batch(recipe("reference"), 0)
    batch = batch._replace(
        call=replace(batch.call, rows=Rows((True, False))), people=np.array([0, 1]), views=np.array([1, 0])
    )
    _, bank, _ = stage.given(batch, 0)
    for site, hidden in bank.items():
        assert hidden.shape[0] == 2
        assert torch.equal(hidden[0], stage.written[site][-1].float())  # nobody's
        assert torch.equal(hidden[1], stage.written[site][3].float())  # person 1 in the other of two views
    uncond = torch.tensor([True, False])
    given = heads_of(stage.pool, np.array([0, 1]), np.array([1, 0]), uncond, 64)
    assert (given.condition[0] == -1).all()
    assert (given.condition[1] > -1).any()
    assert (given.coefficients[0] == 0).all()
    torch.testing.assert_close(given.coefficients[1], stage.pool.coefficients[1, 0])


def test_joint_sees_two_expressions_of_a_person_written_in_another_pose(folder: Path) -> None:
    stage = JointStage(recipe("joint"), work(folder), command.TOOLS)
    batch = stage.batch(recipe("joint"), 0)
    assert batch.people[0] == batch.people[1]
    assert batch.views[0] + 1 == batch.views[1]
    for same in (batch.noise, batch.call.timestep, batch.weight, batch.call.context):
        assert torch.equal(same[0], same[1])
    assert not torch.equal(batch.latents[0], batch.latents[1])
    batches = [stage.batch(recipe("joint"), step) for step in range(40)]
    pure = [one for one in batches if one.call.timestep[0] >= PURE]
    assert 0 < len(pure) < 15
    assert all((one.call.timestep == STEPS - 1).all() and torch.equal(one.call.sample, one.noise) for one in pure)
    batch = batch._replace(call=replace(batch.call, rows=Rows((False, False))), people=np.array([1, 1]))
    batch = batch._replace(views=np.array([2, 3]))
    call, own = stage.given(batch, 0)
    assert not call.timestep.any()
    shown = [view for view in range(4) if torch.equal(call.sample[0], stage.pool.latents[1, view].float())]
    assert shown in ([0], [1])
    torch.testing.assert_close(own.coefficients, stage.pool.coefficients[1, shown])
    trained = {name.split(".")[0] for name, value in stage.networks.named_parameters() if value.requires_grad}
    assert trained == {"0", "1"}
    assert not any(value.requires_grad for value in stage.adapters.control.base.parameters())


def test_joint_knows_how_control_changes_what_is_written(folder: Path) -> None:
    stage = JointStage(recipe("joint"), work(folder), command.TOOLS)
    written = stage.write(stage.batch(recipe("joint"), 0), 0)
    torch.stack([hidden.square().mean() for hidden in written.values()]).sum().backward()
    assert any(weight.grad is not None and weight.grad.any() for weight in stage.projection.parameters())


def test_refine_takes_pairs_and_single_people_in_turn(folder: Path) -> None:
    short = replace(recipe("refine"), batch=12, steps=100)
    stage = RefineStage(short, work(folder), command.TOOLS)
    paired, single = stage.batch(short, 0), stage.batch(short, 1)
    assert (paired.people[::2] == paired.people[1::2]).all()
    assert (paired.views[::2] + 1 == paired.views[1::2]).all()
    assert torch.equal(paired.noise[::2], paired.noise[1::2])
    assert not torch.equal(single.noise[::2], single.noise[1::2])
    assert single.call.timestep.min() >= FIRST_TIMESTEP > paired.call.timestep.min()
    for batch in (paired, single):
        pure = batch.call.timestep == STEPS - 1
        assert pure.any()
        assert torch.equal(batch.call.sample[pure], batch.noise[pure])
        assert not (batch.call.sample[~pure] == batch.noise[~pure]).any()
    assert (stage.error_at(0), stage.error_at(1)) == (pairs_loss, latents_loss)


def test_refine_shows_the_person_in_another_pose(folder: Path) -> None:
    stage = RefineStage(recipe("refine"), work(folder), command.TOOLS)
    for step, views, shown in ((0, (2, 3), (0, 0)), (0, (0, 1), (2, 2)), (1, (1, 2), (2, 0))):
        batch = stage.batch(recipe("refine"), step)._replace(people=np.array([1, 1]), views=np.array(views))
        batch = batch._replace(call=replace(batch.call, rows=Rows((False, False))))
        _, bank, _ = stage.given(batch, step)
        written = Call(
            stage.pool.latents[[1, 1], shown].float(),
            torch.zeros(2, dtype=torch.long),
            stage.model.text_encoder(stage.empty[None]).last_hidden_state.expand(2, -1, -1),
            batch.call.rows,
        )
        own = heads_of(stage.pool, np.array([1, 1]), np.array(shown), torch.tensor([False, False]), 64)
        for site, hidden in write_reference(stage.port, stage.adapters, written, own).items():
            torch.testing.assert_close(bank[site], hidden, rtol=2e-3, atol=2e-3)
    trained = {name.split(".")[0] for name, value in stage.networks.named_parameters() if value.requires_grad}
    assert trained == {"0", "1"}  # the reference network and what its codes are read by
    assert not any(value.requires_grad for value in stage.adapters.control.parameters())


def test_finish_goes_on_with_all_networks_where_little_noise_is_left(folder: Path) -> None:
    stage = FinishStage(recipe("finish"), work(folder), command.TOOLS)
    sources = {"hm5c_reference": "refine", "hm5_control_base": "control_base", "hm5c_control_proj": "joint"}
    assert stage.parts().keys() == sources.keys()
    for name, part in stage.parts().items():
        tensors = load_file(folder / sources[name] / f"{name}.safetensors")
        assert all(torch.equal(value, tensors[key].float()) for key, value in part.state_dict().items())
    weights = [
        stage.projection.get_parameter("map320_to_320.proj.weight"),
        stage.adapters.control.base.get_parameter("exp_proj.linear_2.weight"),
    ]
    own = [float(stage.rates[weight] / weight.detach().square().mean().sqrt()) for weight in weights]
    assert own == pytest.approx([3.0, 0.3], rel=1e-4)
    assert all(weight.requires_grad for weight in stage.networks.parameters())
    timesteps = stage.timesteps(0, torch.arange(STEPS))
    assert timesteps[0] == 0
    assert timesteps[-1] < STEPS
    assert (timesteps.diff() >= 0).all()
    shares = [(timesteps < 300).float().mean().item(), (timesteps >= 850).float().mean().item()]
    assert shares == pytest.approx([0.45, 0.10], abs=0.01)
    assert torch.equal(stage.timesteps(1, torch.arange(STEPS)), torch.arange(STEPS))
    exported = {path.relative_to(folder).as_posix() for path in stage.export()}
    assert exported == {f"{name}.safetensors" for name in sources}


def test_finish_is_taught_who_is_shown(folder: Path) -> None:
    stage = FinishStage(recipe("finish"), work(folder), command.TOOLS)
    batch = stage.batch(recipe("finish"), 0)
    assert not batch.uncond.any()
    nothing_read = weighted_mean(batch.latents.square(), batch.weight)
    torch.testing.assert_close(stage.loss(0), JointStage.loss_of(stage, batch, 0) + nothing_read)
    with torch.no_grad():
        for weight in stage.readouts.parameters():
            weight.normal_(generator=seeded(0))
    (stage.loss(0) - JointStage.loss_of(stage, batch, 0)).backward()
    read = [value for name, value in stage.reference.named_parameters() if "attn.attny.to_v" in name]
    assert read
    assert all(value.grad is not None and value.grad.any() for value in read)


def test_differences_in_pairs_count_more() -> None:
    generator = seeded(0)
    predicted, latents, noise = (torch.randn(4, 4, 8, 8, generator=generator) for _ in range(3))
    timestep, weight = (
        torch.tensor([300, 300, 800, 800]),
        torch.rand(2, 1, 8, 8, generator=generator).repeat_interleave(2, dim=0),
    )
    usual = velocity_loss(predicted, latents, noise, timestep, weight)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lib_hellomeme.training.joint.CONTRAST", 1.0)
        torch.testing.assert_close(pairs_loss(predicted, latents, noise, timestep, weight), usual)
    right = velocity(latents, noise, timestep)
    common = torch.randn(2, 4, 8, 8, generator=generator).repeat_interleave(2, dim=0)
    opposite = common * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None, None]
    losses = [pairs_loss(right + error, latents, noise, timestep, weight) for error in (common, opposite)]
    torch.testing.assert_close(losses[1], CONTRAST * losses[0])


def test_references_reach_all_timesteps_at_the_end() -> None:
    every = torch.arange(STEPS)
    start, end = FALL
    for share in (0.0, 0.3, start):
        assert timesteps_at(share, every).unique().tolist() == list(range(FIRST_TIMESTEP, STEPS))
    later = timesteps_at((start + end) / 2, every)
    assert (later.min(), later.max()) == (FIRST_TIMESTEP // 2, STEPS - 1)
    for share in (end, 1.0):
        assert timesteps_at(share, every).equal(every)


def test_what_layers_read_is_drawn_place_by_place(port: DiffusersPort) -> None:
    call, bank, target = given(port)
    networks = random_adapters()
    with codes_of(networks.reference) as codes:
        predict_velocity(port, networks, call, bank, target)
    assert {site: code.shape[1] for site, code in codes.items()} == {"up.0": 2, "up.1": 4, "up.2": 8, "up.3": 16}
    readouts = new_readouts(networks.reference, {site: code.shape[1] for site, code in codes.items()})
    assert not any(one.any() for one in draw_by(readouts, codes, 16))
    for site in readouts:
        bias = readouts.get_parameter(f"{site}.bias")
        bias.data = torch.arange(len(bias)).float()
    coarsest, *_ = draw_by(readouts, codes, 16)[0]  # cells of 8 x 8 hold their readout's values: channel, row, column
    assert coarsest[0, 0, :3].tolist() == [0, 1, 2]
    assert coarsest[0, 1, 8] == 8
    assert coarsest[1, 8, 8] == 64
    codes.clear()
    predict_velocity(port, networks, call, bank, target)
    assert not codes  # no hook is left


@pytest.mark.parametrize(("width", "length", "shift"), [(64, 16, 16), (64, 16, 0), (128, 8, 8), (128, 4, 4)])
def test_half_of_the_heads_look_at_the_same_place(width: int, length: int, shift: int) -> None:
    torch.manual_seed(0)
    attention, usual = Attention(width, heads=8), Attention(width, heads=8)
    look_at_same_place(attention, length, shift)
    table = stacked_positions(length + shift, width, torch.float32, torch.device("cpu"))
    content = torch.randn(200, length + shift, width)
    with torch.no_grad():
        tokens = F.layer_norm(table + 0.5 * content, (width,))
        queries, keys = (
            layer(tokens).unflatten(-1, (8, -1)).transpose(1, 2) for layer in (attention.to_q, attention.to_k)
        )
        shares = (queries[:, :, :length] @ keys.transpose(2, 3) / (width // 8) ** 0.5).softmax(dim=-1)
        place = torch.arange(length)
        same = shares[:, :, place, place + shift].mean(dim=(0, 2)) * (length + shift)  # of what even attention has
        places = [one.to_v(F.layer_norm(table, (width,))).std(dim=0).mean() for one in (attention, usual)]
    assert same[:4].min() > 3
    assert shift == 0 or same[4:].max() < 2
    assert places[0] < 0.3 * places[1]  # values hardly tell them


def test_faces_weigh_more_where_they_are() -> None:
    left, right = (face_state(128, centre=(across, 0.5)) for across in (0.4, 0.6))
    rotations, translations = (
        torch.tensor(np.stack(values), dtype=torch.float32)
        for values in ((left.rotation, right.rotation), (left.translation, right.translation))
    )
    weights = face_weight(rotations, translations, 16)
    assert weights.shape == (2, 1, 16, 16)
    assert weights.unique().tolist() == [1.0, FACE_WEIGHT]
    places = [(weight[0] > 1).nonzero().float().mean(dim=0) for weight in weights]
    assert places[0].tolist() == pytest.approx([7.5, 6.0], abs=1.5)
    assert (places[1] - places[0]).tolist() == pytest.approx([0, 3.2], abs=0.8)
    assert 0.08 < (weights > 1).float().mean() < 0.25


def test_latents_are_brought_to_sd15s_scale() -> None:
    torch.manual_seed(0)
    vae = new_vae().eval()
    pictures = to_tensor(np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), np.uint8))
    with torch.no_grad():
        latents = posterior(vae, pictures).mean
        before = rebuild(vae, latents)
        normalise_latents(vae, latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3)))
        scaled = posterior(vae, pictures).mean
        after = rebuild(vae, scaled)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close((scaled * LATENT_SCALE).std(dim=(0, 2, 3)), torch.ones(4), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(scaled.mean(dim=(0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-2)


def test_a_lora_acts_as_its_file_does() -> None:
    torch.manual_seed(0)
    unet = new_unet().eval()
    call = (torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 77, 64))
    with torch.no_grad():
        plain = unet(*call).sample
        pairs = attach_lora(unet)
        torch.testing.assert_close(unet(*call).sample, plain, rtol=0, atol=0)
        for pair in pairs.values():
            assert isinstance(pair, LowRank)
            pair.lora_up.weight.normal_(std=0.1)
        assert (unet(*call).sample - plain).abs().max() > 1e-3
    names = {f"lora_unet_{name.replace('.', '_')}" for name, _ in unet.named_modules()}
    assert set(pairs) <= names


def test_stages_ask_for_what_comes_before_them(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="train the stage decoder first"):
        command.run(arguments("base", tmp_path))
    with pytest.raises(MissingFileError, match="train the stage vae first"):
        command.run(arguments("decoder", tmp_path))
    with pytest.raises(MissingFileError, match="drawn-people"):
        command.run(arguments("control", tmp_path))
    with pytest.raises(MissingFileError, match=r"hm5c_reference\.safetensors: train the stage finish first"):
        load_adapters(tmp_path, torch.device("cpu"))
    with pytest.raises(MissingFileError, match=r"reference holds no .*: train the stage reference first"):
        load_adapters(tmp_path, torch.device("cpu"), stages=BEFORE)
    for stage in ("joint", "refine", "finish"):
        with pytest.raises(SettingsError, match=f"{stage} must be even"):
            command.run(arguments(stage, tmp_path, batch=3))
    with pytest.raises(SettingsError, match="multiple of 64"):
        command.run(arguments("vae", tmp_path, size=100))
    for name, words in (("people", "one person"), ("steps", "--steps"), ("batch", "--batch"), ("rate", "--rate")):
        with pytest.raises(SettingsError, match=words):
            command.run(arguments("vae", tmp_path, **{name: 0}))
    assert UNSEEN > 10**6
