"""Pages in HTML, by Jinja2: what is filled in is escaped, nothing is fetched, and no script but `templates/` runs."""

import base64
import hashlib
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tlx.core.errors import printable

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent / "templates"


def page(template: str, **content: Any) -> str:
    """The page that a file of `templates/` makes of `content`; each extends `base.html`, which has title and style."""
    return _template(template).render(content)


def data_url(image: bytes, kind: str) -> str:
    """An image's file as the address of a picture on the page. `kind`: jpeg or png."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def link(target: Path, page: Path) -> str:
    """The address of a file or folder on a page: relative, so that both can be moved together."""
    there, here = target.absolute(), page.absolute().parent
    if there.drive != here.drive:
        return there.as_uri()
    return "./" + quote(os.fsencode(Path(os.path.relpath(there, here)).as_posix()))  # `./`: `a:b` is no scheme


def script(name: str) -> dict[str, Any]:
    """A script of `templates/` as a page takes it: its `text`, and the `digest` by which the page allows it alone."""
    from markupsafe import Markup

    text = (TEMPLATES / name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"text": Markup(text), "digest": digest}


@cache
def _template(name: str) -> "jinja2.Template":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


def _shown(value: Any) -> Any:
    """What a name holds beside text, as an escape; markup, which templates alone make, stays as it is."""
    return printable(value) if type(value) is str else value
