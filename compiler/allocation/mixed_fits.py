"""Mixed fits: bits and error of forms that were really fitted, kept between runs."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from ...device_profiles.errors import PlanError
from ...passes.forms import Form, Metric, Term, text
from ...passes.geometry import Weights
from ..cache import read_arrays, write_arrays
from .bits_candidates import Fit

TERM_BYTES, MOST_TERM_BYTES = 16, 32 << 20
"""Bytes a weight, and of a layer, that terms may take between the draft and the probes."""
_VERSION = 1
_KIND = "fits"


class Fits:
    """What forms come to on one weight in one metric; fitted once, whoever asks.

    Args:
        load: the weight (g, m, c, *kernel) and the metric of what the layer reads; asked for
            when something is to be fitted, and again after `release`.
    """

    def __init__(self, load: Callable[[], tuple[Weights, Metric]]) -> None:
        self._load = load
        self._held: tuple[Weights, Metric] | None = None
        W, metric = self.loaded()
        digest = hashlib.sha256(f"{_VERSION} {W.shape}".encode() + W.tobytes())
        if metric.H is not None:
            digest.update(np.ascontiguousarray(metric.H).data)
        self.digest = digest.hexdigest()
        held = read_arrays(self.digest, _KIND) or {}
        self._known = {n: a for n, a in held.items() if a.shape == (2,)}
        self._is_new = False
        self._terms: dict[str, Term] = {}
        self._taken = 0

    def loaded(self) -> tuple[Weights, Metric]:
        """The weight and the metric."""
        if self._held is None:
            self._held = self._load()
        return self._held

    def release(self) -> None:
        """Writes what is new to the cache, and lets go of the weight and the metric."""
        self._held = None
        if self._is_new:
            write_arrays(self.digest, _KIND, self._known)
            self._is_new = False

    def forget(self) -> None:
        """Lets go of the terms, too."""
        self.release()
        self._terms, self._taken = {}, 0

    def of(self, forms: Sequence[Form]) -> list[Fit]:
        """The fits of those of the forms that the weight takes, in their order."""
        found = [self._one(form) for form in forms]
        return [fit for fit in found if fit is not None]

    def term(self, form: Form) -> Term:
        """The fitted term, and its bits and error noted.

        Raises:
            PlanError: the form does not fit the weight.
        """
        held = self._terms.get(text(form))
        if held is not None:
            return held
        W, metric = self.loaded()
        term = form.compress(W, metric=metric)
        self._keep(form, term, W.size)
        energy = metric.energy(W)
        lost = metric.squared(np.subtract(W, term.decompress(), dtype=np.float64))
        error = max(lost, 0.0) / energy if energy > 0 else 0.0
        self._note(form, float(term.cost().bits), error)
        return term

    def _one(self, form: Form) -> Fit | None:
        name = text(form)
        if name not in self._known:
            try:
                self.term(form)
            except PlanError:
                self._note(form, -1.0, 1.0)
        bits, error = (float(v) for v in self._known[name])
        return None if bits < 0 else Fit(form, int(bits), error)

    def _keep(self, form: Form, term: Term, weights: int) -> None:
        """Holds on to the term where there is room."""
        size = sum(array.nbytes for array in term.arrays().values())
        room = min(TERM_BYTES * weights, MOST_TERM_BYTES)
        if self._taken + size <= room:
            self._terms[text(form)] = term
            self._taken += size

    def _note(self, form: Form, bits: float, error: float) -> None:
        name = text(form)
        if name not in self._known:
            self._known[name] = np.array([bits, error])
            self._is_new = True
