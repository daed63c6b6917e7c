"""Faces rendered from a 3D head with known rotation and known movement, to measure extractors with.

The head is a photo's texture on the 468 points of the face mesh (in 3D, as MediaPipe fits them to the photo) with rings
of hair and neck around it; the mouth is closed by taking the average face's lips. It is turned, its points are moved
for an expression, and it is drawn through a perspective camera with the painter's algorithm.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from scipy.spatial import Delaunay

from lib_hellomeme.face.camera import rotation_matrix
from lib_hellomeme.face.landmarks import ANCHORS, MESH_POINTS
from lib_hellomeme.face.mean_face import mean_face

OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
RINGS = ((1.10, 0.10), (1.25, 0.30), (1.45, 0.60))  # size in face ovals, distance behind the face in face widths
MOUTH_COLOUR = (70, 25, 25)
LIPS = (*ANCHORS["mouth_outer"], *ANCHORS["mouth_inner"])


class Head(NamedTuple):
    picture: np.ndarray  # RGB uint8
    texture: np.ndarray  # (n, 2) px in the picture
    points: np.ndarray  # (n, 3) in the frame of mean_face(); the first 468 are the mesh
    triangles: np.ndarray  # (m, 3)


def align_to_mean_face(mesh: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(468, 3), x right, y up, z to the camera, by a 3D similarity on the whole average face; with the way back.

    points @ back + offset is the mesh again. Independent of the extractor's perspective fit.
    """
    target = mean_face()
    a, b = mesh - mesh.mean(axis=0), target - target.mean(axis=0)
    left, values, right = np.linalg.svd(b.T @ a)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    linear = (values @ signs / (a**2).sum()) * left @ np.diag(signs) @ right
    aligned = a @ linear.T + target.mean(axis=0)
    back = np.linalg.inv(linear.T)
    return aligned, back, mesh.mean(axis=0) - target.mean(axis=0) @ back


def make_head(picture: np.ndarray, mesh: np.ndarray, shape: np.ndarray | None = None) -> Head:
    """From a photo and its landmarks (478, 3) px; `shape` (468, 3) replaces the photo's own geometry."""
    own, back, offset = align_to_mean_face(mesh[:MESH_POINTS] * [1.0, -1.0, -1.0])
    seen = with_rings(own) @ back + offset  # the photo shows the head's own shape there
    texture = seen[:, :2] * [1.0, -1.0]
    points = with_rings(close_mouth(own if shape is None else shape))
    return Head(picture, texture, points, Delaunay(with_rings(mean_face())[:, :2]).simplices)


def with_rings(points: np.ndarray) -> np.ndarray:
    oval = points[list(OVAL)]
    centre = oval.mean(axis=0)
    rings = [(oval - centre) * [size, size, 1.0] + centre - [0.0, 0.0, depth] for size, depth in RINGS]
    return np.concatenate([points, *rings])


def close_mouth(points: np.ndarray) -> np.ndarray:
    """The average face's lips, with its slight gap shut."""
    closed = points.copy()
    closed[list(LIPS)] = (
        mean_face()[list(LIPS)] + points[list(LIPS)].mean(axis=0) - mean_face()[list(LIPS)].mean(axis=0)
    )
    inner = ANCHORS["mouth_inner"]
    for below, above in zip(inner[1:10], inner[:10:-1], strict=True):
        gap = closed[above] - closed[below]
        closed[above] -= gap * 0.45
        closed[below] += gap * 0.45
    return closed


def express(points: np.ndarray, amounts: dict[str, float]) -> np.ndarray:
    """The points moved by ARKit's names in [0, 1]; those of `movements` are known. Gaze is painted: `with_gaze`."""
    known = movements(points[:MESH_POINTS])
    moved = points.copy()
    for name, amount in amounts.items():
        if not name.startswith("eyeLook"):
            moved[:MESH_POINTS] += amount * known[name]
    return moved


def movements(points: np.ndarray) -> dict[str, np.ndarray]:
    """By name, (468, 3): the way of each point at amount 1."""
    lips = points[list(LIPS)]
    pucker = (lips.mean(axis=0) - points) * [0.4, 0.1, 0.0] + [0.0, 0.0, 0.03]
    ways = {
        "jawOpen": _jaw(points),
        "browInnerUp": _bump(points, points[[107, 336, 55, 285]], 0.09) * [0.0, 0.08, 0.0],
        "mouthPucker": _bump(points, lips, 0.05) * pucker,
    }
    for side, outward, corner in (("Right", -1.0, 61), ("Left", 1.0, 291)):
        eye, brow = ANCHORS[f"{side.lower()}_eye"], ANCHORS[f"{side.lower()}_brow"]
        ways[f"eyeBlink{side}"] = _lid(points, eye)
        ways[f"mouthSmile{side}"] = _bump(points, points[corner], 0.13) * [0.06 * outward, 0.09, -0.03]
        ways[f"mouthFrown{side}"] = _bump(points, points[corner], 0.1) * [-0.01 * outward, -0.07, 0.0]
        ways[f"browDown{side}"] = _bump(points, points[list(brow)], 0.07) * [-0.02 * outward, -0.06, 0.0]
        ways[f"browOuterUp{side}"] = _bump(points, points[[brow[0], brow[1], brow[8], brow[9]]], 0.09) * [
            0.0,
            0.07,
            0.0,
        ]
    return ways


def with_gaze(head: Head, amounts: dict[str, float]) -> Head:
    """Painted eyes that look by eyeLook{In, Out, Up, Down}{Left, Right}; at 1 the eyeballs are turned by 30 degrees."""
    picture = head.picture.copy()
    for side, outward in (("Right", -1.0), ("Left", 1.0)):
        across = amounts.get(f"eyeLookOut{side}", 0.0) - amounts.get(f"eyeLookIn{side}", 0.0)
        down = amounts.get(f"eyeLookDown{side}", 0.0) - amounts.get(f"eyeLookUp{side}", 0.0)
        outline = head.texture[list(ANCHORS[f"{side.lower()}_eye"])]
        width = float(np.linalg.norm(outline[0] - outline[8]))
        turn = np.array([across * outward, down]) * np.sin(np.radians(30.0)) * EYEBALL_RADIUS * width
        _paint_eye(picture, outline, (outline[0] + outline[8]) / 2 + [0.0, -0.04 * width] + turn, width)
    return head._replace(picture=picture)


EYEBALL_RADIUS = 0.4  # 12 mm, of an eye's width of 30 mm
IRIS_RADIUS = 0.2


def _paint_eye(picture: np.ndarray, outline: np.ndarray, centre: np.ndarray, width: float) -> None:
    """Only about the eye, as the photo is large."""
    corner = np.floor(outline.min(axis=0) - 0.2 * width).astype(int)
    end = np.ceil(outline.max(axis=0) + 0.2 * width).astype(int)
    part = picture[corner[1] : end[1], corner[0] : end[0]]
    layer = np.empty_like(part)
    layer[:] = (215, 205, 200)
    middle = np.rint(centre - corner).astype(int).tolist()
    cv2.circle(layer, middle, round(IRIS_RADIUS * width), (70, 50, 35), -1, cv2.LINE_AA)
    cv2.circle(layer, middle, round(0.45 * IRIS_RADIUS * width), (15, 12, 10), -1, cv2.LINE_AA)
    mask = np.zeros(part.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.rint(outline - corner).astype(np.int32)], (255,))
    blend = cv2.GaussianBlur(mask, (0, 0), 0.02 * width)[..., None] / 255.0
    part[:] = np.rint(part * (1 - blend) + layer * blend).astype(np.uint8)


def _bump(points: np.ndarray, centres: np.ndarray, width: float) -> np.ndarray:
    """(468, 1): 1 at the centres, falling off around them."""
    distances = np.linalg.norm(points[:, None] - np.atleast_2d(centres)[None], axis=2).min(axis=1)
    return np.exp(-((distances / width) ** 2))[:, None]


def _jaw(points: np.ndarray) -> np.ndarray:
    """A turn by 16 degrees about the ears, of everything below the lips' line."""
    hinge = (points[234] + points[454]) / 2
    turn = np.radians(16.0)
    relative = points - hinge
    y = relative[:, 1] * np.cos(turn) - relative[:, 2] * np.sin(turn)
    z = relative[:, 1] * np.sin(turn) + relative[:, 2] * np.cos(turn)
    way = np.column_stack([np.zeros(len(points)), y - relative[:, 1], z - relative[:, 2]])
    line = points[[13, 14], 1].mean()
    weight = np.clip((line - points[:, 1]) / 0.06 + 0.5, 0.0, 1.0)
    corners = points[list(ANCHORS["mouth_corners"])]
    weight = np.maximum(weight, 0.5 * _bump(points, corners, 0.05)[:, 0])
    upper = [i for i in LIPS if i in _UPPER_LIP]
    lower = [i for i in LIPS if i in _LOWER_LIP]
    weight[upper], weight[lower] = 0.0, 1.0
    sides = np.clip(1.0 - (np.abs(points[:, 0]) - 0.25) / 0.25, 0.0, 1.0)
    return way * (weight * sides)[:, None]


_LOWER_LIP = {*ANCHORS["mouth_outer"][1:10], *ANCHORS["mouth_inner"][1:10]}
_UPPER_LIP = {*ANCHORS["mouth_outer"][11:], *ANCHORS["mouth_inner"][11:]}


def _lid(points: np.ndarray, eye: tuple[int, ...]) -> np.ndarray:
    """The upper lid comes down onto the lower one, drawing the skin above it along."""
    way = np.zeros((MESH_POINTS, 3))
    upper, lower = eye[:8:-1], eye[1:8]
    drop = points[list(lower)] - points[list(upper)]
    distances = np.linalg.norm(points[:, None, :2] - points[list(upper)][None, :, :2], axis=2)
    nearest = distances.argmin(axis=1)
    above = points[:, 1] >= points[list(upper)][nearest, 1] - 1e-6
    weight = np.exp(-((distances.min(axis=1) / 0.045) ** 2)) * above
    way += drop[nearest] * weight[:, None]
    way[list(lower)] = 0.0
    way[[eye[0], eye[8]]] = 0.0
    way[list(upper)] = drop
    return way


def render(
    head: Head,
    rotation: np.ndarray,
    amounts: dict[str, float] | None = None,
    size: int = 512,
    face_width: float = 190.0,
    distance: float = 6.0,
    background: int = 128,
) -> np.ndarray:
    """RGB uint8 (size, size, 3): the head at rotation (3,) radians, `distance` face widths from the camera."""
    points = express(head.points, amounts or {}) @ rotation_matrix(rotation)
    factor = 2  # drawn larger for smooth edges
    side = size * factor
    depth = distance - points[:, 2]
    screen = points[:, :2] / depth[:, None] * [1.0, -1.0] * face_width * distance * factor + side / 2
    triangles = head.triangles[np.argsort(-depth[head.triangles].mean(axis=1))]
    edges = _edges(screen[triangles])
    seen = np.abs(np.linalg.det(edges)) >= 1e-3  # the others are seen from their side
    triangles, edges = triangles[seen], edges[seen]
    which = np.full((side, side), -1, np.int32)  # the triangle at each pixel
    for index, corners in enumerate(np.rint(screen[triangles] * 16).astype(np.int32)):
        cv2.fillConvexPoly(which, corners, (index,), shift=4)
    linear = _edges(head.texture[triangles]) @ np.linalg.inv(edges)  # t 2 2, pixels of the screen to the photo's
    first = triangles[:, 0]
    offset = head.texture[first] - np.einsum("tij,tj->ti", linear, screen[first])
    left, top, width, height = cv2.boundingRect((which >= 0).astype(np.uint8))
    rows, columns = slice(top, top + height), slice(left, left + width)
    which = which[rows, columns]
    matrices = np.dstack([linear, offset]).astype(np.float32)[which]  # h w 2 3
    y, x = (np.arange(side, dtype=np.float32)[each] for each in (rows, columns))
    maps = matrices[..., 0] * x[:, None] + matrices[..., 1] * y[:, None, None] + matrices[..., 2]  # h w 2
    drawn = cv2.remap(head.picture, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    dark = np.all(np.isin(triangles, ANCHORS["mouth_inner"]), axis=1)
    drawn[np.take(dark, which)] = MOUTH_COLOUR
    drawn[which < 0] = background
    canvas = np.full((side, side, 3), background, np.uint8)
    canvas[rows, columns] = drawn
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)


def _edges(corners: np.ndarray) -> np.ndarray:
    """Triangles (t, 3, 2) to (t, 2, 2): columns that lead from the first corner to the others."""
    return (corners[:, 1:] - corners[:, :1]).transpose(0, 2, 1)
