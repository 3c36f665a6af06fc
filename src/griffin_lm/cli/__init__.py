"""The command `griffin`: a thin skin, one file per command, no logic that Python users would miss."""
