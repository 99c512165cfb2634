"""Where timm keeps the weights of its models, and how to get them without its long retries."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tlx.core.deferred_compiler import compiler_deferred
from tlx.core.errors import RequestError, nearest, reason
from tlx.core.http_download import PROBE_SECONDS, Response, announce, intact
from tlx.core.safe_archive import Refused

__all__ = ["HubFile", "architecture", "guessed", "mirror", "portable_name", "timm_source"]

FILES = ("model.safetensors", "pytorch_model.bin")

# torchvision's file → timm's repository of the same weights, as timm's own registry says, for the networks whose
# tensors have the same names in both. It goes by the file and not by the backbone's YAML: one that another YAML
# inherits would give the wrong weights, and nothing in the copy's name would tell.
MIRRORS = {
    "resnet18-f37072fd.pth": "resnet18.tv_in1k",
    "resnet34-b627a593.pth": "resnet34.tv_in1k",
    "resnet50-0676ba61.pth": "resnet50.tv_in1k",
    "resnet50-11ad3fa6.pth": "resnet50.tv2_in1k",
    "resnet101-63fe2227.pth": "resnet101.tv_in1k",
    "resnet101-cd907fc2.pth": "resnet101.tv2_in1k",
    "resnet152-394f9c45.pth": "resnet152.tv_in1k",
    "resnet152-f82ba261.pth": "resnet152.tv2_in1k",
    "wide_resnet50_2-95faca4d.pth": "wide_resnet50_2.tv_in1k",
    "wide_resnet50_2-9ba9bcbe.pth": "wide_resnet50_2.tv2_in1k",
    "wide_resnet101_2-32ee1156.pth": "wide_resnet101_2.tv_in1k",
    "wide_resnet101_2-d733dc28.pth": "wide_resnet101_2.tv2_in1k",
    "resnext50_32x4d-7cdf4587.pth": "resnext50_32x4d.tv_in1k",
    "resnext50_32x4d-1a0047aa.pth": "resnext50_32x4d.tv2_in1k",
    "resnext101_32x8d-8ba56ff5.pth": "resnext101_32x8d.tv_in1k",
    "resnext101_32x8d-110c445d.pth": "resnext101_32x8d.tv2_in1k",
    "resnext101_64x4d-173b62eb.pth": "resnext101_64x4d.tv_in1k",
}


@dataclass(frozen=True)
class HubFile:
    """A file of a repository of the Hugging Face hub; `name` null: the weights under one of their usual names."""

    repository: str
    name: str | None = None
    revision: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The file names to try, best first."""
        return (self.name,) if self.name else FILES

    @property
    def file(self) -> str:
        """The name of the file where it leaves the hub: one that tells it from other models'."""
        return self.repository.rpartition("/")[2] + Path(self.names[0]).suffix

    @property
    def urls(self) -> list[str]:
        """Where it is on the hub, or on what HF_ENDPOINT names."""
        from huggingface_hub import hf_hub_url

        return [hf_hub_url(self.repository, name, revision=self.revision) for name in self.names]

    @property
    def remedy(self) -> str:
        """What a person may do with the file, so that it is found."""
        return f"keep it as a file (`hf download {self.repository}` where there is a network fills HF_HOME)"

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.names[0]} of {self.repository}"

    @property
    def source(self) -> str:
        """The repository's page."""
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{self.repository}"

    def __str__(self) -> str:
        return f"{self.label} from the Hugging Face hub"

    def found(self) -> list[Path]:
        """The files of it in the hub's cache (HF_HOME), not checked."""
        from huggingface_hub import constants

        if not Path(constants.HF_HUB_CACHE, f"models--{self.repository.replace('/', '--')}").is_dir():
            return []  # the hub's client takes a while to import
        from huggingface_hub import try_to_load_from_cache

        paths = [try_to_load_from_cache(self.repository, name, revision=self.revision) for name in self.names]
        return [Path(path) for path in paths if isinstance(path, str) and Path(path).is_file()]

    def fetch(self, responses: Mapping[str, Response]) -> Path:
        """The file from the hub, in its cache; `responses`: what the host said of each of `urls`.

        Raises:
            Refused: HF_HUB_OFFLINE is set, the hub does not answer or lacks it, or the file is a different one.
        """
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError

        why = ""
        for name, url in zip(self.names, self.urls, strict=True):
            response = responses[url]
            why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else response.refused
            if response.status == 404:
                continue  # the next name
            if why and response.status not in (401, 403):  # for these huggingface_hub may have a token
                break
            announce(name, response.size, url)
            anew = bool(self.found())  # it is there and was found damaged: the client would not look
            try:
                path = Path(
                    hf_hub_download(
                        self.repository, name, revision=self.revision, etag_timeout=PROBE_SECONDS, force_download=anew
                    )
                )
            except (OSError, HfHubHTTPError) as error:
                raise Refused(reason(error)) from error
            if intact(path):
                return path
            path.resolve().unlink()
            raise Refused("the downloaded file is a different one: its sha256 is not the one that the hub gives")
        raise Refused(why)


def mirror(file: str) -> HubFile | None:
    """The hub's copy of the weights that torchvision publishes as `file`, where there is one."""
    return HubFile(f"timm/{MIRRORS[file]}") if file in MIRRORS else None


def portable_name(path: Path) -> str:
    """The name under which a file of weights travels: in the hub's cache all have the same, their folders differ."""
    repository = path.parents[2].name if len(path.parents) > 2 else ""
    return repository.rpartition("--")[2] + path.suffix if repository.startswith("models--") else path.name


def guessed(name: str) -> list[HubFile]:
    """Where timm's model `name` is likely to be: what of it is in the hub's cache, or else its usual repository.

    Without timm, which takes seconds to import, the tag of the weights that it would take is not known.
    """
    from huggingface_hub import constants

    prefix = "models--timm--"
    folders = sorted(Path(constants.HF_HUB_CACHE).glob(f"{prefix}*"))
    known = [folder.name.removeprefix(prefix) for folder in folders]
    return [HubFile(f"timm/{one}") for one in known if one == name or one.startswith(f"{name}.")] or [
        HubFile(f"timm/{name}")
    ]


def architecture(name: str) -> str:
    """The architecture in a timm model's name, which may end in a tag of its weights (`resnet18.tv_in1k`).

    Raises:
        RequestError: timm has no such model, or no such weights.
    """
    with compiler_deferred():
        import timm

    plain, _, tag = name.partition(".")
    if not timm.is_model(plain):
        raise RequestError(f"backbone.name={name}: timm has no such model{nearest(plain, timm.list_models())}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{plain}.*")]
    if tag and tag not in tags:
        raise RequestError(
            f"backbone.name={name}: timm has no such weights{nearest(tag, tags)}; "
            f"{plain} has: {', '.join(tags) or 'none'}"
        )
    return plain


def timm_source(name: str) -> "HubFile | str":
    """Where timm has the pretrained weights of its model `name`: on the hub, or a web address.

    Raises:
        RequestError: there are none.
    """
    with compiler_deferred():
        import timm

    plain = architecture(name)
    source = timm.get_pretrained_cfg(name)
    if source is not None and source.hf_hub_id:
        repository, _, revision = source.hf_hub_id.partition("@")
        return HubFile(repository, source.hf_hub_filename, revision or None)
    if source is not None and source.url:
        return str(source.url)
    raise RequestError(
        f"backbone.weights=imagenet: timm has no pretrained weights for {plain}; take backbone.weights=none or a file"
    )
