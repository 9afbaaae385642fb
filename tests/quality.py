"""How well a model does its real task, as a number, to compare a compiled model by.

    python tests/quality.py NAME MODEL.onnx [N]

Inputs are made or come from packages, labels with them; no download beyond `models.py`.
"""

import json
import os
import random
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from models import fashion_mnist, wheel_model

FONTS = Path("/usr/share/fonts/truetype")
EXTENSIONS = {
    ".c": "c",
    ".css": "css",
    ".f": "fortran",
    ".gif": "gif",
    ".gz": "gzip",
    ".html": "html",
    ".jpg": "jpeg",
    ".js": "javascript",
    ".json": "json",
    ".npz": "npz",
    ".pdf": "pdf",
    ".pl": "perl",
    ".png": "png",
    ".py": "python",
    ".pyc": "pythonbytecode",
    ".rst": "rst",
    ".sh": "shell",
    ".so": "elf",
    ".svg": "svg",
    ".toml": "toml",
    ".ttf": "ttf",
    ".wav": "wav",
    ".xml": "xml",
    ".yaml": "yaml",
    ".zip": "zip",
}
"""Extensions that tell the content for sure."""

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def score(name: str, model_path: Path, n: int | None = None) -> float:
    """The task score of `model_path`, higher is better, as the original `name` is scored.

    pp-ocr-rec: characters right; pp-ocr-cls, magika: accuracy; silero-vad, mtcnn-*: ROC AUC;
    lenet300, lenet5, vggs: accuracy on FashionMNIST test images 0-4999.

    Args:
        name: what the model was before it was compiled.
        model_path: the .onnx file.
        n: number of samples; None is the number the documentation quotes.
    """
    if name == "pp-ocr-rec":
        return characters_right(model_path, n or 150)
    if name == "pp-ocr-cls":
        return orientation_accuracy(model_path, n or 400)
    if name == "magika":
        return content_type_accuracy(model_path, n or 300)
    if name == "silero-vad":
        return speech_auc(model_path, n or 16)
    if name in ("mtcnn-rnet", "mtcnn-onet"):
        return face_auc(model_path, n or 200)
    return fashion_accuracy(model_path, n or 5000)


def characters_right(path: Path, n: int) -> float:
    """1 − edit distance / length over rendered lines; the alphabet comes from the metadata."""
    from PIL import Image

    session = _session(path)
    alphabet = session.get_modelmeta().custom_metadata_map["character"].splitlines()
    alphabet = ["", *alphabet, " "]
    wrong = total = 0
    for text, image in rendered_lines(n, seed=0):
        width = int(np.ceil(48 * image.shape[1] / image.shape[0]))
        resized = Image.fromarray(image).resize((width, 48), Image.Resampling.BILINEAR)
        x = np.asarray(resized, np.float32) / 127.5 - 1
        x = np.pad(x, ((0, 0), (0, max(0, 320 - width))))[None, None].repeat(3, 1)
        best = _run(session, x)[0][0].argmax(1)
        read = "".join(
            alphabet[c] for i, c in enumerate(best) if c and (i == 0 or c != best[i - 1])
        )
        wrong += _edit_distance(text, read.strip())
        total += len(text)
    return 1 - wrong / total


def orientation_accuracy(path: Path, n: int) -> float:
    """Share of rendered lines, half of them turned, whose orientation is told."""
    from PIL import Image

    session = _session(path)
    right = 0
    for index, (_, image) in enumerate(rendered_lines(n, seed=0)):
        turned = index % 2
        width = min(192, int(np.ceil(48 * image.shape[1] / image.shape[0])))
        shown = Image.fromarray(image[::-1, ::-1] if turned else image)
        x = np.asarray(shown.resize((width, 48), Image.Resampling.BILINEAR), np.float32)
        x = np.pad(x / 127.5 - 1, ((0, 0), (0, 192 - width)))[None, None].repeat(3, 1)
        right += int(_run(session, x)[0][0].argmax()) == turned
    return right / n


def content_type_accuracy(path: Path, n: int) -> float:
    """Share of this machine's files whose content type is the one their extension says."""
    labels = json.loads(wheel_model("magika-config").read_text())["target_labels_space"]
    session = _session(path)
    picked = content_files(n)
    right = sum(
        labels[int(_run(session, content_bytes(file))[0].argmax())] == label
        for label, file in picked
    )
    return right / len(picked)


def content_bytes(file: Path) -> NDArray[np.int32]:
    """[1, 2048]: 1024 bytes of a file's beginning and of its end, as magika reads them."""
    data = file.read_bytes()
    head, tail = data[:4096].lstrip()[:1024], data[-4096:].rstrip()[-1024:]
    x = np.full((1, 2048), 256, np.int32)
    x[0, : len(head)] = list(head)
    x[0, 2048 - len(tail) :] = list(tail)
    return x


def speech_auc(path: Path, n: int) -> float:
    """ROC AUC of frames of synthesised speech in noise, labelled by the clean energy."""
    mixed, energy = noisy_speech(n, seed=0)
    speech = energy > 0.02
    found = np.array([said for _, said in heard(path, mixed)])
    judged = speech | (energy < 0.002)
    return auc(found[judged], speech[judged])


def noisy_speech(n: int, seed: int) -> tuple[Floats, Floats]:
    """n sentences in noise of 5 dB, and the energy of every frame (512) before the noise."""
    clean = _speech(n, seed)
    noise = _noises(len(clean), np.random.default_rng(seed))
    energy = np.sqrt((clean.reshape(-1, 512) ** 2).mean(1))
    loudness = np.sqrt((clean[np.repeat(energy > 0.02, 512)] ** 2).mean())
    return (clean + noise * loudness / 10 ** (5.0 / 20)).astype(np.float32), energy


def heard(path: Path, sound: Floats) -> Iterator[tuple[dict[str, Any], float]]:
    """What silero reads frame after frame, with the state it is in, and what it says."""
    session = _session(path, threads=1)
    names = {value.name for value in session.get_inputs()}
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32)
    for frame in sound.reshape(-1, 1, 512):
        feed: dict[str, Any] = {"input": np.concatenate([context, frame], 1), "state": state}
        if "sr" in names:
            feed["sr"] = np.array(16000, np.int64)
        probability, state = cast(list[NDArray[Any]], session.run(["output", "stateN"], feed))
        context = frame[:, -64:]
        yield feed, float(probability.ravel()[0])


def face_auc(path: Path, n: int) -> float:
    """ROC AUC of faces against patches, 25×25 grey, of scikit-image's lfw_subset."""
    session = _session(path)
    size = session.get_inputs()[0].shape[1]
    names = [value.name for value in session.get_outputs()]
    which = next(i for i, name in enumerate(names) if "softmax" in name)
    images = face_patches()
    is_face = np.arange(len(images)) < 100
    take = np.arange(len(images))[:: max(1, len(images) // n)]
    found = [
        float(_run(session, face_input(image, size))[which][0, 1]) for image in images[take]
    ]
    return auc(np.array(found), is_face[take])


def face_patches() -> Floats:
    """scikit-image's lfw_subset: 100 faces, then 100 patches without one, in 0 ... 1."""
    return np.load(wheel_model("lfw-faces"), allow_pickle=False)


def face_input(image: Floats, size: int) -> Floats:
    """(1, size, size, 3): what the face nets read of a grey patch."""
    from PIL import Image

    grey = Image.fromarray((image * 255).astype(np.uint8))
    pixels = np.asarray(grey.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    x = ((pixels - 127.5) * 0.0078125).T[None, :, :, None].repeat(3, 3)  # x, y swapped
    return x.astype(np.float32)


def fashion_accuracy(path: Path, n: int) -> float:
    """Accuracy on FashionMNIST test images."""
    images, labels = fashion_mnist()
    session = _session(path)
    batch = session.get_inputs()[0].shape[0]
    step = batch if isinstance(batch, int) else 500
    said = [_run(session, images[k : k + step])[0].argmax(1) for k in range(0, n, step)]
    return float((np.concatenate(said)[:n] == labels[:n]).mean())


def rendered_lines(n: int, seed: int) -> Iterator[tuple[str, Pixels]]:
    """Text lines as images: words, numbers and capitals, in every font, blurred and noisy."""
    fonts = sorted(p for p in FONTS.rglob("*.ttf") if not re.search("Symbol|Math", p.name))
    if not fonts:
        _skip(f"no fonts in {FONTS}: apt-get install fonts-dejavu-core")
    draw, words = random.Random(seed), _words()
    for _ in range(n):
        parts: list[str] = []
        for _ in range(draw.randint(1, 3)):
            kind = draw.random()
            if kind < 0.7:
                parts.append(draw.choice(words))
            elif kind < 0.9:
                parts.append(str(draw.randint(10, 99999)))
            else:
                parts.append(draw.choice(words).upper())
        text = " ".join(parts)
        yield text, _rendered(text, draw.choice(fonts), draw.randint(22, 44), draw)


def auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve, by ranks."""
    ranks = scores.argsort(kind="stable").argsort() + 1.0
    ones, zeros = positive.sum(), (~positive).sum()
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def _rendered(text: str, font: Path, size: int, draw: random.Random, pad: int = 6) -> Pixels:
    from PIL import Image, ImageDraw, ImageFilter, ImageFont

    face = ImageFont.truetype(str(font), size)
    left, top, right, bottom = (int(v) for v in face.getbbox(text))
    if draw.random() < 0.8:
        paper, ink = draw.randint(190, 255), draw.randint(0, 90)
    else:
        paper, ink = draw.randint(0, 60), draw.randint(170, 255)
    image = Image.new("L", (right - left + 2 * pad, bottom - top + 2 * pad), paper)
    ImageDraw.Draw(image).text((pad - left, pad - top), text, ink, font=face)
    turned = image.rotate(
        draw.uniform(-1.2, 1.2), fillcolor=paper, resample=Image.Resampling.BICUBIC
    ).filter(ImageFilter.GaussianBlur(draw.uniform(0, 0.9)))
    noise = np.random.default_rng(draw.randrange(1 << 30)).normal(0, 8, turned.size[::-1])
    return np.clip(np.asarray(turned, np.float32) + noise, 0, 255).astype(np.uint8)


def _words() -> list[str]:
    from pydoc_data.topics import topics

    return sorted(set(re.findall(r"\b[A-Za-z]{3,10}\b", " ".join(topics.values()))))


def content_files(n: int) -> list[tuple[str, Path]]:
    """Labels and some files of every type magika knows, the same for the same machine."""
    labels = json.loads(wheel_model("magika-config").read_text())["target_labels_space"]
    wanted = {end: label for end, label in EXTENSIONS.items() if label in labels}
    paths = sysconfig.get_paths()
    found: dict[str, list[Path]] = {}
    for root in (paths["stdlib"], paths["purelib"], "/usr/share", "/usr/lib"):
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder) / name
                label = wanted.get(path.suffix)
                if label and not path.is_symlink() and 300 < path.stat().st_size < 3_000_000:
                    found.setdefault(label, []).append(path)
    draw = random.Random(0)
    each = max(3, n // max(1, len(found)))
    return [
        (label, path)
        for label in sorted(found)
        for path in draw.sample(sorted(found[label]), min(each, len(found[label])))
    ]


def _speech(n: int, seed: int) -> Floats:
    """n sentences of espeak-ng at 16 kHz with pauses, cut to whole frames."""
    from scipy.signal import resample_poly

    draw, words = random.Random(seed), _words()
    parts: list[Floats] = []
    for _ in range(n):
        text = " ".join(draw.choice(words) for _ in range(6))
        voice = draw.choice(["en-us", "en-gb", "de", "fr"])
        command = ["espeak-ng", "--stdout", "-v", voice]
        command += ["-p", str(draw.randint(25, 75)), "-s", str(draw.randint(130, 190)), text]
        try:
            wave = subprocess.run(command, capture_output=True, check=True).stdout
        except FileNotFoundError:
            _skip("no espeak-ng: apt-get install espeak-ng")
            raise
        sound = np.frombuffer(wave[44 : len(wave) - (len(wave) - 44) % 2], np.int16)
        parts.append(resample_poly(sound.astype(np.float32) / 32768, 320, 441))
        parts.append(np.zeros(int(16000 * draw.uniform(0.7, 1.8)), np.float32))
    whole = np.concatenate(parts).astype(np.float32)
    return whole[: len(whole) // 512 * 512]


def _noises(length: int, generator: np.random.Generator) -> Floats:
    """White and pink noise and a tone, three seconds each in turn."""
    from scipy.signal import lfilter

    white = generator.normal(0, 1, length).astype(np.float32)
    pink = np.asarray(lfilter([1], [1, -0.97], white), np.float32)
    time = np.arange(length)
    tone = 0.7 * np.sin(2 * np.pi * 440 * time / 16000)
    turn = time // 48000 % 3
    return np.where(turn == 0, white, np.where(turn == 1, pink / pink.std(), tone)).astype(
        np.float32
    )


def _edit_distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        below = [i]
        for j, y in enumerate(b, 1):
            below.append(min(row[j] + 1, below[-1] + 1, row[j - 1] + (x != y)))
        row = below
    return row[-1]


def _session(path: Path, threads: int = 2) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(session: ort.InferenceSession, x: NDArray[Any]) -> list[NDArray[Any]]:
    return cast(list[NDArray[Any]], session.run(None, {session.get_inputs()[0].name: x}))


def _skip(reason: str) -> None:
    print(reason)
    pytest.skip(reason)


if __name__ == "__main__":
    count = int(sys.argv[3]) if len(sys.argv) > 3 else None
    print(f"{sys.argv[1]} {score(sys.argv[1], Path(sys.argv[2]), count):.4f}")
