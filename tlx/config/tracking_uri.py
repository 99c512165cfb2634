"""Where MLflow is: what `tracking` says, else what MLflow's own environment variables say; and its password.

A password in `tracking.uri` is taken out before anything else sees it: it is stored in this process's environment,
which those that it starts inherit, and is in no configuration, command, message, argument list or file.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tlx.core.errors import RequestError

if TYPE_CHECKING:
    from tlx.config.schema import Tracking

KEPT = "TLX_TRACKING_PASSWORDS"  # the variable: address without a password → password, JSON
USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
ADVICE = (
    "it requires a user name and a password; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
    "or type tracking.uri=http://USER:PASSWORD@HOST:PORT"
)
URI, EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
EXPERIMENT_ID = "MLFLOW_EXPERIMENT_ID"  # what `mlflow.set_experiment` sets
BY_ID = "id:"  # before an experiment's id, where it stands for a name
# scheme://user:password@…; the password may hold anything, but host:port/… is none
_LOGIN = re.compile(r"([\w+.-]+://)([^/@:\s?#'\"]*):(?!\d+(?:[/?#'\"\s]|$))(.*)@([^@]*)$", re.DOTALL)


def hidden(text: str) -> str:
    """An address, or a word that ends in one, without its password, which is remembered for `opened`."""
    found = _LOGIN.search(text)
    if found is None or "${" in found[3]:  # what Hydra is to put there
        return text
    address = f"{found[1]}{found[2]}@{found[4]}"
    if found[3] == "***":  # as `errors.shown` has left it in a file of an earlier tlx
        return text[: found.start()] + address
    os.environ[KEPT] = json.dumps({**_kept(), address.rstrip("'\" "): found[3]})
    return text[: found.start()] + address


def typed(words: Sequence[str]) -> list[str]:
    """A command line without the password of its `tracking.uri`."""
    return [hidden(word) if re.match(r"[+~]*tracking(\.uri)?=", word) else word for word in words]


def resolved(settings: "Tracking") -> "Tracking":
    """With what the configuration leaves open from the environment, and without a password."""
    uri, experiment = settings.uri, settings.experiment
    if settings.enabled and uri is None:
        uri = os.environ.get(URI) or None
    found = replace(settings, uri=None if uri is None else hidden(uri))
    if settings.enabled and experiment is None:
        named, by_id = os.environ.get(EXPERIMENT), os.environ.get(EXPERIMENT_ID)
        experiment = named or (f"{BY_ID}{by_id}" if by_id and _same_store(found) else None)
    return replace(found, experiment="tlx" if experiment is None else experiment)


def from_environment(settings: "Tracking") -> dict[str, str]:
    """Key → variable, of what a configuration has from the environment."""
    found = {"tracking.uri": (settings.uri, URI), "tracking.experiment": (settings.experiment, _experiment())}
    return {key: name for key, (value, name) in found.items() if os.environ.get(name) and value == _of(name)}


def lines(settings: "Tracking") -> Iterator[str]:
    """What to say of MLflow's environment variables: that they decide, or that something else does."""
    if not settings.enabled:
        return
    ours = from_environment(settings)
    values = {"tracking.uri": settings.uri, "tracking.experiment": settings.experiment}
    if ours:
        yield "MLflow: " + ", ".join(f"{key}={values[key]} ({name} says so)" for key, name in ours.items())
    for key, name in (("tracking.uri", URI), ("tracking.experiment", _experiment())):
        if os.environ.get(name) and key not in ours:
            if name == EXPERIMENT_ID and not _same_store(settings):
                yield f"MLflow: {name} is not used: it is an id of another store than tracking.uri={settings.uri}"
            else:
                yield f"MLflow: {name} is not used: {key}={values[key]} is given"


def _experiment() -> str:
    """The variable that says which experiment: a name comes before an id."""
    return EXPERIMENT if os.environ.get(EXPERIMENT) else EXPERIMENT_ID


def _same_store(settings: "Tracking") -> bool:
    """Whether the environment's id of an experiment is one of this store, as far as anybody has said."""
    return settings.uri is None or (bool(os.environ.get(URI)) and settings.uri == _of(URI))


def overrides(settings: "Tracking", given: Sequence[str]) -> list[str]:
    """What a job in another process must be given, where the environment may be another."""
    values = {"tracking.uri": settings.uri, "tracking.experiment": settings.experiment}
    return [
        f"{key}={values[key]}"
        for key in from_environment(settings)
        if not any(re.match(rf"[+~]*{re.escape(key)}=", word) for word in given)
    ]


def opened(uri: str) -> tuple[str, tuple[str, str] | None]:
    """What MLflow is to be given, and a server's user name and password.

    A database has the password in its address.

    Raises:
        RequestError: it names a user of a server, and the password is not known.
    """
    uri = hidden(uri)
    found = re.match(r"([\w+.-]+://)([^/@]*)@(.+)", uri, re.DOTALL)
    if found is None:
        return uri, None
    head, user, rest = found.groups()
    password = _kept().get(uri)
    if not head.startswith("http"):
        return (uri if password is None else f"{head}{user}:{password}@{rest}"), None
    if password is not None:
        return head + rest, (unquote(user), unquote(password))
    if os.environ.get(PASSWORD) and os.environ.get(USER, unquote(user)) == unquote(user):
        return head + rest, (unquote(user), os.environ[PASSWORD])
    raise RequestError(
        f"tracking.uri={uri}: the password of '{user}' is not known, no file keeps it; set {PASSWORD}, "
        f"or type it (again): tracking.uri={head}{user}:PASSWORD@{rest}"
    )


def _kept() -> dict[str, str]:
    found: dict[str, str] = json.loads(os.environ.get(KEPT) or "{}")
    return found


def _of(name: str) -> str:
    return f"{BY_ID}{os.environ[name]}" if name == EXPERIMENT_ID else hidden(os.environ[name])
