"""The command `griffin`: a thin skin, a file per command, no logic that Python users miss."""
