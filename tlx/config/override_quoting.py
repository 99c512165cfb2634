"""Values as they are typed: quoted for Hydra's grammar where it would read something else (`~/my photos (2)`)."""

import contextlib
import io
import re
from functools import lru_cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from tlx.core.trees import flat

# Keys that hold text whatever it looks like: a folder may be called 2024 or null-set.
_TEXT = re.compile(
    r"(.*\.)?(root|weights|uri|output|name|experiment|images|group|unknown\.dataset|(splits|columns)\.\w+)"
)
_OVERRIDE = re.compile(r"(?P<key>[+~]{0,2}[\w./@:-]+)=(?P<value>.*)", re.DOTALL)


def as_typed(override: str, *, multirun: bool) -> str:
    """The override with its value quoted where Hydra's grammar would read it as something else than it is.

    Under `multirun` commas separate choices; each is looked at by itself.
    """
    found = _OVERRIDE.fullmatch(override)
    if not found:
        return override
    key, value = found["key"], found["value"]
    parsed = _parsed(override)
    if multirun:
        if parsed is not None and parsed.is_sweep_override():
            return override
        if parsed is None and "," in value:
            return f"{key}={','.join(_quoted(key, one) for one in value.split(','))}"
    return f"{key}={_quoted(key, value)}"


def keys(override: str) -> list[str]:
    """The dotted keys that an override sets: `training={lr: 1}` sets training.lr, `+optimizer@a.b=adam` sets a.b."""
    name = re.split(r"=", override, maxsplit=1)[0].lstrip("+~").rpartition("@")[2]
    parsed = _parsed(override)
    value = parsed.value() if parsed is not None and not parsed.is_sweep_override() else None
    leaves = [str(key) for key, _ in flat(value)] if isinstance(value, dict) else []
    return [f"{name}.{leaf}" for leaf in leaves] or [name]


@lru_cache(2048)  # a run looks at each of its overrides about ten times
def _parsed(override: str) -> Override | None:
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return OverridesParser.create().parse_override(override)
    except (HydraException, OmegaConfBaseException):
        return None


def _quoted(key: str, value: str) -> str:
    override = _parsed(f"{key}={value}")
    if override is None or override.is_sweep_override():
        return quote(value)
    parsed = override.value()
    if isinstance(override._value, QuotedString) or "${" in value or not value:
        return value
    if isinstance(parsed, str):
        return value if parsed == value else quote(value)
    as_text = _TEXT.fullmatch(key) is not None and parsed is not None
    return quote(value) if as_text or re.match(r"\w+\(", value) else value


def quote(value: str) -> str:
    """The value in the single quotes of Hydra's grammar."""
    # Hydra's grammar: a backslash only escapes before a quote, or at the end.
    escaped = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", value)
    return "'" + re.sub(r"(\\+)$", lambda found: found[1] * 2, escaped) + "'"
