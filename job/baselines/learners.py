"""The parts of a classical method: features, their principal components, and who learns from them.

scikit-learn, which takes a second to import, is imported where it is needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from job.baselines.features import features_of
from job.baselines.methods import Method, Values

if TYPE_CHECKING:
    from sklearn.decomposition import PCA

# Settings of support vector machines are compared on so many training rows.
SEARCH_ROWS = 12_000
# For kernel values, of each machine in training.
CACHE_MB = 400

Predictor = Callable[[np.ndarray], np.ndarray]
Tried = list[tuple[Values, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """From images to what is learned from: features, their principal components, and one factor.

    The factor makes the mean square length of the training rows 1.
    """

    features: str
    pca: PCA | None
    factor: float

    @classmethod
    def fit(
        cls, features: str, components: int | None, images: np.ndarray
    ) -> tuple[Preparation, np.ndarray]:
        """Learns it from training images uint8 (n, 28, 28, 1).

        Args:
            features: A key of `job.baselines.features.KINDS`.
            components: How many are kept, at most; None for the features themselves.
            images: The training images.

        Returns:
            The preparation, and what it makes of these images.
        """
        found = features_of(features, images)
        pca = None
        if components:
            from sklearn.decomposition import PCA

            # Exact, and much faster than others for many rows of few features.
            pca = PCA(min(components, *found.shape), svd_solver="covariance_eigh")
            found = pca.fit_transform(found)
        square = float((found**2).sum(axis=1).mean())
        factor = square**-0.5 if square else 1.0
        return cls(features=features, pca=pca, factor=factor), found * np.float32(factor)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Prepares images uint8 (n, 28, 28, 1) as float32 (n, d)."""
        found = features_of(self.features, images)
        if self.pca is not None:
            found = self.pca.transform(found)
        return found * np.float32(self.factor)


class Learner(Protocol):
    """Learns labels from prepared rows (n, d)."""

    def search(
        self,
        candidates: Sequence[Values],
        rows: np.ndarray,
        labels: np.ndarray,
        asked: np.ndarray,
        answers: np.ndarray,
    ) -> Tried:
        """The validation accuracy of each of these settings that can be used."""

    def fit(self, settings: Values, rows: np.ndarray, labels: np.ndarray) -> Predictor:
        """What predicts the labels of other rows."""


class Neighbours:
    """The k nearest training rows vote, all alike (`uniform`) or by the inverse of `distance`."""

    def search(
        self,
        candidates: Sequence[Values],
        rows: np.ndarray,
        labels: np.ndarray,
        asked: np.ndarray,
        answers: np.ndarray,
    ) -> Tried:
        """The accuracies of settings with no more neighbours than rows, all from one look."""
        usable = [settings for settings in candidates if settings["neighbours"] <= len(rows)]
        # Looked for once, for all settings.
        found = self._found(max(s["neighbours"] for s in usable), rows, asked)
        return [
            (settings, float((self._vote(settings, labels, *found) == answers).mean()))
            for settings in usable
        ]

    def fit(self, settings: Values, rows: np.ndarray, labels: np.ndarray) -> Predictor:
        """Keeps the rows; the votes are counted when labels are asked for."""

        def predict(asked: np.ndarray) -> np.ndarray:
            return self._vote(settings, labels, *self._found(settings["neighbours"], rows, asked))

        return predict

    def _found(
        self, count: int, rows: np.ndarray, asked: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distances and indices of the nearest rows, nearest first, each (n, count)."""
        from sklearn.neighbors import NearestNeighbors

        return NearestNeighbors(n_neighbors=count, algorithm="brute").fit(rows).kneighbors(asked)

    def _vote(
        self,
        settings: Values,
        labels: np.ndarray,
        distances: np.ndarray,
        indices: np.ndarray,
    ) -> np.ndarray:
        count = settings["neighbours"]
        voices = np.ones_like(distances[:, :count])
        if settings["weights"] == "distance":
            # Of an equal row only a huge voice, which is as good as all.
            voices = 1 / np.maximum(distances[:, :count], 1e-12)
        classes = int(labels.max()) + 1
        cell = np.arange(len(indices))[:, None] * classes + labels[indices[:, :count]]
        sums = np.bincount(cell.ravel(), voices.ravel(), minlength=len(indices) * classes)
        return sums.reshape(-1, classes).argmax(axis=1)


@dataclasses.dataclass(frozen=True)
class SupportVectorMachine:
    """A support vector machine, one against one (libsvm: Chang and Lin, ACM TIST 2011).

    Attributes:
        kernel: Arguments of `sklearn.svm.SVC`.
    """

    kernel: Values

    def search(
        self,
        candidates: Sequence[Values],
        rows: np.ndarray,
        labels: np.ndarray,
        asked: np.ndarray,
        answers: np.ndarray,
    ) -> Tried:
        """The accuracy of each of the settings, learned from at most `SEARCH_ROWS` rows."""
        few = search_rows(labels)
        rows, labels = rows[few], labels[few]
        return [
            (settings, float((self.fit(settings, rows, labels)(asked) == answers).mean()))
            for settings in candidates
        ]

    def fit(self, settings: Values, rows: np.ndarray, labels: np.ndarray) -> Predictor:
        """Trains scikit-learn's SVC on all rows."""
        from sklearn.svm import SVC

        return SVC(cache_size=CACHE_MB, **self.kernel, **settings).fit(rows, labels).predict


def learner_of(method: Method) -> Learner:
    """Nearest neighbours for a method without a kernel, else a support vector machine."""
    return Neighbours() if method.kernel is None else SupportVectorMachine(method.kernel)


def search_rows(labels: np.ndarray) -> np.ndarray:
    """At most `SEARCH_ROWS` random indices, the same for equal labels, every label among them."""
    order = np.random.default_rng(0).permutation(len(labels))
    _, firsts = np.unique(labels[order], return_index=True)
    ahead = np.concatenate([order[firsts], np.delete(order, firsts)])
    return ahead[:SEARCH_ROWS]
