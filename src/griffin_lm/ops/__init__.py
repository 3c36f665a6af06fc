"""Pure functions on tensors: no modules, no configuration.

Each operation is a folder: `definition` (a plain float64 loop or formula that says what is right),
`reference` (differentiable, fast enough, runs anywhere) and, where they exist, kernels.
"""
