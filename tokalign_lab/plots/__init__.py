"""Plotly figures without widgets, imported where one is drawn: the panels show them live, the report prints them."""
