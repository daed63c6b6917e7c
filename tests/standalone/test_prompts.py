from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_hellomeme.errors import DependencyError
from lib_hellomeme.standalone import prompts
from lib_hellomeme.standalone.prompts import COMMA, END, START, chunk_tokens, encode_prompt, tokenize

WORD = 320


def test_clips_own_numbers():
    assert chunk_tokens(tokenize("a photo of a cat"))[0][:8] == [49406, 320, 1125, 539, 320, 2368, 49407, 49407]
    assert tokenize(",") == [COMMA]
    assert tokenize("  A PHOTO\tof\n a CAT ") == tokenize("a photo of a cat")
    assert tokenize("") == []


def test_neither_open_clip_nor_torchvision_is_imported():
    code = (
        "import sys; from lib_hellomeme.standalone.prompts import tokenize; tokenize('x');"
        "sys.exit('open_clip' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@given(st.lists(st.sampled_from([WORD, COMMA, 5, 6, 7]), max_size=400))
def test_chunks_hold_every_token_in_order(tokens):
    chunks = chunk_tokens(tokens)
    assert all(len(chunk) == 77 and chunk[0] == START and chunk[-1] == END for chunk in chunks)
    assert [token for chunk in chunks for token in chunk if token not in (START, END)] == tokens


@pytest.mark.parametrize(
    ("tokens", "lengths"),
    [
        ([], [0]),
        ([WORD] * 75, [75]),
        ([WORD] * 76, [75, 1]),
        ([WORD] * 74 + [COMMA], [75]),
        ([WORD] * 69 + [COMMA] + [WORD] * 10, [70, 10]),  # the words after the comma stay together
        ([WORD] * 55 + [COMMA] + [WORD] * 20, [56, 20]),  # the comma is 20 tokens back
        ([WORD] * 54 + [COMMA] + [WORD] * 21, [75, 1]),  # too far back
        ([WORD] * 70 + [COMMA] + [WORD] * 4 + [COMMA, WORD], [75, 2]),  # a comma is torn off without harm
    ],
)
def test_chunks_end_at_commas_like_the_webuis(tokens, lengths):
    assert [sum(token not in (START, END) for token in chunk) for chunk in chunk_tokens(tokens)] == lengths


def test_chunks_are_encoded_alone_and_joined(model):
    long = encode_prompt(model.text_encoder, "word " * 75 + "cat")
    assert long.shape == (1, 154, 64)
    torch.testing.assert_close(long[:, 77:], encode_prompt(model.text_encoder, "cat"))
    assert encode_prompt(model.text_encoder, "").shape == (1, 77, 64)
    assert not torch.equal(long[:, 77:], encode_prompt(model.text_encoder, "dog"))


def test_a_missing_vocabulary_is_one_line(monkeypatch):
    monkeypatch.setattr(prompts.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="open_clip_torch"):
        prompts._vocabulary_file()
