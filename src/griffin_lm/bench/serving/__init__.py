"""`griffin bench serve`: the engine, the disk, and a whole server in a process of its own."""
