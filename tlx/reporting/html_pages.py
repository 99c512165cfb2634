"""Pages in HTML, by Jinja2: everything that is filled in is escaped, and nothing on a page runs or is fetched."""

import base64
import os
from collections.abc import Iterator
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


def written(template: str, **content: Any) -> Iterator[str]:
    """As `page`, piece by piece: for pages of thousands of pictures."""
    yield from _template(template).generate(content)


def data_url(image: bytes, kind: str) -> str:
    """An image's file as the address of a picture on the page. `kind`: jpeg or png."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def link(target: Path, page: Path) -> str:
    """The address of a file or folder on a page: relative, so that both can be moved together."""
    there, here = target.absolute(), page.absolute().parent
    if there.drive != here.drive:
        return there.as_uri()
    return "./" + quote(os.fsencode(Path(os.path.relpath(there, here)).as_posix()))  # `./`: `a:b` is no scheme


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
