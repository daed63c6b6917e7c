"""Makes lib_hellomeme/face/mean_face.json: `python -m tests.face.make_mean_face`.

MediaPipe's face mesh (its wheel carries no 3D face) is run on the hundred faces of scikit-image's `lfw_subset`,
enlarged from 25 px, and on their mirror images. The meshes are aligned by similarities (generalised Procrustes), their
median is made symmetric and turned so that forehead (10) and chin (152) are equally far away.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from scipy.spatial import KDTree

import lib_hellomeme.face.mean_face as mean_face
from lib_hellomeme.face.landmarks import FACE_SPAN, MESH_POINTS
from lib_hellomeme.face.mediapipe_solutions import MediaPipeSolutions

SOURCE = (
    "Average of MediaPipe 0.10.21 face meshes (Apache-2.0) over the 100 faces of skimage.data.lfw_subset "
    "(Labeled Faces in the Wild); made by tests/face/make_mean_face.py"
)
MIRROR = np.array([-1.0, 1.0, 1.0])


def align(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The (n, 3) source points moved by the similarity that takes them closest to the target."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    left, values, right = np.linalg.svd(b.T @ a)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    scale = values @ signs / (a**2).sum()
    return scale * a @ (left @ np.diag(signs) @ right).T + target.mean(axis=0)


def median_shape(shapes: np.ndarray) -> np.ndarray:
    mean = shapes[0] - shapes[0].mean(axis=0)
    for _ in range(8):
        mean = np.median([align(shape, mean) for shape in shapes], axis=0)
    return mean


def mirror_partners(shape: np.ndarray) -> np.ndarray:
    """For each landmark the one on the other side: (468,) indices."""
    reflected = (shape - shape.mean(axis=0)) * MIRROR
    target = shape - shape.mean(axis=0)
    partners = np.arange(MESH_POINTS)
    for _ in range(30):
        partners = np.asarray(KDTree(target).query(reflected)[1])
        reflected = align(reflected, target[partners])
    if not np.array_equal(partners[partners], np.arange(MESH_POINTS)):
        raise ValueError("the mesh's two sides do not pair up")
    return partners


def meshes() -> np.ndarray:
    """(faces, 468, 3): x right, y up, z to the camera."""
    found = []
    for face in skimage.data.lfw_subset()[:100]:
        large = cv2.resize((np.clip(face, 0, 1) * 255).astype(np.uint8), (200, 200), interpolation=cv2.INTER_CUBIC)
        picture = cv2.cvtColor(np.pad(large, 100, constant_values=128), cv2.COLOR_GRAY2RGB)
        for view in (picture, picture[:, ::-1]):
            found += [mesh[:MESH_POINTS] * [1.0, -1.0, -1.0] for mesh in MediaPipeSolutions().meshes(view)[:1]]
    return np.array(found)


def upright(shape: np.ndarray) -> np.ndarray:
    """Axes from the face itself; the origin in the middle of what the published points span; the span is 1 unit."""
    right = shape[454] - shape[234]
    right /= np.linalg.norm(right)
    up = shape[10] - shape[152]
    up -= right * (up @ right)
    up /= np.linalg.norm(up)
    turned = shape @ np.stack([right, up, np.cross(right, up)]).T
    span = turned[list(FACE_SPAN)]
    centre = (span.min(axis=0) + span.max(axis=0)) / 2
    centre[2] = turned[:, 2].mean()
    return (turned - centre) / np.ptp(span[:, :2], axis=0).max()


def main() -> None:
    shapes = meshes()
    print(f"{len(shapes)} meshes")
    first = median_shape(shapes)
    partners = mirror_partners(first)
    symmetric = median_shape(np.concatenate([shapes, shapes[:, partners] * MIRROR]))
    symmetric = (symmetric + align(symmetric[partners] * MIRROR, symmetric)) / 2
    points = [[round(value, 5) + 0.0 for value in point] for point in upright(symmetric).tolist()]
    text = json.dumps({"source": SOURCE, "points": points}).replace("], [", "],\n[")
    Path(mean_face.__file__).with_name("mean_face.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
