"""The loop that a user writes after a tutorial: the frozen part of the network runs again in every epoch.

ImageFolder or CIFAR10, PIL transforms, a DataLoader, torchvision's network with random weights and a new last layer.
`--amp` is the careful user: bf16 autocast, channels_last, pinned memory. Prints one JSON line (`say`); imports are not
in its seconds. The other frameworks' loops take the same loaders, network and optimizer from here.
"""

import argparse
import contextlib
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, models
from torchvision import transforms as T

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Loader = DataLoader[Any]


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What all loops take."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--images", type=Path, help="a folder with train/ and val/, one sub-folder a class")
    parser.add_argument("--cifar", type=Path, help="the folder that holds cifar-10-batches-py")
    parser.add_argument("--limit", nargs=2, type=int, metavar=("TRAIN", "TEST"), help="only the first so many images")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--train", nargs="+", default=["fc"], help="the submodules that learn, the last layer included")
    parser.add_argument("--augment", default="none", choices=["none", "crop_flip"])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--optimizer", default="sgd", choices=["sgd", "adam"])
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    parser.add_argument("--amp", action="store_true", help="bf16 autocast, channels_last, pinned memory")
    given = parser.parse_args(argv)
    if (given.images is None) == (given.cifar is None):
        parser.error("give --images FOLDER or --cifar FOLDER")
    torch.manual_seed(0)
    return given


def device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def loaders(given: argparse.Namespace) -> tuple[Loader, Loader, int]:
    """Training batches, test batches, and the number of classes; `given.seconds` gets what finding them took."""
    began = time.perf_counter()
    view = [T.Resize(224)] if given.cifar else [T.Resize(256), T.CenterCrop(224)]
    random = [T.RandomResizedCrop(224), T.RandomHorizontalFlip()] if given.augment == "crop_flip" else view
    fit, see = (T.Compose([*chosen, T.ToTensor(), T.Normalize(MEAN, STD)]) for chosen in (random, view))
    train: Any
    test: Any
    if given.cifar:
        train = datasets.CIFAR10(given.cifar, train=True, transform=fit)
        test = datasets.CIFAR10(given.cifar, train=False, transform=see)
    else:
        train, test = datasets.ImageFolder(given.images / "train", fit), datasets.ImageFolder(given.images / "val", see)
    classes = len(train.classes)
    if given.limit:
        train, test = (Subset(s, range(min(n, len(s)))) for s, n in zip((train, test), given.limit, strict=True))
    common: dict[str, Any] = {
        "batch_size": given.batch_size,
        "num_workers": given.workers,
        "persistent_workers": given.workers > 0,
        "pin_memory": given.amp and device().type == "cuda",
    }
    made = DataLoader(train, shuffle=True, **common), DataLoader(test, **common), classes
    given.seconds = time.perf_counter() - began
    return made


def network(given: argparse.Namespace, classes: int) -> nn.Module:
    """torchvision's network with a new last layer, on the device; only `--train` learns."""
    net: Any = models.get_model(given.arch, weights=None)
    if hasattr(net, "fc"):
        net.fc = nn.Linear(net.fc.in_features, classes)
    else:
        net.classifier[-1] = nn.Linear(net.classifier[-1].in_features, classes)
    for name, parameter in net.named_parameters():
        parameter.requires_grad = name.split(".")[0] in given.train
    net.to(device())
    if given.amp:
        net.to(memory_format=torch.channels_last)
    return net  # type: ignore[no-any-return]


def solver(given: argparse.Namespace, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """As a tutorial sets it up."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    if given.optimizer == "adam":
        return torch.optim.Adam(learning, lr=given.lr)
    return torch.optim.SGD(learning, lr=given.lr, momentum=0.9)


def say(given: argparse.Namespace, train: Loader, test: Loader, seconds: Sequence[float], accuracy: float) -> None:
    """Prints the JSON line: images [train, test], seconds for finding the `data`, of each epoch and of all, the last
    test accuracy (0..1)."""
    images = [len(loader.dataset) for loader in (train, test)]  # type: ignore[arg-type]
    figures = {
        "images": images,
        "data": given.seconds,
        "epochs": list(seconds),
        "seconds": given.seconds + sum(seconds),
    }
    print(json.dumps({**figures, "accuracy": accuracy, "device": str(device())}))


def main(argv: Sequence[str] | None = None) -> None:
    """Trains and tests, epoch by epoch."""
    given = options(argv)
    train, test, classes = loaders(given)
    net, where = network(given, classes), device()
    optimizer, criterion = solver(given, net.parameters()), nn.CrossEntropyLoss()

    def cast() -> Any:
        return torch.autocast(where.type, torch.bfloat16) if given.amp else contextlib.nullcontext()

    seconds, accuracy = [], 0.0
    for _ in range(given.epochs):
        began = time.perf_counter()
        net.train()
        running = 0.0
        for images, labels in train:
            images, labels = images.to(where), labels.to(where)
            optimizer.zero_grad()
            with cast():
                loss = criterion(net(images), labels)
            loss.backward()
            optimizer.step()
            running += loss.item() * len(labels)
        net.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in test:
                with cast():
                    outputs = net(images.to(where))
                correct += int((outputs.argmax(1).cpu() == labels).sum())
        accuracy = correct / len(test.dataset)  # type: ignore[arg-type]
        seconds.append(time.perf_counter() - began)
    say(given, train, test, seconds, accuracy)


if __name__ == "__main__":
    main()
