"""A row: the candidates of one layer, and what each does to the outputs."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .bits_candidates import Fit, is_sum

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """The candidates of a site and what they do to the outputs.

    Args:
        site: name of the site; sites that share its weight follow it.
        dense_bits: of leaving it as it is.
        fits: the candidates, by rising bits.
        divergence: of the outputs, one entry a candidate.
    """

    site: str
    dense_bits: int
    fits: tuple[Fit, ...]
    divergence: tuple[float, ...]

    @property
    def sums(self) -> tuple[Fit, ...]:
        """Those of the candidates that are sums."""
        return tuple(fit for fit in self.fits if is_sum(fit.form))

    def without_sums(self) -> "Row":
        """The row as it is where no sums are tried."""
        return self._of([not is_sum(fit.form) for fit in self.fits])

    def with_better_sums(self) -> "Row":
        """The row with those sums alone that are better than all codes of no more bits."""
        pairs = list(zip(self.fits, self.divergence, strict=True))
        codes = [(fit.bits, lost) for fit, lost in pairs if not is_sum(fit.form)]
        return self._of(
            [
                not is_sum(fit.form) or all(lost < v for bits, v in codes if bits <= fit.bits)
                for fit, lost in pairs
            ]
        )

    def weighed(self) -> Vector:
        """The divergences, smoothed: rising with the error, half way to proportional to it.

        Some samples say little of small differences. Isotonic regression of the logarithms
        takes out what falls while the error rises; the rest of the noise is halved by the
        line through them of slope one, which is what theory expects of small errors. Sums
        are laid on the line of the codes, so that what codes weigh does not depend on them.
        """
        error = np.log(np.maximum([fit.error for fit in self.fits], 1e-12))
        measured = np.log(np.maximum(self.divergence, 1e-12))
        codes = np.array([not is_sum(fit.form) for fit in self.fits], dtype=bool)
        if not codes.any():
            codes[:] = True
        order = np.flatnonzero(codes)[np.argsort(error[codes], kind="stable")]
        risen = measured.copy()
        risen[order] = isotonic(measured[order])
        line = error + float(np.median(measured[codes] - error[codes]))
        return np.exp((risen + line) / 2)

    def _of(self, kept: list[bool]) -> "Row":
        at = [i for i, is_kept in enumerate(kept) if is_kept]
        fits = tuple(self.fits[i] for i in at)
        lost = tuple(self.divergence[i] for i in at)
        return Row(self.site, self.dense_bits, fits, lost)


def isotonic(y: Vector) -> Vector:
    """The non-decreasing sequence nearest to y in least squares: pool adjacent violators.

    Example:
        >>> isotonic(np.array([1.0, 3.0, 2.0, 4.0])).tolist()
        [1.0, 2.5, 2.5, 4.0]
    """
    pools: list[tuple[float, int]] = []
    for value in y.tolist():
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m), (b, n) = pools[-2:]
            pools[-2:] = [((a * m + b * n) / (m + n), m + n)]
    return np.array([value for value, count in pools for _ in range(count)])
