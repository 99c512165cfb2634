"""What libraries say about an image beside what they raise: collected for the one who decodes, not written to stderr.

libtiff writes its errors and warnings to the process's stderr, without the file's name; Pillow has a logger. Where
libtiff cannot be reached (it is built into Pillow on some platforms) its lines stay what they are.
"""

import contextlib
import ctypes
import ctypes.util
import functools
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL

LONGEST = 500  # bytes of a remark
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)  # module, format, its arguments
_here = threading.local()
_once = threading.Lock()  # several threads may decode their first image at the same moment


@contextlib.contextmanager
def collected() -> Iterator[list[str]]:
    """The remarks of libraries on what this thread does within the block, in order."""
    with _once:
        _listen()
    found: list[str] = []
    before, _here.found = getattr(_here, "found", None), found
    try:
        yield found
    finally:
        _here.found = before


def _add(text: str) -> None:
    found = getattr(_here, "found", None)
    if found is not None and text:
        found.append(text)


class _FromLogger(logging.Handler):
    """With a handler of its own, what Pillow logs is not written to stderr by default."""

    def emit(self, record: logging.LogRecord) -> None:
        _add(" ".join(record.getMessage().split()))


@functools.cache
def _listen() -> Any:
    """Takes the place of what writes to stderr, once; what is returned must stay alive as long as the process."""
    logging.getLogger("PIL").addHandler(_FromLogger(logging.WARNING))
    library = _libtiff()
    if library is None:
        return None
    write = ctypes.CDLL(None).vsnprintf
    write.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]

    def hear(module: bytes | None, form: bytes, arguments: int) -> None:
        text = ctypes.create_string_buffer(LONGEST)
        write(text, LONGEST, form, arguments)
        _add(" ".join(text.value.decode(errors="replace").split()).rstrip("."))

    handler = _Handler(hear)
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        setter = getattr(library, name)
        setter.argtypes, setter.restype = [_Handler], ctypes.c_void_p
        setter(handler)
    return handler


def _libtiff() -> ctypes.CDLL | None:
    """The libtiff that Pillow uses: beside it in its wheel, or the system's."""
    packages = Path(PIL.__file__).parent
    beside = [*packages.parent.glob("pillow.libs/libtiff*"), *packages.glob(".dylibs/libtiff*")]
    with contextlib.suppress(OSError, AttributeError, TypeError):
        name = str(beside[0]) if beside else ctypes.util.find_library("tiff")
        library = ctypes.CDLL(name) if name else None
        if hasattr(library, "TIFFSetErrorHandler") and hasattr(ctypes.CDLL(None), "vsnprintf"):
            return library
    return None
