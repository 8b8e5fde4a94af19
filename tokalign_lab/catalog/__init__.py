"""The catalogue: find a model, tokenizer, encoder or text by name: packaged, at a local path, or on the hub."""

from tokalign_lab.catalog.assets import Asset as Asset
from tokalign_lab.catalog.assets import assets as assets
from tokalign_lab.catalog.assets import find as find
from tokalign_lab.catalog.assets import is_known as is_known
from tokalign_lab.catalog.resolve import cached_path as cached_path
from tokalign_lab.catalog.resolve import encoder_folder as encoder_folder
from tokalign_lab.catalog.resolve import get as get
from tokalign_lab.catalog.resolve import is_hub_id as is_hub_id
from tokalign_lab.catalog.resolve import load_tokenizer as load_tokenizer
from tokalign_lab.catalog.resolve import model_folder as model_folder
from tokalign_lab.catalog.vocabularies import load_vocabulary as load_vocabulary
