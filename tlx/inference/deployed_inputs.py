"""What an exported file takes: an image, a batch, or images that are resized already. Without torch."""

__all__ = ["INPUTS", "takes"]

# What a file takes, by the name of its input → how large its input is, in words.
INPUTS = {
    "image": "[H, W, 3], an image of any size",
    "images": "[N, H, W, 3], images of one size, whichever",
    "resized": "[N, 3, {side}, {side}], images that are resized and cropped as in `preprocessing`",
}


def takes(name: str, side: int) -> str:
    """What the input of that name takes, for a person."""
    return f"uint8 {INPUTS[name].format(side=side)}; RGB, 0..255"
