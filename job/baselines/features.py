"""What classical methods are given instead of pixels, each a pure function of one image.

`pixels`     the image itself
`deskewed`   the image moved to the middle and sheared upright by its moments (LeCun et al.,
             "Gradient-based learning applied to document recognition", Proc. IEEE 1998, III.A)
`gradients`  of the deskewed image, how strong its edges are in each of 8 directions, in 7 × 7
             overlapping cells (Dalal and Triggs, "Histograms of oriented gradients for human
             detection", CVPR 2005, with signed directions and their "L1-sqrt" over the whole image)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

DIRECTIONS = 8
CELLS = 7
# Images at a time: bounds the memory for what is in between.
PART = 4000


def features_of(kind: str, images: np.ndarray) -> np.ndarray:
    """Features float32 (n, d) of uint8 images (n, height, width, channels), by a key of `KINDS`."""
    return np.concatenate([KINDS[kind](part) for part in _parts(images)])


def pixels(images: np.ndarray) -> np.ndarray:
    """The pixels in [0, 1]; 784 of MNIST."""
    return images.reshape(len(images), -1).astype(np.float32) / 255


def deskewed(images: np.ndarray) -> np.ndarray:
    """The brightness in [0, 1] of images moved to the middle and sheared upright; 784 of MNIST."""
    return _upright(images).reshape(len(images), -1)


def _upright(images: np.ndarray) -> np.ndarray:
    """Deskewed brightness float32 (n, height, width)."""
    from scipy import ndimage

    gray = images.mean(axis=3, dtype=np.float32) / 255
    shear, center = slant(gray)
    middle, across = ((side - 1) / 2 for side in gray.shape[1:])
    upright = np.empty_like(gray)
    for image, into, slope, (row, column) in zip(gray, upright, shear, center, strict=True):
        # From a pixel of the result to where its value comes from.
        offset = (row - middle, column - across - slope * middle)
        matrix = ((1, 0), (slope, 1))
        ndimage.affine_transform(image, matrix, offset, output=into, order=1)
    return upright


def slant(gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How images (n, height, width) lean, in columns a row (n,), and their centers of mass (n, 2).

    A center is row and column. An empty image stands upright in the middle.
    """
    down, across = (np.arange(side) - (side - 1) / 2 for side in gray.shape[1:])
    mass = gray.sum(axis=(1, 2))
    mass = np.where(mass > 0, mass, 1)

    def mean(weights: np.ndarray) -> np.ndarray:
        return np.tensordot(gray, weights, 2) / mass

    rows, columns = np.meshgrid(down, across, indexing="ij")
    row, column = mean(rows), mean(columns)
    variance = mean(rows * rows) - row * row
    covariance = mean(rows * columns) - row * column
    shear = np.divide(covariance, variance, out=np.zeros_like(variance), where=variance > 1e-3)
    return shear, np.stack([row - float(down[0]), column - float(across[0])], axis=1)


def gradients(images: np.ndarray) -> np.ndarray:
    """Strength of edges by direction and cell of deskewed images, (n, 392), of length 1."""
    gray = _upright(images)
    down, right = np.gradient(gray, axis=(1, 2))
    strength = np.hypot(down, right)
    # An edge between two directions counts for both, the more the nearer it is.
    direction = np.arctan2(down, right) * (DIRECTIONS / (2 * np.pi)) % DIRECTIONS
    above, beside = map(cell_weights, gray.shape[1:])
    found = []
    for number in range(DIRECTIONS):
        apart = np.abs(direction - number)
        share = np.clip(1 - np.minimum(apart, DIRECTIONS - apart), 0, None)
        found.append(np.einsum("ir,nrc,jc->nij", above, strength * share, beside, optimize=True))
    histogram = np.stack(found, axis=1).reshape(len(images), -1)
    total = histogram.sum(axis=1, keepdims=True)
    return np.sqrt(histogram / np.where(total > 0, total, 1)).astype(np.float32)


def cell_weights(side: int) -> np.ndarray:
    """How much each row of pixels counts for each row of cells, float32 (7, side); or column.

    It is a bell around the cell's middle, half a cell wide.
    """
    centers = (np.arange(CELLS) + 0.5) * (side / CELLS) - 0.5
    apart = (np.arange(side) - centers[:, None]) / (side / CELLS / 2)
    return np.exp(-0.5 * apart**2).astype(np.float32)


def _parts(images: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(images), PART):
        yield images[start : start + PART]


KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "pixels": pixels,
    "deskewed": deskewed,
    "gradients": gradients,
}
