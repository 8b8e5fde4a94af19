"""The lexicon: the table of new rows (`table`), how it is built (`rows`), edited, exported and stored."""

from tokalign_lab.alignment.lexicon.table import ORIGINS as ORIGINS
from tokalign_lab.alignment.lexicon.table import Lexicon as Lexicon
from tokalign_lab.alignment.lexicon.table import make_provenance as make_provenance
