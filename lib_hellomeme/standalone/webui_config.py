"""`python -m lib_hellomeme write-yaml`: what A1111 needs to load a checkpoint of other widths than SD1.5's.

It looks beside the checkpoint for a .yaml of the same name (CompVis' `v1-inference.yaml` with other numbers). It names
a folder from which the text encoder's structure and CLIP's words are read; weights come from the checkpoint. Forge
guesses a checkpoint's structure by itself and refuses narrow ones.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lib_hellomeme.errors import CheckpointError
from lib_hellomeme.standalone.checkpoint import read_prediction, read_tensors
from lib_hellomeme.standalone.layout import CHUNK, VOCABULARY, Structure
from lib_hellomeme.standalone.prompts import clip_tokenizer
from lib_hellomeme.training.loop import replacing

CONFIG = """\
model:
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    parameterization: {parameterization}
    linear_start: 0.00085
    linear_end: 0.0120
    num_timesteps_cond: 1
    log_every_t: 200
    timesteps: 1000
    first_stage_key: jpg
    cond_stage_key: txt
    image_size: 64
    channels: 4
    cond_stage_trainable: false
    conditioning_key: crossattn
    monitor: val/loss_simple_ema
    scale_factor: 0.18215
    use_ema: false
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params:
        image_size: 32
        in_channels: 4
        out_channels: 4
        model_channels: {unet_width}
        attention_resolutions: [4, 2, 1]
        num_res_blocks: 2
        channel_mult: {unet_multiples}
        num_heads: 8
        use_spatial_transformer: true
        transformer_depth: 1
        context_dim: {text_width}
        use_checkpoint: false
        legacy: false
    first_stage_config:
      target: ldm.models.autoencoder.AutoencoderKL
      params:
        embed_dim: 4
        monitor: val/rec_loss
        ddconfig:
          double_z: true
          z_channels: 4
          resolution: 256
          in_channels: 3
          out_ch: 3
          ch: {vae_width}
          ch_mult: {vae_multiples}
          num_res_blocks: 2
          attn_resolutions: []
          dropout: 0.0
        lossconfig:
          target: torch.nn.Identity
    cond_stage_config:
      target: ldm.modules.encoders.modules.FrozenCLIPEmbedder
      params:
        version: {text_folder}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="an SD1.5 checkpoint of any width")


def run(arguments: argparse.Namespace) -> None:
    """Name what was written. Raises CheckpointError."""
    for path in write_config(arguments.checkpoint):
        print(path)
    print("A1111 loads the checkpoint with them from where they are now; Forge cannot load narrow checkpoints.")


def write_config(checkpoint: Path) -> tuple[Path, Path]:
    """The .yaml and the folder of the text encoder, both beside the checkpoint; the .yaml holds the folder's full path.

    Raises CheckpointError for what is no SD1.5 checkpoint, and for widths that the .yaml cannot tell.
    """
    _, structure = read_tensors(checkpoint)
    prediction = read_prediction(checkpoint)
    config, folder = checkpoint.with_suffix(".yaml"), checkpoint.with_name(f"{checkpoint.stem}.text_encoder")
    text = CONFIG.format(
        parameterization="v" if prediction == "v" else "eps",
        unet_width=structure.unet[0],
        unet_multiples=multiples(structure.unet, checkpoint),
        vae_width=structure.vae[0],
        vae_multiples=multiples(structure.vae, checkpoint),
        text_width=structure.text_width,
        text_folder=json.dumps(str(folder.resolve())),
    )
    write_text_encoder(folder, structure)
    with replacing(config) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return config, folder


def multiples(widths: tuple[int, ...], checkpoint: Path) -> list[int]:
    """Of the first width."""
    if any(width % widths[0] for width in widths):
        raise CheckpointError(
            f"{checkpoint.name}: its widths {widths} are no multiples of the first, and A1111 can load no others: "
            "choose another checkpoint"
        )
    return [width // widths[0] for width in widths]


def write_text_encoder(folder: Path, structure: Structure) -> None:
    """The text encoder without its weights, as transformers reads it: its structure and CLIP's words."""
    config = {
        "model_type": "clip_text_model",
        "vocab_size": VOCABULARY,
        "hidden_size": structure.text_width,
        "intermediate_size": structure.text_feed_forward,
        "num_hidden_layers": structure.text_layers,
        "num_attention_heads": structure.text_heads,
        "max_position_embeddings": CHUNK,
        "projection_dim": structure.text_width,
        "hidden_act": "quick_gelu",
        "bos_token_id": VOCABULARY - 2,
        "eos_token_id": VOCABULARY - 1,
    }
    folder.mkdir(exist_ok=True)
    clip_tokenizer().save_vocabulary(str(folder))
    for name, content in (("config.json", config), ("tokenizer_config.json", {"model_max_length": CHUNK})):
        with replacing(folder / name) as temporary:
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
