"""Half precision on what an SD1.5 UNet holds: features of some thousands, and single channels far above the others.

Of all layers only v5b's and v5c's first convolution takes features that no norm has been at. With weights that keep the
variance its sums pass float16's range only where the features themselves come close to its end, so none runs wider.
"""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from lib_hellomeme.checkpoints.catalog import GENERATIONS, files_of
from lib_hellomeme.checkpoints.layouts import LAYOUTS
from lib_hellomeme.checkpoints.load import placed
from lib_hellomeme.networks.control import ProjectedControl
from lib_hellomeme.networks.expression import ArkitExpression, Expression, ExpressionKind, PdfgcExpression
from lib_hellomeme.networks.motion import KnittedMotion, KnittedMotionV5
from lib_hellomeme.networks.reference import ReferenceAdapter
from tests.goldens_format import seeded
from tests.random_weights import random_network, random_tensor

WIDTHS = (32, 64, 128, 128)
KINDS = get_args(ExpressionKind)
TYPES = {torch.float16: 1e-2, torch.bfloat16: 5e-2}  # and the error that their 10 and 7 bits make
FEATURES = 3000.0  # standard deviation: the largest are beyond 10000


@pytest.fixture(autouse=True)
def _without_gradients() -> object:
    with torch.inference_mode():
        yield


def weighted(network: nn.Module, name: str) -> nn.Module:
    shapes = {tensor: tuple(value.shape) for tensor, value in network.state_dict().items()}
    network.load_state_dict({tensor: random_tensor(f"{name}/{tensor}", shape) for tensor, shape in shapes.items()})
    return network.eval().requires_grad_(False)


def networks(generation: str, kind: ExpressionKind) -> list[nn.Module]:
    return [weighted(random_network(file.layout or "", WIDTHS, 64), file.key) for file in files_of(generation, kind)]


def features(name: str, *shape: int) -> Tensor:
    """With one channel ten times as large as the others, as UNets have them."""
    made = FEATURES / 4 * seeded(name, shape)
    made[:, 3] *= 10
    return made


def assert_close(got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert got.dtype == dtype
    assert got.isfinite().all()
    assert (got.float() - expected).norm() / expected.norm() < TYPES[dtype]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_reference_layers(generation: str, dtype: torch.dtype) -> None:
    adapter = networks(generation, "arkit")[0]
    assert isinstance(adapter, ReferenceAdapter)
    plain = placed(adapter, "cpu", torch.float32)
    adapter.fold()
    half = placed(adapter, "cpu", dtype).sites()
    for site, layer in plain.sites().items():
        channels = layer._knit.norm.weight.shape[0] if hasattr(layer, "_knit") else layer.attn.norm.weight.shape[0]  # type: ignore[attr-defined]
        hidden, reference = features("hidden", 2, channels, 6, 8), features("reference", 2, channels, 6, 8)
        expected = layer(hidden, reference) - hidden
        read = half[site].read(hidden.to(dtype), half[site].prepare(reference.to(dtype)))
        assert_close(read, expected, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_control_networks(generation: str, kind: ExpressionKind, dtype: torch.dtype) -> None:
    """A condition image of both extremes. Embeddings twenty times too large cost precision, but nothing overflows."""
    _, *others = networks(generation, kind)
    if kind == "pdfgc":
        others.pop()
    control = ProjectedControl(*others) if len(others) == 2 else others[0]  # type: ignore[arg-type]
    half = placed(control, "cpu", dtype)
    condition = seeded("condition", (2, 3, 128, 128)).sign()
    residuals = half(condition.to(dtype), expression(kind))
    for site, expected in control(condition, expression(kind)).items():
        assert_close(residuals[site], expected, dtype)
    assert all(residual.isfinite().all() for residual in half(condition.to(dtype), expression(kind, 20.0)).values())


def expression(kind: ExpressionKind, scale: float = 1.0) -> Expression:
    if kind == "pdfgc":
        return PdfgcExpression(scale * seeded("embedding", (2, 548)))
    return ArkitExpression(scale * seeded("coefficients", (2, 51)), scale * seeded("parts", (2, 3, 1024)))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layer", [KnittedMotion, KnittedMotionV5])
def test_motion_layers(layer: type[nn.Module], dtype: torch.dtype) -> None:
    exact = weighted(layer(64), layer.__name__)
    hidden, padding = features("hidden", 4, 64, 3, 4), features("padding", 1, 64, 2, 3, 4)
    embedding = 10 * seeded("time", (4, 1280))
    expected = exact(hidden, padding, embedding, 4)
    got = placed(exact, "cpu", dtype)(*(tensor.to(dtype) for tensor in (hidden, padding, embedding)), 4)
    assert_close(got, expected, dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_pd_fgc_encoder(dtype: torch.dtype) -> None:
    exact = weighted(LAYOUTS["pd_fgc_motion"].build({}), "pd_fgc_motion")
    pictures = seeded("pictures", (1, 3, 224, 224)).clamp(-1, 1)
    assert_close(placed(exact, "cpu", dtype)(pictures.to(dtype)), exact(pictures), dtype)
