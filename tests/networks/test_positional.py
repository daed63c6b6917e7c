import pytest
import torch

from lib_hellomeme.networks.positional import (
    SinusoidalPositionalEmbedding,
    interleaved_positions,
    stacked_positions,
    timestep_embedding,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("length", [1, 8, 9, 40])
def test_a_stored_table_goes_on_by_its_formula(length):
    embedding = SinusoidalPositionalEmbedding(16, length=8)
    whole = interleaved_positions(40, 16, torch.float32, CPU)
    torch.testing.assert_close(embedding.table(length), whole[:length])


def test_what_is_stored_is_used():
    embedding = SinusoidalPositionalEmbedding(16, length=8)
    embedding.pe.fill_(3)
    table = embedding.table(9)
    assert (table[:8] == 3).all()
    assert (table[8] != 3).all()


@pytest.mark.parametrize("table", [interleaved_positions, stacked_positions])
def test_a_table_made_in_inference_mode_can_be_used_in_training(table):
    table.cache_clear()
    with torch.inference_mode():
        table(4, 8, torch.float32, CPU)
    weight = torch.nn.Parameter(torch.ones(8))
    (table(4, 8, torch.float32, CPU) * weight).sum().backward()
    assert weight.grad is not None


def test_timesteps_are_embedded_like_diffusers():
    from diffusers.models.embeddings import Timesteps

    values = torch.tensor([0.0, 0.25, 3.0, 500.0, -20.5])
    torch.testing.assert_close(timestep_embedding(values, 64), Timesteps(64, True, 0)(values))


def test_half_precision_values_are_embedded_in_float32():
    assert timestep_embedding(torch.tensor([0.5], dtype=torch.float16), 8).dtype == torch.float32
