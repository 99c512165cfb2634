"""The served model: MLflow opens a logged model by this module (`loader_module` in its `MLmodel`: `tlx.served`).

What comes in is pixels or the bytes of image files, never a path, a URL or a pickle: nothing is opened, fetched or
executed for it. What is wrong with one image is said in its row.
"""

import base64
import binascii
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from tlx.datasets.image_decoding import Pixels, UnreadableImage
from tlx.inference.predictor import Model, Prediction, load

if TYPE_CHECKING:
    import pandas as pd

MAX_BYTES = 64 * 2**20  # of one image's file; twice what the largest cameras write as JPEG
COLUMNS = ["prediction", "probability", "probabilities", "error"]
RIGHT = "give the bytes of an image file in base64, or uint8 [H, W, 3]"


def _load_pyfunc(path: str) -> "Served":
    """MLflow's entry: the model in the folder `path`."""
    return Served(load(path))


class Served:
    """A saved model as MLflow's `python_function`."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._one = threading.Lock()  # requests come in threads, and a forward pass uses all cores

    def predict(self, model_input: "pd.DataFrame") -> "pd.DataFrame":
        """A row for each row of the column `image`, under the same index.

        An image is a file's content in base64 (or as bytes), or uint8 `[H, W, 3]` as an array or nested lists; a
        single image `[H, W, 3]` may also be spread over H rows.

        Returns:
            `prediction`: the class; `probability`: of the most probable class; `probabilities`: of every class;
            `error`: a line where there is no prediction, and the others are empty. They are `Model.predict`'s.
        """
        import pandas as pd

        given: list[bytes | Pixels | str] = []
        for image in _images(list(model_input["image"])):
            try:
                given.append(_content(image) if isinstance(image, str | bytes) else _pixels(image))
            except UnreadableImage as error:
                given.append(str(error))
        with self._one:
            predictions = iter(self.model.predict(one for one in given if not isinstance(one, str)))
        found = [Prediction("", error=one) if isinstance(one, str) else next(predictions) for one in given]
        rows = [(p.prediction, p.probability, dict(p.probabilities), p.error) for p in found]
        return pd.DataFrame(rows, columns=COLUMNS, index=model_input.index if len(rows) == len(model_input) else None)


def _images(given: list[Any]) -> list[Any]:
    """The images as they were meant, where MLflow has left a list of them whole or taken one apart."""
    if len(given) == 1 and isinstance(given[0], list) and all(isinstance(one, str) for one in given[0]):
        return given[0]  # {"inputs": {"image": [text, text]}}
    if given and all(isinstance(row, list | np.ndarray) and len(row) and _width(row[0]) == 3 for row in given):
        return [given]  # {"image": [H, W, 3]}: its rows
    return given


def _width(pixel: Any) -> int:
    """How many numbers a pixel has; 0 for what is no pixel."""
    numbers = pixel.tolist() if isinstance(pixel, np.ndarray) else pixel
    return len(numbers) if isinstance(numbers, list) and all(isinstance(n, int | float) for n in numbers) else 0


def _content(image: str | bytes) -> bytes:
    """A file's bytes. Raises `UnreadableImage` for what is no base64, or too long."""
    if len(image) > (MAX_BYTES if isinstance(image, bytes) else MAX_BYTES * 4 // 3 + 4):
        raise UnreadableImage(f"the file has more than {MAX_BYTES // 2**20} MiB")
    if isinstance(image, bytes):
        return image
    try:
        return base64.b64decode("".join(image.split()), validate=True)  # most tools break its lines
    except (binascii.Error, ValueError):
        raise UnreadableImage(f"not base64; {RIGHT}") from None


def _pixels(image: Any) -> Pixels:
    """An array; whether it is an image is the model's to say. Raises `UnreadableImage` for what is none."""
    if isinstance(image, np.ndarray):
        return image
    if not isinstance(image, list):
        raise UnreadableImage(f"no image; {RIGHT}")
    try:
        pixels = np.array(image)
    except (ValueError, TypeError, OverflowError):
        raise UnreadableImage(f"lists of unequal length; {RIGHT}") from None
    if pixels.dtype.kind == "i" and pixels.size and pixels.min() >= 0 and pixels.max() <= 255:
        return pixels.astype(np.uint8)
    # JSON writes the float 1.0 as it writes 255's neighbour 1: which of the two is meant cannot be known.
    raise UnreadableImage(f"an array of {pixels.dtype} {list(pixels.shape)}; it must be uint8 [H, W, 3]")
