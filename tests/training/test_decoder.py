"""What the decoder's stage looks at."""

from __future__ import annotations

import numpy as np

from lib_hellomeme.training.data import FEATURES
from lib_hellomeme.training.decoder import near_features
from lib_hellomeme.training.people import Region


def test_places_near_small_features_weigh_as_much_as_they_do() -> None:
    regions = np.full((1, 64, 64), Region.SKIN, np.uint8)
    regions[0, 30, 10:20] = FEATURES[0]
    weights = near_features(regions)
    assert weights.shape == regions.shape
    assert weights.dtype == np.float32
    assert (weights[0, 28:33, 8:22] == 4).all()
    assert weights[0, 27, 15] == weights[0, 30, 22] == 1
