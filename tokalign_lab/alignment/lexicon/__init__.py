"""The lexicon: the table of new rows (`table`), its construction (`rows`), edits, export and checks."""

from tokalign_lab.alignment.lexicon.table import ORIGINS as ORIGINS
from tokalign_lab.alignment.lexicon.table import Lexicon as Lexicon
from tokalign_lab.alignment.lexicon.table import make_provenance as make_provenance
