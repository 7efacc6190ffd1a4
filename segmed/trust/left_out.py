"""Regressions of calibration cases, one without each subject, and the ranges that jackknife+ makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segmed.trust.conformal import lower_bound, subject_weights, upper_bound

PENALTY = 3.0  # on standardised signs: as much as so many cases that say nothing
FAR = 6.0  # standard deviations; a sign that lies farther out counts as there


class LeftOut:
    """Fits of the same targets, each without the cases of one subject.

    The residual of a case is that of the fit which did not see it, so it is as large as that of a new case.

    Args:
        signs: (N, J) of the calibration cases.
        targets: (N,).
        subjects: (N,) whose cases are left out together.
    """

    def __init__(self, signs: np.ndarray, targets: np.ndarray, subjects: Sequence[int] | np.ndarray) -> None:
        given = np.asarray(subjects)
        self._fits = {one: _Ridge(signs[given != one], targets[given != one]) for one in np.unique(given)}
        self._of_case = [self._fits[one] for one in given]
        fitted = np.array([fit(row) for fit, row in zip(self._of_case, signs, strict=True)])
        self.residuals = targets - fitted

    def predict(self, signs: np.ndarray) -> np.ndarray:
        """What the fit without each calibration case says of a new one.

        Args:
            signs: (N, J) of the new case, as the predictor of each calibration case shows them.

        Returns:
            (N,).
        """
        return np.array([fit(row) for fit, row in zip(self._of_case, signs, strict=True)])


class Ranges:
    """Ranges of true values around counted ones, by jackknife+ on a scale where errors are alike.

    Args:
        counted: (N,) of the calibration cases, on that scale.
        true: (N,).
        doubts: (N, J) signs that tell how far the true value is from the counted one, and in which direction.
        unease: (N,) to which errors are in proportion.
        subjects: (N,).
    """

    def __init__(
        self,
        counted: np.ndarray,
        true: np.ndarray,
        *,
        doubts: np.ndarray,
        unease: np.ndarray,
        subjects: Sequence[int] | np.ndarray,
    ) -> None:
        self._fits = LeftOut(doubts, true - counted, subjects)
        self._unease = unease
        self._weights = subject_weights(subjects)

    def around(
        self, counted: np.ndarray, *, doubts: np.ndarray, unease: np.ndarray, level: float
    ) -> tuple[float, float]:
        """The range of a new case, whose counted value, doubts and unease are those of each case's own predictor."""
        middle = counted + self._fits.predict(doubts)
        reach = np.abs(self._fits.residuals) * unease / self._unease
        low = lower_bound(middle - reach, self._weights, level)
        return low, upper_bound(middle + reach, self._weights, level)


class _Ridge:
    """Mean of the targets, and what standardised signs add to it."""

    def __init__(self, signs: np.ndarray, targets: np.ndarray) -> None:
        self._mean = signs.mean(axis=0)
        self._sd = np.maximum(signs.std(axis=0), 1e-9)
        self._level = float(targets.mean())
        x = self._standardised(signs)
        self._slopes = np.linalg.solve(x.T @ x + PENALTY * np.eye(x.shape[1]), x.T @ (targets - self._level))

    def __call__(self, signs: np.ndarray) -> float:
        return self._level + float(self._standardised(signs) @ self._slopes)

    def _standardised(self, signs: np.ndarray) -> np.ndarray:
        return np.clip((signs - self._mean) / self._sd, -FAR, FAR)
