"""The fast path of every generation gives the plain path's numbers."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lib_hellomeme.networks.reference import KnittedReference, KnittedReferenceV5, ReferenceAdapter, STKReference
from tests.goldens_format import seed_weights, seeded

LAYERS = [KnittedReference, KnittedReferenceV5, STKReference]
NARROW = (32, 64, 128, 128)


@pytest.fixture(params=LAYERS, ids=lambda layer: layer.__name__)
def layer(request):
    layer = request.param(64)
    seed_weights(layer)
    return layer


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (4, 6), (7, 3), (3, 70)])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("folded", [False, True])
def test_reading_is_the_plain_path(layer, size, frames, folded):
    hidden = seeded("hidden", (2 * frames, 64, *size))
    reference = seeded("reference", (2, 64, *size))
    plain = layer(hidden, reference, frames)
    if folded:
        layer.fold()
    close(hidden + layer.read(hidden, layer.prepare(reference)), plain)


def test_channels_last_features_give_the_same(layer):
    hidden, reference = seeded("hidden", (2, 64, 4, 6)), seeded("reference", (2, 64, 4, 6))
    channels_last = hidden.to(memory_format=torch.channels_last)
    close(layer.read(channels_last, layer.prepare(reference)), layer.read(hidden, layer.prepare(reference)))


def test_one_reference_row_serves_all(layer):
    hidden, reference = seeded("hidden", (3, 64, 4, 6)), seeded("reference", (1, 64, 4, 6))
    close(
        layer.read(hidden, layer.prepare(reference)),
        layer.read(hidden, layer.prepare(reference.expand(3, -1, -1, -1))),
    )


def test_rows_can_be_chosen(layer):
    hidden, reference = seeded("hidden", (3, 64, 4, 6)), seeded("reference", (2, 64, 4, 6))
    index = torch.tensor([1, 0, 1])
    chosen = layer.prepare(reference).rows(index)
    close(layer.read(hidden, chosen), layer.read(hidden, layer.prepare(reference[index])))


def test_the_reference_matters(layer):
    hidden, reference = seeded("hidden", (1, 64, 4, 6)), seeded("reference", (1, 64, 4, 6))
    other = reference.roll(1, dims=-1)
    assert (layer.read(hidden, layer.prepare(reference)) - layer.read(hidden, layer.prepare(other))).abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(1, 64, 4, 5), (1, 64, 6, 4), (2, 64, 4, 6)])
def test_a_reference_of_another_size_is_refused(layer, shape):
    prepared = layer.prepare(seeded("reference", shape))
    with pytest.raises(ValueError, match="cannot be read"):
        layer.read(seeded("hidden", (3, 64, 4, 6)), prepared)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(layer, dtype):
    hidden, reference = seeded("hidden", (2, 64, 8, 8)), seeded("reference", (2, 64, 8, 8))
    expected = layer(hidden, reference)
    layer.to(dtype)
    hidden, reference = hidden.to(dtype), reference.to(dtype)
    got = hidden + layer.read(hidden, layer.prepare(reference))
    assert got.dtype == dtype
    assert (got.float() - expected).norm() / expected.norm() < (2e-3 if dtype == torch.float16 else 2e-2)


def test_a_prepared_reference_moves_to_another_dtype(layer):
    prepared = layer.prepare(seeded("reference", (1, 64, 4, 4))).to(dtype=torch.bfloat16)
    assert prepared.column_values.dtype == torch.bfloat16


PROJECTIONS_PER_TOKEN = {KnittedReference: 17, KnittedReferenceV5: 17, STKReference: 26}


@pytest.mark.parametrize("folded", [False, True])
def test_reading_costs_no_more_than_it_must(layer, folded):
    """In multiples of C^2 a hidden token: 8 linear layers, and 9 for each convolution. The reference costs nothing."""
    if folded:
        layer.fold()
    prepared = layer.prepare(seeded("reference", (1, 64, 4, 6)))
    hidden = seeded("hidden", (3, 64, 4, 6))
    with FlopCounterMode(display=False) as counter:
        layer.read(hidden, prepared)
    counts = counter.get_flop_counts()["Global"]
    attention = sum(count for operation, count in counts.items() if "attention" in str(operation))
    border = 2 * 64 * 9 * 4 * 6 if folded else 0
    spent = (counter.get_total_flops() - attention - border) / (2 * 64**2 * 3 * 4 * 6)
    assert spent == PROJECTIONS_PER_TOKEN[type(layer)] - folded


def test_folding_takes_no_more_memory_than_it_frees(layer):
    def elements():
        return sum(tensor.numel() for tensor in (*layer.parameters(), *layer.buffers()))

    before = elements()
    layer.fold()
    assert elements() == before + 64 * 9  # what the linear layer's bias becomes


def test_a_folded_layer_changes_precision_as_a_whole(layer):
    hidden, prepared = seeded("hidden", (1, 64, 9, 9)), layer.prepare(seeded("reference", (1, 64, 9, 9)))
    expected = layer.read(hidden, prepared)
    layer.fold()
    layer.to(torch.bfloat16)
    got = layer.read(hidden.bfloat16(), prepared.to(dtype=torch.bfloat16))
    assert got.dtype == torch.bfloat16
    assert (got.float() - expected).norm() / expected.norm() < 2e-2


def test_sites_of_the_generations():
    v1 = ReferenceAdapter(NARROW, layer=KnittedReference, up_levels=(1, 2, 3), encoder=True)
    v2 = ReferenceAdapter(NARROW, layer=KnittedReference, up_levels=(1, 2, 3))
    v3 = ReferenceAdapter(NARROW, layer=KnittedReference)
    assert list(v1.sites()) == ["down.0", "down.1", "down.2", "mid", "up.1", "up.2", "up.3"]
    assert list(v2.sites()) == ["up.1", "up.2", "up.3"]
    assert list(v3.sites()) == ["up.0", "up.1", "up.2", "up.3"]
    assert v1.sites()["up.1"] is v1.reference_modules_up[0]


@pytest.mark.parametrize(
    "adapter",
    [
        partial(ReferenceAdapter, layer=KnittedReference, up_levels=(1, 2, 3), encoder=True),
        partial(ReferenceAdapter, layer=KnittedReferenceV5),
        ReferenceAdapter,
    ],
)
def test_layers_have_the_widths_of_their_sites(adapter):
    expected = {
        "down.0": 32,
        "down.1": 64,
        "down.2": 128,
        "mid": 128,
        "up.0": 128,
        "up.1": 128,
        "up.2": 128,
        "up.3": 64,
    }
    for site, layer in adapter(NARROW).sites().items():
        features = seeded(site, (1, expected[site], 2, 2))
        assert layer(features, features).shape == features.shape
