"""Collect: the moments of what layers read, in one streaming pass over sample inputs.

The values that layers read become outputs of a copy of the model; each is reduced as soon as a
sample has run. Where outputs and moments would not fit the memory allowed, layers are taken in
groups and the samples run once a group.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import helper

from .collect_patches import Accumulator, Array, Matrix, Reading
from .machine import cores
from .probe import probe
from .session import Session, open_source, run
from .weight_files import external_locations, read_structure

PREFIX = "nncc.collect"
MEMORY = 1 << 30
"""Bytes that values and moments of one pass may take, unless said otherwise."""
MOST_PATCHES = 1 << 18
"""Positions of a layer that are looked at; of more, a part is drawn."""

Found = tuple[Matrix | None, Matrix, int]
"""Covariance (g, n, n), None where it is beyond the memory; mean (g, n); positions."""


def collect_moments(
    path: Path,
    feeds: Sequence[Mapping[str, Array]],
    readings: Iterable[Reading],
    *,
    memory: int = MEMORY,
    most_patches: int = MOST_PATCHES,
    jobs: int = 0,
    on_sample: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[Reading, Found]]:
    """The moments of every reading that a sample reaches, group by group.

    Results do not depend on `memory` or `jobs`.

    Args:
        path: the .onnx file.
        feeds: an array for every input, a mapping a sample.
        readings: what is read; a value that the top-level graph does not have, is not a float
            or is never finite is left out.
        memory: bytes of values and moments at a time. A covariance that is larger than that
            by itself is not made; its mean is.
        most_patches: positions of a reading that are looked at, over all samples.
        jobs: threads; 0 takes one a core.
        on_sample: told (finished, all), passes counted.

    Raises:
        ModelError: the runtime does not take the model, or an operator failed on a sample.
    """
    from threadpoolctl import threadpool_limits

    if not feeds:
        return
    wanted = list(dict.fromkeys(readings))
    largest = max(feeds, key=lambda feed: sum(array.size for array in feed.values()))
    shapes = probe(path, largest, [reading.value for reading in wanted])
    wanted = [reading for reading in wanted if reading.value in shapes]
    sizes = {name: 4 * int(np.prod(shape, dtype=float)) for name, shape in shapes.items()}
    groups = _groups(wanted, sizes, memory)
    each = max(most_patches // len(feeds), 1)
    done = 0
    for group in groups:
        totals = [Accumulator(r, with_products=r.moment_bytes <= memory) for r in group]
        with (
            TemporaryDirectory(prefix="nncc-collect-") as folder,
            threadpool_limits(1, user_api="blas"),
            ThreadPoolExecutor(jobs or cores()) as pool,
        ):
            session, tags = _open(path, [r.value for r in group], Path(folder))
            for index, sample in enumerate(feeds):
                held = run(session, sample)
                work = [
                    pool.submit(
                        total.add,
                        held[tags[total.reading.value]],
                        each,
                        np.random.default_rng(index),
                    )
                    for total in totals
                ]
                for future in work:
                    future.result()
                done += 1
                if on_sample is not None:
                    on_sample(done, len(groups) * len(feeds))
        while totals:
            total = totals.pop(0)
            result = total.result()
            if result is not None:
                yield total.reading, result


def _groups(
    readings: Sequence[Reading], sizes: Mapping[str, int], memory: int
) -> list[list[Reading]]:
    """Readings that fit the memory together, in their order; one at least in each group."""
    groups: list[list[Reading]] = []
    held, values = 0, set[str]()
    for reading in readings:
        moments = reading.moment_bytes if reading.moment_bytes <= memory else 0
        more = moments + (0 if reading.value in values else sizes[reading.value])
        if not groups or held + more > memory:
            groups.append([])
            held, values = 0, set[str]()
            more = moments + sizes[reading.value]
        groups[-1].append(reading)
        held += more
        values.add(reading.value)
    return groups


def _open(path: Path, values: Sequence[str], folder: Path) -> tuple[Session, dict[str, str]]:
    """A session whose outputs include the values, in float32, and the outputs' names."""
    model = read_structure(path)
    names = {name for node in model.graph.node for name in node.output}
    names |= {value.name for value in model.graph.input}
    is_external = bool(external_locations(model))
    del model
    prefix = PREFIX
    while any(name.startswith(prefix) for name in names):
        prefix += "_"
    tags = {name: f"{prefix}.{at}" for at, name in enumerate(dict.fromkeys(values))}
    extra = onnx.ModelProto()
    for name, tag in tags.items():
        to = onnx.TensorProto.FLOAT
        extra.graph.node.append(helper.make_node("Cast", [name], [tag], name=tag, to=to))
        extra.graph.output.append(helper.make_tensor_value_info(tag, to, None))
    tail = extra.SerializeToString()
    if is_external:
        return open_source(path.read_bytes() + tail, folder=path.parent), tags
    copy = folder / "collected.onnx"
    shutil.copyfile(path, copy)
    with copy.open("ab") as stream:
        stream.write(tail)
    return open_source(copy), tags
