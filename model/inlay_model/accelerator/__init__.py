"""The model on a GPU: one captured graph per bucket, kernels near the memory's bandwidth, reduced precision.

Everything here computes what transformers' own modules compute (docs/explain/speed.md), on the same weights. Each
kernel has a plain twin in `reference.py`; where a graph or a kernel fails, the eager path goes on and says so.
"""
