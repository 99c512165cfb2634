"""What a file that `torch.save` or safetensors wrote holds; nothing in it is executed, whoever wrote it."""

import pickle
import pickletools
import re
import tarfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file
from torch._utils import IMPORT_MAPPING, NAME_MAPPING  # which module and name each of Python 2 became

from tlx.core.errors import RequestError, printable, reason
from tlx.core.pickle_protocols import in_protocol_2, pickle_of

__all__ = ["Inert", "content", "whole_network"]

# Where torch's own functions are that make tensors.
_OWN = ("torch", "torch._utils", "torch._tensor", "torch.storage", "builtins", "collections")
_DAMAGED = "its pickle is cut short or damaged"
# How files begin that people take for weights.
_OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; `git lfs pull` gets that",
    b"<!doctype": "a web page, not the file itself; download it again",
    b"<html": "a web page, not the file itself; download it again",
    b"\x89hdf": "an HDF5 file, as Keras writes them; save a state dict with torch",
}
# Whoever pickles a call of these wants it made when the file is opened.
_CALLS = re.compile(
    r"(os|posix|nt|sys|subprocess|shutil|socket|pty|ctypes|runpy|importlib|code|webbrowser)\b.*"
    r"|(builtins|_io|io)\.(eval|exec|compile|open|__import__|input|breakpoint)"
)
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"


class Inert:
    """Stands for an object of a class or function that is never looked up.

    `origin`: its full name. `state`: its attributes, as the file has them.
    """

    origin = "object"
    state: Any = None

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Whatever the class is made with."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Listed:
    """The same for a class that derives from list; torch 2.8 puts items into no list but Python's own."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """An empty one."""
        return list[Any]()


class _ListedWithState(list[Any]):
    """The same where its objects have attributes, too."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass


class _Mapped:
    """The same for a class that derives from dict; torch puts items into dicts of its own choice alone."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """An empty one."""
        return Counter[Any]()


# What is put into an object says what stands for it.
_FILLS: dict[str, type] = {"SETITEM": _Mapped, "SETITEMS": _Mapped, "APPEND": _Listed, "APPENDS": _Listed}


def content(path: Path) -> Any:
    """What the file holds: tensors on the CPU, plain values, and `Inert` for objects of any other class.

    A file is taken for what it is, whatever its name ends in.

    Raises:
        RequestError: it is damaged, a program (TorchScript), or something else that is no file of weights.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
        if start[8:9] == b"{":
            return load_file(path)
        if problem := _other(path, start):
            raise pickle.UnpicklingError(problem)
        return _torch(path)
    except RequestError:
        raise
    except Exception as error:  # a damaged pickle makes the unpickler raise anything at all
        what = "damaged, or no file of weights (.pth, .safetensors)"
        raise RequestError(f"{path}: {what}: {printable(reason(error))}") from error


def whole_network(path: Path, kind: str) -> RequestError:
    """What to say of a file that holds a pickled module of the class `kind`."""
    return RequestError(
        f"{path}: holds a whole pickled network ({printable(kind)}), which only its own code can open; where that is, "
        "save its state dict: torch.save(model.state_dict(), 'weights.pth')"
    )


def _torch(path: Path) -> Any:
    """What torch reads without running anything; objects of classes that it does not know become stand-ins."""
    with path.open("rb") as written, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the pickle's protocol
        if _plain_pickle(written):
            raise pickle.UnpicklingError("written by pickle and not by torch.save; save it again with that")
        try:
            file = in_protocol_2(written)
        except Exception as error:  # anything may come of damage
            raise pickle.UnpicklingError(_DAMAGED) from error
        try:
            return _tensors(file)
        except pickle.UnpicklingError as error:  # other classes beside the tensors, or damage
            kinds = _classes(file, error)
        for name in kinds:
            if _CALLS.fullmatch(name):
                raise pickle.UnpicklingError(f"it would call {name} where it is opened with pickle: do not trust it")
        try:
            with torch.serialization.safe_globals([(_stand_in(name, kind), name) for name, kind in kinds.items()]):
                return _tensors(file)
        except pickle.UnpicklingError as error:
            if any(name.startswith("torch.nn.modules.") for name in kinds):
                raise whole_network(path, next(iter(kinds))) from error
            foreign = [name for name in kinds if name.rpartition(".")[0] not in _OWN]
            raise pickle.UnpicklingError(
                f"beside tensors it holds objects that cannot be left out safely ({', '.join(foreign[:3])})"
                if foreign
                else _DAMAGED
            ) from error


def _tensors(file: IO[bytes]) -> Any:
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def _plain_pickle(file: IO[bytes]) -> bool:
    """Whether a file begins with a pickle that is not the number which `torch.save` wrote first in its old format."""
    start = file.read(64)
    number = torch.serialization.MAGIC_NUMBER.to_bytes(10, "little")
    return start.startswith(_PICKLE) and number not in start


def _stand_in(name: str, kind: type) -> type:
    """A class of its own for each name, so that the object tells what it stands for."""
    return type(name.rpartition(".")[2], (kind,), {"origin": name})


def _operations(file: IO[bytes]) -> Iterator[tuple[pickletools.OpcodeInfo, Any, Any]]:
    """The operations of the pickles in a file of torch's, in the new format or the old one; none is executed."""
    file.seek(0)
    if file.read(len(_ZIP)) == _ZIP:
        with zipfile.ZipFile(file) as archive:
            yield from pickletools.genops(archive.read(pickle_of(archive)))
        return
    file.seek(0)
    for _ in range(4):  # a number, the version, the machine, the content; tensors follow
        yield from pickletools.genops(file)


def _classes(file: IO[bytes], error: Exception) -> dict[str, type]:
    """The names of the classes and functions in a file → what stands for their objects: by what is done with them.

    Raises:
        UnpicklingError: its pickle is damaged.
    """
    try:
        return _followed(_operations(file))
    except Exception:  # anything may come of damage
        raise pickle.UnpicklingError(_DAMAGED) from error


def _followed(operations: Iterable[tuple[pickletools.OpcodeInfo, Any, Any]]) -> dict[str, type]:
    """A run of the pickle's machine in which all objects are empty but for the name of what made them."""
    stack: list[str | None] = []
    marks: list[int] = []
    memo: dict[int, str | None] = {}
    kinds: dict[str, type] = {}
    for op, arg, _ in operations:
        if op.name == "STOP":
            stack.clear()
        elif op.name == "MARK":
            marks.append(len(stack))
        elif op.name in ("BINPUT", "LONG_BINPUT"):
            memo[arg] = stack[-1]
        elif op.name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[arg])
        elif op.name == "GLOBAL":
            stack.append(_named(*arg.split(" ", 1)))
            kinds.setdefault(str(stack[-1]), Inert)
        else:
            _pop(op, stack, marks)
            made = stack[-1] if stack else None
            if made is not None and op.name in _FILLS and kinds[made] is not _ListedWithState:
                kinds[made] = _FILLS[op.name]
            elif made is not None and op.name == "BUILD" and kinds[made] is _Listed:
                kinds[made] = _ListedWithState
    return kinds


def _pop(op: pickletools.OpcodeInfo, stack: list[str | None], marks: list[int]) -> None:
    """What an operation does to the stack; an object keeps the name of the class or function that made it."""
    kept = op.name in (*_FILLS, "BUILD")
    if pickletools.markobject in op.stack_before:
        del stack[marks.pop() :]
        before = op.stack_before.index(pickletools.markobject)
    else:
        before = len(op.stack_before)
    if kept or op.name in ("REDUCE", "NEWOBJ"):
        del stack[len(stack) - before + 1 :]
        return
    del stack[len(stack) - before :]
    stack.extend([None] * len(op.stack_after))


def _named(module: str, name: str) -> str:
    """As torch calls it, which knows what Python 2 called some modules."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


def _other(path: Path, start: bytes) -> str:
    """What the file is where it is none of `torch.save`'s, in words; empty where it may be one."""
    for beginning, what in _OTHERS.items():
        if start.lstrip().lower().startswith(beginning):
            return what
    if not start:
        return "the file is empty"
    if start.startswith(_ZIP):
        return _other_archive(path)
    if tarfile.is_tarfile(path):
        return "a tar archive; unpack it, or save the state dict again (torch before 0.4 wrote such files)"
    return "" if start.startswith(_PICKLE) else "it begins like no file of torch.save or safetensors"


def _other_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        return ""  # torch says what is wrong with it
    if "constants.pkl" in names:
        raise RequestError(
            f"{path}: a TorchScript program (torch.jit.save), not a state dict; save one by "
            "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
        )
    if "archive_format" in names or "serialized_exported_program.json" in names:
        raise RequestError(
            f"{path}: an exported program (torch.export.save), not a state dict; save one by "
            "torch.save(torch.export.load(FILE).state_dict, 'weights.pth')"
        )
    return "" if "data.pkl" in names else "a zip archive that torch.save did not write"
