"""Text to token files, and token files to batches: files, preparing, order, packing, feeds."""
