"""Every network computes what the published one does, at the published widths."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib_hellomeme.networks.control import ControlBase, ControlProjection, ConvolutionProjector, STKCrossAttentionV4
from lib_hellomeme.networks.control_v3 import ControlV3, control_v1, control_v2
from lib_hellomeme.networks.expression import ArkitExpression, PdfgcExpression
from lib_hellomeme.networks.motion import KnittedMotion, MotionAdapter
from lib_hellomeme.networks.pd_fgc import PdfgcEncoder
from lib_hellomeme.networks.reference import KnittedReference, KnittedReferenceV5, ReferenceAdapter
from tests.goldens_format import Case, cases, expect, seed_weights

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "hm_reference": partial(ReferenceAdapter, layer=KnittedReference, up_levels=(1, 2, 3), encoder=True),
    "hm2_reference": partial(ReferenceAdapter, layer=KnittedReference, up_levels=(1, 2, 3)),
    "hm3_reference": partial(ReferenceAdapter, layer=KnittedReference),
    "hm5_reference": partial(ReferenceAdapter, layer=KnittedReferenceV5),
    "hm5b_reference": ReferenceAdapter,
    "hm_control": partial(control_v1, "arkit"),
    "hm_control2": partial(control_v1, "pdfgc"),
    "hm2_control": partial(control_v2, "arkit"),
    "hm2_control2": partial(control_v2, "pdfgc"),
    "hm3_control_mix": ControlV3,
    "hm_control_base": partial(ControlBase, block=STKCrossAttentionV4),
    "hm4_control_proj": partial(ControlProjection, projector=ConvolutionProjector),
    "hm5_control_base": ControlBase,
    "hm5_control_proj": ControlProjection,
    "hm3_motion": partial(MotionAdapter, layer=KnittedMotion),
    "hm5_motion": MotionAdapter,
    "pd_fgc_motion": PdfgcEncoder,
}


def network(case: Case) -> nn.Module:
    with torch.device("meta"):
        module = NETWORKS[case.index["module"]]()
    # The meta device skips the costly random start; what is computed (positional tables) is real already.
    module._apply(lambda tensor: torch.empty_like(tensor, device="cpu") if tensor.is_meta else tensor)
    seed_weights(module)
    return module


def modules_of(case: Case, parent: nn.Module, prefix: str) -> dict[str, Any]:
    """The case's "up.0" is the adapter's `<prefix>_up.0`."""
    return {name: parent.get_submodule(f"{prefix}_{name}") for name in case.inputs}


@pytest.mark.parametrize("case", cases("reference"), ids=lambda case: case.name)
def test_reference(case):
    for name, layer in modules_of(case, network(case), "reference_modules").items():
        hidden, reference = case.input(name, "hidden"), case.input(name, "ref")
        expect(case, name, layer(hidden, reference, case.inputs[name]["num_frames"]))
        expect(case, name, hidden + layer.read(hidden, layer.prepare(reference)))


def flat(tensor: Tensor) -> Tensor:
    """(1, f, ...) to (f, ...)."""
    assert tensor.shape[0] == 1
    return tensor[0]


@pytest.mark.parametrize("case", cases("control"), ids=lambda case: case.name)
def test_control(case):
    control = network(case)
    condition = flat(case.input("condition").clamp(-1, 1).transpose(1, 2))
    expressions = {
        "arkit": ArkitExpression(
            flat((0.3 * case.input("drive_coeff").abs()).clamp(0, 1)), flat(case.input("face_parts"))
        ),
        "pdfgc": PdfgcExpression(flat(case.input("emo_embedding"))),
    }
    for kind, expression in expressions.items():
        outputs = {name.split("/")[1]: name for name in case.outputs if name.startswith(kind)}
        if not outputs:
            with pytest.raises(ValueError, match="expression"):
                control(condition, expression)
            continue
        features = control(condition, expression)
        for key, name in outputs.items():
            feature = features[int(key[-1])] if key.startswith("feat") else features[site_of(key)]
            expect(case, name, feature.transpose(0, 1)[None])


def site_of(key: str) -> str:
    """up_v2_3, up2_v2_3, up3_3 are up.3; down_0, down2_0, down3_0 are down.0."""
    return f"{'up' if key.startswith('up') else 'down'}.{key[-1]}"


@pytest.mark.parametrize("case", cases("control_proj"), ids=lambda case: case.name)
def test_control_projection(case):
    features = [flat(case.input(f"feat_{i}").transpose(1, 2)) for i in range(4)]
    residuals = network(case)(features)
    for key in case.outputs:
        expect(case, key, residuals[site_of(key)].transpose(0, 1)[None])


@pytest.mark.parametrize("case", cases("motion"), ids=lambda case: case.name)
def test_motion(case):
    for name, layer in modules_of(case, network(case), "motion").items():
        hidden, padding, time_embedding = (case.input(name, key) for key in ("hidden", "pad", "temb"))
        frames = case.inputs[name]["num_frames"]
        expect(case, name, layer(hidden, padding, time_embedding, frames))
        if f"{name}.nopad" in case.outputs:
            expect(case, f"{name}.nopad", layer(hidden, None, time_embedding, frames))


@pytest.mark.parametrize("case", cases("pd_fgc"), ids=lambda case: case.name)
def test_pd_fgc(case):
    expect(case, "embedding", network(case)(case.input("image").clamp(-1, 1)))
