"""Panels for JupyterLab: choose a pair, inspect the lexicon, explore the maps, monitor tuning.

`Lab` holds all of them and gives them one shared view; each also works alone. Panels compute nothing themselves: runs
in separate processes do the work.
"""

from .common.job import JobPanel
from .common.state import LabState, Selection
from .compare.panel import ComparePanel
from .lab import Lab
from .lexicon.diagnosis import DiagnosisPanel
from .lexicon.panel import LexiconPanel
from .maps.panel import MapPanel
from .pair.picker import PairPicker
from .runs.panel import RunsPanel
from .training.panel import TrainingPanel

__all__ = [
    "ComparePanel",
    "DiagnosisPanel",
    "JobPanel",
    "Lab",
    "LabState",
    "LexiconPanel",
    "MapPanel",
    "PairPicker",
    "RunsPanel",
    "Selection",
    "TrainingPanel",
]
