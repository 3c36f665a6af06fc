"""lm-eval over our models: `griffin evaluate MODEL --tasks NAMES`, or lm-eval's own command line.

lm-eval is an extra, and slow to import: only `adapter` and `running` import it.
"""
