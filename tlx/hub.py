"""Where timm keeps the weights of its models, and how to get them without its long retries."""

from dataclasses import dataclass
from pathlib import Path

from tlx.downloads import PROBE_SECONDS, announce, probe
from tlx.errors import RequestError, nearest, reason

__all__ = ["HubFile", "architecture", "timm_source", "unavailable"]

FILES = ("model.safetensors", "pytorch_model.bin")


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

    def __str__(self) -> str:
        return f"{self.names[0]} of {self.repository}"

    def cached(self) -> Path | None:
        """The file in the hub's cache (HF_HOME), or None."""
        from huggingface_hub import try_to_load_from_cache

        for name in self.names:
            found = try_to_load_from_cache(self.repository, name, revision=self.revision)
            if isinstance(found, str) and Path(found).is_file():
                return Path(found)
        return None

    def fetch(self, *, offline: bool) -> Path:
        """The file, from the cache or the hub.

        Raises:
            RequestError: it is not in the cache, and `offline` or HF_HUB_OFFLINE is set or the hub does not answer.
        """
        from huggingface_hub import constants, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError

        found = self.cached()
        if found is not None:
            return found
        urls = {name: hf_hub_url(self.repository, name, revision=self.revision) for name in self.names}
        why = "runtime.offline=true" if offline else "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
        for name, url in urls.items() if not why else ():
            answer = probe([url])[url]
            why = answer.refused
            if answer.status == 404:
                continue  # the next name
            if why and answer.status not in (401, 403):  # for these huggingface_hub may have a token
                break
            announce(name, answer.size, url)
            try:
                return Path(hf_hub_download(self.repository, name, revision=self.revision, etag_timeout=PROBE_SECONDS))
            except (OSError, HfHubHTTPError) as error:
                why = reason(error)
                break
        command = f"`hf download {self.repository}` where there is a network fills HF_HOME"
        raise unavailable(str(self), urls[self.names[0]], f"keep it as a file ({command})", why)


def unavailable(file: str, url: str, remedy: str, why: str) -> RequestError:
    """The error for weights that are not here and cannot be had."""
    return RequestError(
        f"backbone.weights=imagenet: {file} is not here and cannot be fetched ({why}): get {url} and {remedy}, "
        "or give its path as backbone.weights; backbone=efficientnet_lite0 needs no download"
    )


def architecture(name: str) -> str:
    """The architecture in a timm model's name, which may end in a tag of its weights (`resnet18.tv_in1k`).

    Raises:
        RequestError: timm has no such model, or no such weights.
    """
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
