"""The three sets of a configuration, of the parts of its data set."""

from collections.abc import Collection

from tlx.analysis.fact_reading import pixel_keys
from tlx.config.schema import Config
from tlx.datasets.content_digests import Decoded
from tlx.datasets.splits import Data, Parts, split
from tlx.runs.output_layout import fact_store


def split_data(
    parts: Parts,
    config: Config,
    seed: int,
    decoded: Decoded | None = None,
    decode: Collection[str] | None = None,
) -> Data:
    """As `datasets.splits.split`; copies that are to be left out are known by their pixels, whatever their files."""
    keys = {"keys": pixel_keys(fact_store(config))} if config.dataset.drop_duplicates else {}
    return split(parts, config.dataset, seed, decoded, decode, **keys)
