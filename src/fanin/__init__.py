"""fanin: Keras's Dense layer and its whole contract, native on PyTorch."""
