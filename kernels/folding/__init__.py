"""Batch-norms folded into the convolutions before them, all of a network's in one launch (CUDA only)."""
