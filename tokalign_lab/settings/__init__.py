"""Settings of runs and commands: one class per kind, each option named once (docs/decisions/0013)."""
