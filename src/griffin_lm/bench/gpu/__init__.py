"""`make gpu-check`: kernels against float64, the model on a GPU, then speed beside its limits."""
