"""The crops that the encoders are shown, and what becomes of their embeddings."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor, nn

from lib_hellomeme.face.edit import retarget
from lib_hellomeme.face.extract import track_picture
from lib_hellomeme.face.track import FaceFrame
from lib_hellomeme.recipes.embeddings import face_parts, pd_fgc_of_nobody, with_face_parts, with_pd_fgc
from lib_hellomeme.settings import Settings

PICTURE = data.astronaut()


class Looking(nn.Module):
    """An encoder that keeps what it is shown and gives each picture's mean colour, repeated to the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = nn.Parameter(torch.zeros(width))
        self.shown = torch.empty(0)

    def forward(self, pictures: Tensor) -> Tensor:
        self.shown = pictures
        return pictures.mean(dim=(1, 2, 3))[:, None].expand(-1, len(self.width)) + self.width


@pytest.fixture(scope="module")
def face() -> FaceFrame:
    return track_picture(PICTURE).frames[0]


def test_pd_fgc_sees_the_face_where_its_template_has_it(face: FaceFrame) -> None:
    encoder = Looking(548)
    embedded = with_pd_fgc(encoder, PICTURE, face)
    assert encoder.shown.shape == (1, 3, 224, 224)
    assert encoder.shown.abs().max() <= 1
    assert embedded.pd_fgc is not None
    # found again in the crop, the pupils lie where HelloMeme's `warp_face_pd_fgc` puts them
    crop = ((encoder.shown[0].permute(1, 2, 0).numpy() + 1) * 127.5).astype(np.uint8)
    again = track_picture(np.ascontiguousarray(crop)).frames[0]
    expected = np.array([[0.3843, 0.27], [0.62, 0.2668]]) * 224
    found = np.concatenate([again.anchors["right_pupil"], again.anchors["left_pupil"]])
    assert np.abs(found - expected).max() < 8


def test_the_parts_are_eye_eye_and_mouth(face: FaceFrame) -> None:
    painted = np.zeros_like(PICTURE)
    for channel, name in enumerate(("right_eye", "left_eye", "mouth_outer")):
        area = np.zeros(PICTURE.shape[:2], np.uint8)
        cv2.fillConvexPoly(area, cv2.convexHull(face.anchors[name].astype(np.int32)), (255,))
        painted[..., channel] = area
    for channel, part in enumerate(face_parts(painted, face)):
        assert part.shape == (224, 224, 3)
        assert part[..., channel].mean() > 20
        assert np.delete(part, channel, axis=2).max() == 0  # of the other parts nothing is seen


def test_clip_is_shown_its_own_normalisation(face: FaceFrame) -> None:
    encoder = Looking(1024)
    embedded = with_face_parts(encoder, PICTURE, face)
    assert embedded.face_parts is not None
    assert embedded.face_parts.shape == (3, 1024)
    mean = np.array([0.48145466, 0.4578275, 0.40821073])
    deviation = np.array([0.26862954, 0.26130258, 0.27577711])
    pixels = np.stack(face_parts(PICTURE, face)) / 255
    expected = torch.from_numpy((pixels - mean) / deviation).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(encoder.shown, expected)


def test_without_a_face_nothing_is_embedded(face: FaceFrame) -> None:
    unseen = replace(face, found=False)
    assert with_pd_fgc(Looking(548), PICTURE, unseen) is unseen
    assert with_face_parts(Looking(1024), PICTURE, unseen) is unseen


def test_nobody_is_an_all_minus_one_picture() -> None:
    encoder = Looking(548)
    assert pd_fgc_of_nobody(encoder) == pytest.approx(np.full(548, -1.0))
    assert (encoder.shown == -1).all()


def test_embeddings_follow_the_expression_weight(face: FaceFrame) -> None:
    own, driver = replace(face, pd_fgc=np.zeros(548)), replace(face, pd_fgc=np.ones(548))
    for weight in (0.0, 0.25, 1.0, 1.5):
        assert retarget(driver, own, Settings(expression_weight=weight)).pd_fgc == pytest.approx(np.full(548, weight))
    assert retarget(driver, face, Settings(expression_weight=0.25)).pd_fgc == pytest.approx(np.ones(548))
