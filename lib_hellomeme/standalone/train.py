"""`python -m lib_hellomeme train`: hands the trainer, a room below, the host's way with prompts and checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from lib_hellomeme.standalone.checkpoint import PREDICTION_KEY, StableDiffusion, load_checkpoint
from lib_hellomeme.standalone.layout import Structure, tensor_shapes, to_networks
from lib_hellomeme.standalone.prompts import chunk_tokens, tokenize
from lib_hellomeme.training import command
from lib_hellomeme.training.loop import replacing
from lib_hellomeme.training.models import CheckpointTools, Model

add_arguments = command.add_arguments


def run(arguments: argparse.Namespace) -> None:
    command.run(arguments, TOOLS)


def first_chunk(prompt: str) -> list[int]:
    """The 77 tokens of a short prompt."""
    return chunk_tokens(tokenize(prompt))[0]


def read_model(path: Path) -> StableDiffusion:
    return load_checkpoint(path)


def write_model(path: Path, model: Model) -> None:
    """A single file in LDM layout, float16; it says that its UNet predicts velocities."""
    text = model.text_encoder.config
    structure = Structure(
        unet=tuple(model.unet.config["block_out_channels"]),
        vae=tuple(model.vae.config["block_out_channels"]),
        text_width=text.hidden_size,
        text_layers=text.num_hidden_layers,
        text_feed_forward=text.intermediate_size,
    )
    shapes = tensor_shapes(structure)
    # The way back is found by sending numbers the way there.
    numbered = {name: torch.tensor(index) for index, name in enumerate(shapes)}
    names, tensors = list(shapes), {}
    for network, numbers in zip((model.unet, model.vae, model.text_encoder), to_networks(numbered), strict=True):
        weights = network.state_dict()
        for own, number in numbers.items():
            name = names[int(number)]
            tensors[name] = weights[own].reshape(shapes[name]).contiguous()
    with replacing(path) as temporary:
        halves = {name: tensor.to("cpu", torch.float16) for name, tensor in tensors.items()}
        save_file(halves, temporary, {PREDICTION_KEY: "v"})


TOOLS = CheckpointTools(first_chunk, read_model, write_model)
