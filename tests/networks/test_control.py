"""Control networks at sizes and widths that the golden cases do not have."""

from functools import partial

import pytest
import torch

from lib_hellomeme.networks.control import (
    ControlBase,
    ControlProjection,
    ConvolutionProjector,
    ProjectedControl,
    STKCrossAttentionV4,
)
from lib_hellomeme.networks.control_v3 import ControlV3, control_v1, control_v2
from lib_hellomeme.networks.expression import ArkitExpression, PdfgcExpression
from tests.goldens_format import seed_weights, seeded

NARROW = (32, 64, 128, 128)
ALL_SITES = {f"{way}.{level}" for way in ("down", "up") for level in range(4)}


def projected(block=None, projector=None):
    base = ControlBase(NARROW, context_width=64, **({"block": block} if block else {}))
    return ProjectedControl(base, ControlProjection(NARROW, **({"projector": projector} if projector else {})))


CONTROLS = {
    "v1 arkit": (partial(control_v1, "arkit", NARROW, context_width=64, stem=16), {"down.0", "down.1", "down.2"}),
    "v1 pdfgc": (partial(control_v1, "pdfgc", NARROW), {"down.0", "down.1", "down.2"}),
    "v2 arkit": (partial(control_v2, "arkit", NARROW), {"up.0", "up.1", "up.2", "up.3"}),
    "v2 pdfgc": (partial(control_v2, "pdfgc", NARROW), {"up.0", "up.1", "up.2", "up.3"}),
    "v3": (partial(ControlV3, NARROW), ALL_SITES),
    "v4": (partial(projected, STKCrossAttentionV4, ConvolutionProjector), ALL_SITES),
    "v5": (projected, ALL_SITES),
}


def site_shapes(height: int, width: int) -> dict[str, tuple[int, int, int]]:
    """Channels and size at each site of a UNet that draws a picture of this size."""
    sizes = [(height // 8, width // 8)]
    for _ in range(3):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    down = {f"down.{i}": (NARROW[i], *sizes[min(i + 1, 3)]) for i in range(4)}
    up = {f"up.{i}": ((128, 128, 128, 64)[i], *sizes[(3, 2, 1, 0)[i]]) for i in range(4)}
    # What enters a decoder level has been grown to the size of its skip connection already.
    return down | up


@pytest.fixture(params=CONTROLS)
def control(request):
    build, sites = CONTROLS[request.param]
    network = build()
    seed_weights(network)
    return network, sites, None if request.param[-5:] not in ("arkit", "pdfgc") else request.param[-5:]


def expressions(n: int) -> dict[str, ArkitExpression | PdfgcExpression]:
    return {
        "arkit": ArkitExpression(seeded("coefficients", (n, 51)).clamp(0, 1), seeded("face parts", (n, 3, 1024))),
        "pdfgc": PdfgcExpression(seeded("embedding", (n, 548))),
    }


@pytest.mark.parametrize("size", [(64, 64), (128, 192), (200, 136), (520, 72)])
def test_residuals_fit_their_sites(control, size):
    network, sites, only = control
    condition = seeded("condition", (1, 3, *size)).clamp(-1, 1)
    for kind, expression in expressions(1).items():
        if only not in (None, kind):
            with pytest.raises(ValueError, match="Expression"):
                network(condition, expression)
            continue
        residuals = network(condition, expression)
        assert residuals.keys() == sites
        expected = site_shapes(*size)
        for site, residual in residuals.items():
            assert tuple(residual.shape[1:]) == expected[site], site
            assert torch.isfinite(residual).all()


def test_each_entry_is_computed_for_itself(control):
    network, _, only = control
    condition = seeded("condition", (3, 3, 128, 128)).clamp(-1, 1)
    expression = expressions(3)[only or "pdfgc"]
    alone = type(expression)(*(tensor[1:2] for tensor in vars(expression).values()))
    together, single = network(condition, expression), network(condition[1:2], alone)
    for site, residual in together.items():
        torch.testing.assert_close(residual[1:2], single[site], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_takes_float32_inputs(control, dtype):
    network, _, only = control
    condition = seeded("condition", (1, 3, 128, 128)).clamp(-1, 1)
    expression = expressions(1)[only or "arkit"]
    expected = network(condition, expression)
    network.to(dtype)
    for site, residual in network(condition, expression).items():
        assert residual.dtype == dtype
        error = (residual.float() - expected[site]).norm() / expected[site].norm()
        assert error < (1e-2 if dtype == torch.float16 else 6e-2), site
