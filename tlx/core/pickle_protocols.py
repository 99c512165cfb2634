"""Files of `torch.save` with pickles of protocols 3 to 5, written again in 2: the one that torch reads safely.

Only the form changes: what a pickle looks up or calls is the same before and after, and nothing is executed here.
https://peps.python.org/pep-3154/ describes what protocol 4 added.
"""

import pickletools
import struct
import zipfile
from collections.abc import Iterator
from io import BytesIO
from typing import IO, Any, cast

__all__ = ["in_protocol_2", "pickle_of"]

_PICKLES = 5  # at the start of a file of the old format: a number, the version, the machine, the content, the keys
_TEXT = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_BYTES = ("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8")
_PUT = ("MEMOIZE", "BINPUT", "LONG_BINPUT")
# Sets become lists and tuples of the same, and arguments that are given by name one more argument.
_INSTEAD = {
    "PROTO": b"\x80\x02",
    "FRAME": b"",
    "EMPTY_SET": b"]",
    "ADDITEMS": b"e",
    "FROZENSET": b"t",
    "NEWOBJ_EX": b"\x86R",
}


def pickle_of(archive: zipfile.ZipFile) -> str:
    """The name of the pickle in a file of the new format."""
    (name,) = (name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
    return name


def in_protocol_2(file: IO[bytes]) -> IO[bytes]:
    """The file itself where its pickles are of protocol 2 or older, else one in memory with the same content.

    Raises:
        Exception: of any kind. The pickle is damaged, or has what protocol 2 cannot say.
    """
    file.seek(0)
    start = file.read(4)
    if start != b"PK\x03\x04":
        file.seek(0)
        return BytesIO(_translated(file.read(), _PICKLES)) if _later(start) else file
    with zipfile.ZipFile(file) as archive:
        name = pickle_of(archive)
        with archive.open(name) as stream:
            if not _later(stream.read(2)):
                return file
        made = BytesIO()
        with zipfile.ZipFile(made, "w") as copy:
            for member in archive.infolist():
                content = archive.read(member)
                copy.writestr(member.filename, _translated(content, 1) if member.filename == name else content)
    return made


def _later(start: bytes) -> bool:
    """Whether a pickle that begins so is of a later protocol than 2."""
    return start[:1] == b"\x80" and start[1:2] > b"\x02"


def _translated(data: bytes, count: int) -> bytes:
    """The first `count` pickles in protocol 2, and what comes after them as it is."""
    stream = BytesIO(data)
    made = [_one(stream) for _ in range(count)]
    return b"".join([*made, stream.read()])


def _one(stream: BytesIO) -> bytes:
    """The pickle at the stream's position in protocol 2.

    Text is never memoized, but written wherever it is used: protocol 2 has the names of classes in the operation that
    looks them up, not on the stack.
    """
    out: list[bytes | str] = []
    memo: list[str | None] = []  # the text that was memoized under a number; None: something else
    for op, arg, raw in _operations(stream):
        if op in _TEXT:
            out.append(arg)
        elif op in _BYTES:  # as protocol 2 has them
            out += [b"c_codecs\nencode\n", bytes(arg).decode("latin1"), "latin1", b"\x86R"]
        elif op == "STACK_GLOBAL":
            name, module = out.pop(), out.pop()
            if not isinstance(name, str) or not isinstance(module, str):
                raise ValueError("the name of a class is no text")
            out.append(f"c{module}\n{name}\n".encode())
        elif op in _PUT:
            number = len(memo) if op == "MEMOIZE" else arg
            memo += [None] * (number + 1 - len(memo))
            top = out[-1]
            memo[number] = top if isinstance(top, str) else None
            if not isinstance(top, str):
                out.append(b"r" + struct.pack("<I", number))
        elif op in ("BINGET", "LONG_BINGET"):
            text = memo[arg]
            out.append(b"j" + struct.pack("<I", arg) if text is None else text)
        else:
            out.append(_INSTEAD.get(op, raw))
    return b"".join(_text(part) if isinstance(part, str) else part for part in out)


def _operations(stream: BytesIO) -> Iterator[tuple[str, Any, bytes]]:
    """The operations of a pickle: name, argument, and as they stand in the file."""
    held = stream.getbuffer()
    found = list(pickletools.genops(stream))
    ends = [*(cast(int, start) for _, _, start in found[1:]), stream.tell()]
    for (op, arg, start), end in zip(found, ends, strict=True):
        yield op.name, arg, bytes(held[start:end])


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded
