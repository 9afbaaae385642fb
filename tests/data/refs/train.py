"""Trains the reference nets of this folder on FashionMNIST and exports them to ONNX.

python tests/data/refs/train.py --out DIR [--nets lenet300,lenet5,vggs] [--threads 1]
"""

import argparse
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class LeNet300(nn.Module):
    """784-300-100-10, fully connected."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = (
            nn.Linear(784, 300),
            nn.Linear(300, 100),
            nn.Linear(100, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(functional.relu(self.fc2(functional.relu(self.fc1(x.flatten(1))))))


class LeNet5(nn.Module):
    """The Caffe variant 20-50-500-10, which the LC and pruning papers use."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.f1, self.f2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.c1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.c2(x)), 2)
        return self.f2(functional.relu(self.f1(x.flatten(1))))


class VGGs(nn.Module):
    """Three stages of two 3×3 convolutions with BatchNormalization, then 256-10."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width in widths:
            for _ in range(2):
                layers += [
                    nn.Conv2d(channels, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.f = nn.Sequential(*layers)
        self.c = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * 9, 256),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(256, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.f(x))


@dataclass(frozen=True)
class Recipe:
    """How one net is trained: SGD with Nesterov momentum 0.9 and a one-cycle rate."""

    make: Callable[[], nn.Module]
    epochs: int
    max_rate: float
    weight_decay: float
    augment: bool
    batch: int = 128


RECIPES = {
    "lenet300": Recipe(LeNet300, 15, 0.10, 1e-4, augment=False),
    "lenet5": Recipe(LeNet5, 10, 0.05, 5e-4, augment=False),
    "vggs": Recipe(VGGs, 4, 0.15, 5e-4, augment=True),
}


def read_idx(path: Path) -> np.ndarray:
    """The array in an .idx.gz file of the MNIST family."""
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def read_set(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images [N, 1, 28, 28] in 0..1 and labels [N]; `part` is "train" or "t10k"."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz").astype(np.float32) / 255
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz").astype(np.int64)
    return torch.from_numpy(images)[:, None], torch.from_numpy(labels)


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """The batch, mirrored half of the time and moved by up to two pixels."""
    if torch.rand((), generator=generator) < 0.5:
        x = x.flip(3)
    a, b = torch.randint(0, 5, (2,), generator=generator).tolist()
    return functional.pad(x, (2, 2, 2, 2))[:, :, a : a + 28, b : b + 28]


@torch.inference_mode()
def error_rate(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    net.eval()
    wrong = sum(
        int((net(images[i : i + 1000]).argmax(1) != labels[i : i + 1000]).sum())
        for i in range(0, len(images), 1000)
    )
    return wrong / len(images)


def train(recipe: Recipe, images: Tensor, labels: Tensor) -> nn.Module:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    net = recipe.make()
    optimiser = torch.optim.SGD(
        net.parameters(),
        recipe.max_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    steps = len(images) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.max_rate, total_steps=recipe.epochs * steps, pct_start=0.2
    )
    for _ in range(recipe.epochs):
        net.train()
        order = torch.randperm(len(images), generator=generator)
        for i in range(steps):
            take = order[i * recipe.batch : (i + 1) * recipe.batch]
            x = shifted(images[take], generator) if recipe.augment else images[take]
            loss = functional.cross_entropy(net(x), labels[take])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
    return net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--nets", default="lenet300,lenet5,vggs")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    images, labels = read_set(options.data, "train")
    test_images, test_labels = read_set(options.data, "t10k")
    for name in options.nets.split(","):
        net = train(RECIPES[name], images, labels)
        print(
            f"{name}: test error {error_rate(net, test_images[:5000], test_labels[:5000]):.4f}"
        )
        # The TorchScript exporter is the only one of torch's two that writes opset 13.
        torch.onnx.export(
            net,
            (torch.zeros(1, 1, 28, 28),),
            str(options.out / f"{name}_op13.onnx"),
            dynamo=False,
            opset_version=13,
            input_names=["x"],
            output_names=["logits"],
            dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}},
        )


if __name__ == "__main__":
    main()
