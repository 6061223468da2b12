"""Starting weights that are the same in every framework."""

import numpy as np


def same_start(model, seed=0):
    """Fill every kernel and embedding of a built model, Glorot's limits; leave vectors and scalars as they are."""
    rng = np.random.default_rng(seed)
    weights = []
    for weight in model.get_weights():
        if weight.ndim >= 2:
            limit = np.sqrt(6.0 / (weight.shape[0] + weight.shape[-1]))
            weight = rng.uniform(-limit, limit, weight.shape).astype("float32")
        weights.append(weight)
    model.set_weights(weights)
