"""Panels for JupyterLab over the engine: pick a pair, inspect the lexicon, see the maps, watch the tuning.

`Lab` has them all over one view; each also stands alone. They only show and ask: work is done by the engine, in runs.
"""

from tokalign_lab.widgets.compare_panel import ComparePanel
from tokalign_lab.widgets.diagnosis_panel import DiagnosisPanel
from tokalign_lab.widgets.job_panel import JobPanel
from tokalign_lab.widgets.lab import Lab
from tokalign_lab.widgets.lexicon_panel import LexiconPanel
from tokalign_lab.widgets.map_panel import MapPanel
from tokalign_lab.widgets.pair_picker import PairPicker
from tokalign_lab.widgets.runs_panel import RunsPanel
from tokalign_lab.widgets.state import LabState, Selection
from tokalign_lab.widgets.training_panel import TrainingPanel

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
