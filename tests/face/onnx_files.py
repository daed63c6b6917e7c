"""Small ONNX files with the inputs and outputs of the published face models, written without the package onnx.

Each network is linear: the input, averaged over a grid of cells, times seeded weights, plus a bias. So what it answers
depends on crop, alignment, order of the colours and their range. Messages and field numbers: onnx.proto of ONNX.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from lib_hellomeme.face.published_detector import BINS, INPUT_SHAPE, STRIDES

FLOAT, INT64 = 1, 7


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | str | bytes) -> bytes:
    """One field of a message: a number, or text, bytes or a message within."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, values: np.ndarray) -> bytes:
    kind = INT64 if values.dtype == np.int64 else FLOAT
    dims = b"".join(field(1, side) for side in values.shape)
    return dims + field(2, kind) + field(8, name) + field(9, values.tobytes())


def value_info(name: str, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(field(1, field(1, side)) for side in shape)
    return field(1, name) + field(2, field(1, field(1, FLOAT) + field(2, dims)))


def node(kind: str, inputs: list[str], output: str, **lists: list[int]) -> bytes:
    names = b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind)
    for name, numbers in lists.items():
        names += field(5, field(1, name) + b"".join(field(8, number) for number in numbers) + field(20, 7))
    return names


def write_linear(
    path: Path,
    side: tuple[int, int],
    cell: tuple[int, int],
    outputs: dict[str, tuple[tuple[int, ...], float, np.ndarray]],
) -> None:
    """outputs: by name the shape, how strongly it depends on the picture, and the bias."""
    cells = 3 * (side[0] // cell[0]) * (side[1] // cell[1])
    nodes = [node("AveragePool", ["input"], "pooled", kernel_shape=[*cell], strides=[*cell])]
    nodes.append(node("Flatten", ["pooled"], "flat"))
    constants, described = [], []
    for name, (shape, strength, bias) in outputs.items():
        rng = np.random.RandomState(zlib.crc32(name.encode()))
        weight = strength * rng.standard_normal((cells, bias.size)) / np.sqrt(cells)
        constants += [tensor(f"{name}.weight", weight.astype(np.float32))]
        constants += [tensor(f"{name}.bias", bias.reshape(1, -1).astype(np.float32))]
        constants += [tensor(f"{name}.shape", np.array(shape, np.int64))]
        nodes.append(node("MatMul", ["flat", f"{name}.weight"], f"{name}.product"))
        nodes.append(node("Add", [f"{name}.product", f"{name}.bias"], f"{name}.sum"))
        nodes.append(node("Reshape", [f"{name}.sum", f"{name}.shape"], name))
        described.append(value_info(name, shape))
    graph = b"".join(field(1, one) for one in nodes) + field(2, "linear")
    graph += b"".join(field(5, one) for one in constants)
    graph += field(11, value_info("input", (1, 3, *side))) + b"".join(field(12, one) for one in described)
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13)))


def write_face_models(folder: Path) -> Path:
    """All four, into the folder. The detector sees faces mostly in two places; the landmarks lie on an oval."""
    write_detector(folder / "hello_face_det.onnx")
    angles = np.linspace(0, 2 * np.pi, 222, endpoint=False)
    oval = 0.5 + 0.42 * np.stack([np.cos(angles), np.sin(angles)])  # with the margin its picture is cut with: it stays
    oval[:, 74], oval[:, 96], oval[:, 0], oval[:, 32] = (0.3, 0.42), (0.7, 0.42), (0.1, 0.4), (0.9, 0.42)
    oval[:, 182], oval[:, 202], oval[:, 36], oval[:, 33] = (0.38, 0.42), (0.62, 0.42), (0.5, 0.6), (0.5, 0.4)
    oval[:, 133], oval[:, 149] = (0.63, 0.74), (0.38, 0.75)
    write_linear(
        folder / "hello_face_landmark.onnx",
        (128, 128),
        (16, 16),
        {
            "landmark": ((1, 444), 0.02, oval.reshape(-1)),
            "euler": ((1, 3), 0.3, np.array([0.1, -0.2, 0.0])),
            "prob": ((1, 1), 0.01, np.array([0.9])),
        },
    )
    head = np.zeros(1201)
    head[1198:] = [0.01, -0.02, -5.0]
    write_linear(folder / "hello_3dmm.onnx", (224, 224), (28, 28), {"coeffs": ((1, 1201), 0.2, head)})
    write_linear(folder / "hello_arkit_blendshape.onnx", (224, 224), (28, 28), {"bs": ((1, 51), 0.5, np.full(51, 0.3))})
    return folder


def write_detector(path: Path) -> None:
    """Scores near 0.45 in a middle cell and its neighbours of the second level, and in one of the third."""
    outputs: dict[str, tuple[tuple[int, ...], float, np.ndarray]] = {}
    for index, stride in enumerate(STRIDES):
        rows, columns = (int(np.ceil(side / stride)) for side in INPUT_SHAPE)
        scores = np.full((rows, columns), 0.05)
        if index == 1:
            scores[7:9, 4:6] = 0.6
        if index == 2:
            scores[1, 1] = 0.55
        outputs[f"score{stride}"] = ((1, rows * columns, 1), 0.02, scores.reshape(-1))
    for stride in STRIDES:
        cells = outputs[f"score{stride}"][0][1]
        likely = np.zeros((cells, 4, BINS))
        likely[..., 1] = 3.0
        outputs[f"box{stride}"] = ((1, cells, 4 * BINS), 0.5, likely.reshape(-1))
    write_linear(path, INPUT_SHAPE, (68, 80), outputs)
