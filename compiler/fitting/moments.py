"""Moments: mean and covariance of what every layer reads, from calibration inputs."""

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from ...passes.forms import IDENTITY, Metric
from ...passes.geometry import Weights
from ...passes.model import Model
from ...passes.sites import Site, gemm_transposes_input
from ...runtime.collect import MEMORY, MOST_PATCHES, collect_moments
from ...runtime.collect_patches import Reading
from ...runtime.weight_files import read_structure
from ..samples.inputs import Feeds
from ..writing.save import write
from .shrink import shrunk

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """What a layer reads, as far as a quadratic error can see.

    Args:
        covariance: (g, n, n) of the patches, float64, in the order of W.reshape(g, m, n);
            None where it would be too large to make.
        mean: (g, n) of the patches.
        count: positions that it is from.
    """

    covariance: Array | None
    mean: Array
    count: int

    @property
    def second(self) -> Array | None:
        """E[x xᵀ], not centred, (g, n, n)."""
        if self.covariance is None:
            return None
        return self.covariance + self.mean[:, :, None] * self.mean[:, None, :]

    def metric(self, *, has_bias: bool = True) -> Metric:
        """The metric of the output's error, shrunk where the positions are few (`shrunk`).

        Args:
            has_bias: whether a bias takes over (W − Ŵ) E[x], which leaves the covariance.
        """
        H = self.covariance if has_bias else self.second
        return IDENTITY if H is None else Metric(shrunk(H, max(self.count, 1)))

    def bias_delta(self, W: Weights, approximation: Weights) -> Array:
        """(W − Ŵ) E[x], (g · m,): what the bias adds so that the mean output stays."""
        R = np.subtract(W, approximation, dtype=np.float64)
        flat = R.reshape(*W.shape[:2], -1)
        return np.einsum("gmn,gn->gm", flat, self.mean).ravel()


def reading_of(site: Site) -> Reading:
    """How a site reads its input."""
    geometry = site.geometry
    if geometry.op == "MatMul":
        # A Gemm that reads its operand transposed has the features on the other axis.
        is_column = geometry.weight_is_left != gemm_transposes_input(site)
        return Reading(site.input_name, "columns" if is_column else "rows", site.shape[2])
    return Reading(
        site.input_name,
        "windows" if geometry.op == "Conv" else "spread",
        site.shape[2],
        geometry.groups,
        geometry.kernel,
        geometry.strides,
        geometry.dilations,
        geometry.pads,
        geometry.output_padding,
        geometry.auto_pad or "NOTSET",
    )


def collect(
    model: Model | Path,
    feeds: Sequence[Feeds],
    sites: Sequence[Site],
    *,
    memory: int = MEMORY,
    most_patches: int = MOST_PATCHES,
    jobs: int = 0,
    folder: Path | None = None,
    on_sample: Callable[[int, int], None] | None = None,
) -> Mapping[str, Moments]:
    """The moments of every site that the samples reach, by site name.

    Sites in bodies of If and Loop are left out, and those whose input no sample reaches or is
    not finite. Sites that read the same value in the same way share one result.

    Args:
        model: normalised, as the sites were found in it, or its file.
        feeds: an array for every input, a mapping a sample.
        sites: as `find_sites` gives them.
        memory: bytes of values and moments held at a time while collecting.
        most_patches: positions of a site that are looked at.
        jobs: threads; 0 takes one a core.
        folder: where moments are kept and found again; None holds them in memory.
        on_sample: told (finished, all).

    Raises:
        ModelError: the model does not run on a sample.
    """
    with TemporaryDirectory(prefix="nncc-model-") as place:
        path = model if isinstance(model, Path) else Path(place) / "model.onnx"
        if isinstance(model, Model):
            write(model, path)
        top = {node.name for node in read_structure(path).graph.node}
        readings = {site.name: reading_of(site) for site in sites if site.name in top}
        kept = _Kept(folder, _digest(feeds, most_patches))
        for reading, result in collect_moments(
            path,
            feeds,
            [reading for reading in readings.values() if kept.get(reading) is None],
            memory=memory,
            most_patches=most_patches,
            jobs=jobs,
            on_sample=on_sample,
        ):
            kept.put(reading, Moments(*result))
    return _BySite({n: r for n, r in readings.items() if kept.has(r)}, kept)


class _Kept:
    """Moments by reading: in memory, or in a folder from where they are read when asked for.

    Args:
        folder: None for memory.
        key: what tells these samples from others.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self._folder, self._key = folder, key
        self._held: dict[Reading, Moments] = {}
        self._known: set[Reading] = set()

    def has(self, reading: Reading) -> bool:
        return reading in self._held or reading in self._known

    def get(self, reading: Reading) -> Moments | None:
        """What is kept, where its sizes are the reading's; anything else counts as absent."""
        if self._folder is None:
            return self._held.get(reading)
        try:
            with np.load(self._path(reading), allow_pickle=False) as stored:
                arrays = {name: np.asarray(stored[name]) for name in stored.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            return None
        found = _of_arrays(arrays, reading)
        if found is not None:
            self._known.add(reading)
        return found

    def put(self, reading: Reading, moments: Moments) -> None:
        if self._folder is None:
            self._held[reading] = moments
            return
        arrays = {"mean": moments.mean, "count": np.array(moments.count)}
        if moments.covariance is not None:
            arrays["covariance"] = moments.covariance
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(reading)
        fresh = path.with_suffix(".part")
        with fresh.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        fresh.replace(path)
        self._known.add(reading)

    def _path(self, reading: Reading) -> Path:
        assert self._folder is not None, "only a folder has files"
        name = hashlib.sha256(f"{self._key} {reading!r}".encode()).hexdigest()[:32]
        return self._folder / f"{name}.npz"


class _BySite(Mapping[str, Moments]):
    """Moments by site name, each read when it is asked for."""

    def __init__(self, readings: Mapping[str, Reading], kept: _Kept) -> None:
        self._readings, self._kept = readings, kept

    def __getitem__(self, name: str) -> Moments:
        found = self._kept.get(self._readings[name])
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._readings)

    def __len__(self) -> int:
        return len(self._readings)


def _of_arrays(arrays: Mapping[str, npt.NDArray[np.generic]], r: Reading) -> Moments | None:
    g, n = r.groups, r.width
    mean, count = arrays.get("mean"), arrays.get("count")
    covariance = arrays.get("covariance")
    if mean is None or count is None or mean.shape != (g, n) or count.shape != ():
        return None
    if covariance is not None and covariance.shape != (g, n, n):
        return None
    wide = None if covariance is None else covariance.astype(np.float64, copy=False)
    return Moments(wide, mean.astype(np.float64, copy=False), int(count.astype(np.int64)))


def _digest(feeds: Sequence[Feeds], most_patches: int) -> str:
    """What tells one set of samples from another."""
    total = hashlib.sha256(f"1 {most_patches}".encode())
    for feed in feeds:
        for name in sorted(feed):
            array = np.ascontiguousarray(feed[name])
            total.update(f"{name} {array.dtype} {array.shape}".encode())
            total.update(array.tobytes())
    return total.hexdigest()
