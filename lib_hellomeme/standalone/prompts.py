"""Prompts to what the UNet's cross attention reads, as the webuis do it, but weights like (this:1.2) mean nothing here.

Longer prompts go through the text encoder in chunks of 75 tokens (AUTOMATIC1111 `modules/sd_hijack_clip.py`).
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lib_hellomeme.errors import DependencyError
from lib_hellomeme.standalone.layout import CHUNK, VOCABULARY
from lib_hellomeme.unet.port import Call

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"  # OpenAI's, as open_clip_torch brings it
START, END = VOCABULARY - 2, VOCABULARY - 1
COMMA = 267
COMMA_BACKTRACK = 20  # a chunk may end at a comma that lies at most so many tokens back


@dataclass(frozen=True)
class Prompts:
    """What the UNet reads of the negative prompt and of the prompt, each (1, tokens, width)."""

    uncond: Tensor
    cond: Tensor

    def of(self, call: Call) -> Tensor:
        """Those of a call's rows (n, tokens, width)."""
        return torch.cat([self.uncond if uncond else self.cond for uncond in call.rows.uncond]).to(call.context)


@torch.inference_mode()
def encode_prompt(text_encoder: CLIPTextModel, prompt: str) -> Tensor:
    """A prompt of any length to the last hidden states (1, 77 * chunks, width)."""
    chunks = torch.tensor(chunk_tokens(tokenize(prompt)), device=text_encoder.device)  # (chunks, 77)
    return text_encoder(chunks).last_hidden_state.flatten(0, 1)[None]


def tokenize(prompt: str) -> list[int]:
    """CLIP's tokens of a prompt, without start and end. Raises DependencyError where open_clip_torch is missing."""
    tokens = clip_tokenizer()(prompt, truncation=False, add_special_tokens=False)["input_ids"]
    return list(tokens)  # type: ignore[arg-type]


def chunk_tokens(tokens: list[int]) -> list[list[int]]:
    """Tokens in chunks of 77 with start and end; a chunk ends at a comma rather than among the words after it."""
    room = CHUNK - 2
    chunks, chunk = [], []
    for token in tokens:
        if len(chunk) == room:
            last_comma = max((index for index, kept in enumerate(chunk) if kept == COMMA), default=-1)
            torn = token != COMMA and last_comma >= 0 and room - last_comma <= COMMA_BACKTRACK
            cut = last_comma + 1 if torn else room
            chunks.append(chunk[:cut])
            chunk = chunk[cut:]
        chunk.append(token)
    if chunk or not chunks:
        chunks.append(chunk)
    return [[START, *chunk, *[END] * (CHUNK - 1 - len(chunk))] for chunk in chunks]


@cache
def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer out of the vocabulary that lies in open_clip_torch, whose code is not imported."""
    from transformers import CLIPTokenizer
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    merges = gzip.decompress(_vocabulary_file().read_bytes()).decode("utf-8")
    pairs = merges.split("\n")[1 : VOCABULARY - 512 - 2 + 1]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters), *(pair.replace(" ", "") for pair in pairs)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary_file, merges_file = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        vocabulary_file.write_text(json.dumps({word: index for index, word in enumerate(words)}), encoding="utf-8")
        merges_file.write_text(merges, encoding="utf-8")
        return CLIPTokenizer(str(vocabulary_file), str(merges_file))


def _vocabulary_file() -> Path:
    package = importlib.util.find_spec("open_clip")
    file = Path(package.origin).parent / VOCABULARY_FILE if package and package.origin else None
    if file is None or not file.is_file():
        raise DependencyError("CLIP's vocabulary is not installed: pip install --no-deps open_clip_torch")
    return file
