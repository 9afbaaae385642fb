"""Legalising with proof: what was rewritten for a device runs equal to what it stands for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...device_profiles.errors import ModelError, Postcondition
from ...passes.legalise import Legalised
from ...runtime.session import Session, open_session, run
from ..samples.calibration import Feeds
from ..writing.save import write
from .verify import NORMALISED, Array, difference

LEGALISED = "legalised.onnx"


def proven(
    legalised: Legalised, workdir: Path, feeds: Sequence[Feeds], *, narrowed: bool = False
) -> Path:
    """The file of a legalised model that gave the same in ONNX Runtime on every feed.

    `workdir` holds `normalised.onnx`, the model before; where nothing was rewritten that file
    stands for both. A model that gives another result each run is not compared.

    Args:
        legalised: what legalisation made.
        workdir: where models are written.
        feeds: samples both are run on.
        narrowed: whether element types were narrowed too: results that were float64 are then
            compared as float32.

    Raises:
        Postcondition: a rewrite changed a result, or does not run.
    """
    before = workdir / NORMALISED
    if not legalised.changes and not narrowed:
        return before
    model = legalised.model
    after = workdir / LEGALISED
    write(model, after)
    rewritten = ", ".join(sorted({change.op for change in legalised.changes})) or "none"
    hint = f"report this with the model; the operators rewritten were {rewritten}"
    try:
        session, reference = open_session(after), open_session(before)
        for feed in feeds:
            want = _outputs(reference, feed, narrowed)
            said = difference(want, _outputs(session, feed, narrowed))
            if said and not difference(want, _outputs(reference, feed, narrowed)):
                raise Postcondition(f"legalise: {said}", where=model.name, hint=hint)
    except ModelError as error:
        raise Postcondition(
            f"legalise: what it made does not run: {error.what}", where=model.name, hint=hint
        ) from error
    return after


def _outputs(session: Session, feed: Feeds, narrowed: bool) -> dict[str, object]:
    """Every output by name; float64 as float32 where types were narrowed."""
    made = run(session, feed)
    told: dict[str, object] = dict(made.items())
    if narrowed:
        single = {n: v.astype(np.float32) for n, v in made.items() if _is_double(v)}
        told.update(single)
    return told


def _is_double(value: Array) -> bool:
    return getattr(value, "dtype", None) == np.float64
