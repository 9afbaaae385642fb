"""Calibration inputs of the real models, other samples than `quality` judges by.

Each function serves `nncc compile --calib calibration:NAME` with this folder on PYTHONPATH:
an iterable of feeds. No labels are read.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from models import fashion_mnist, wheel_model
from quality import (
    content_bytes,
    content_files,
    face_input,
    face_patches,
    heard,
    noisy_speech,
    rendered_lines,
)

SAMPLES = 96
"""The compiler keeps a quarter of them to judge by."""

Feeds = dict[str, NDArray[np.generic]]


def pp_ocr_rec() -> Iterator[Feeds]:
    """Rendered lines of another seed."""
    from PIL import Image

    for _, image in rendered_lines(SAMPLES, seed=1):
        width = int(np.ceil(48 * image.shape[1] / image.shape[0]))
        resized = Image.fromarray(image).resize((width, 48), Image.Resampling.BILINEAR)
        x = np.asarray(resized, np.float32) / 127.5 - 1
        x = np.pad(x, ((0, 0), (0, max(0, 320 - width))))
        yield {"x": x[None, None].repeat(3, 1)}


def pp_ocr_cls() -> Iterator[Feeds]:
    """Rendered lines of another seed, half of them turned."""
    from PIL import Image

    for index, (_, image) in enumerate(rendered_lines(SAMPLES, seed=1)):
        width = min(192, int(np.ceil(48 * image.shape[1] / image.shape[0])))
        shown = Image.fromarray(image[::-1, ::-1] if index % 2 else image)
        x = np.asarray(shown.resize((width, 48), Image.Resampling.BILINEAR), np.float32)
        x = np.pad(x / 127.5 - 1, ((0, 0), (0, 192 - width)))
        yield {"x": x[None, None].repeat(3, 1)}


def fashion() -> Iterator[Feeds]:
    """FashionMNIST test images behind the ones that are judged."""
    yield from _images(SAMPLES)


def fashion_512() -> Iterator[Feeds]:
    """The same, as many as a small net is quick to look at."""
    yield from _images(512)


def _images(count: int) -> Iterator[Feeds]:
    images, _ = fashion_mnist(5000)
    for image in images[:count]:
        yield {"x": image[None]}


def magika() -> Iterator[Feeds]:
    """Beginnings and ends of files of every known type that are not judged."""
    judged = {path for _, path in content_files(300)}
    others = [path for _, path in content_files(900) if path not in judged]
    for path in others[:: max(1, len(others) // SAMPLES)][:SAMPLES]:
        yield {"bytes": content_bytes(path)}


def silero_vad() -> Iterator[Feeds]:
    """Frames of other sentences, with the state that the net is in when it hears them."""
    sound, _ = noisy_speech(6, seed=1)
    frames = [feed for feed, _ in heard(wheel_model("silero-vad"), sound)]
    yield from frames[:: max(1, len(frames) // SAMPLES)][:SAMPLES]


def rnet() -> Iterator[Feeds]:
    """Every second face and patch; judge by the others (n = 100)."""
    for image in face_patches()[1::2]:
        yield {"input_2": face_input(image, 24)}


def onet() -> Iterator[Feeds]:
    """Every second face and patch; judge by the others (n = 100)."""
    for image in face_patches()[1::2]:
        yield {"input_3": face_input(image, 48)}
