"""A saved model in five lines, for a person: what it is, what it tells apart, what it takes, how good it is."""

from collections.abc import Iterator, Mapping
from typing import Any

from tlx.core.errors import printable
from tlx.core.metric import of_summary
from tlx.reporting.notebook_card import card

CLASSES = 6  # that are named
LONGEST = 40  # characters of a class name


def in_words(description: Mapping[str, Any], device: str) -> Iterator[str]:
    """The lines. `description`: the content of `model.json`; `device`: where the weights are."""
    hidden, classes = description["head"]["hidden"], [printable(str(name))[:LONGEST] for name in description["classes"]]
    head = f"a head of {len(hidden) + 1} layers" if hidden else "a linear head"
    yield f"tlx model: {description['backbone']['name']} with {head}"
    more = f", … ({len(classes) - CLASSES} more)" if len(classes) > CLASSES else ""
    yield f"classes:   {len(classes)}: {', '.join(classes[:CLASSES])}{more}"
    view = description["preprocessing"]
    whole = "whole picture, with borders" if view.get("pad") else "squashed"
    how = whole if view["resize"] is None else f"short side to {view['resize']}"
    how += "" if view["crop"] is None else ", centre crop"
    how += f"; mean of {1 + len(view['views'])} views" if view.get("views") else ""
    yield f"input:     {view['input_size']} × {view['input_size']} pixels, RGB ({how})"
    yield f"measured:  {_figure(description.get('metrics') or {})}"
    yield f"computes:  {description['precision']} on {device}"


def in_html(description: Mapping[str, Any], device: str) -> str:
    """The same for a notebook."""
    title, *lines = in_words(description, device)
    pairs = (line.partition(":") for line in lines)
    return card(title, [(name, text.strip()) for name, _, text in pairs])


def _figure(metrics: Mapping[str, Any]) -> str:
    figures = of_summary(metrics)
    if not figures:
        return "not yet"
    first = figures[0]
    return f"{first.key.replace('_', ' ')} {first.shown(metrics.get('test_images', 0))}"
