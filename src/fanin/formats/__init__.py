"""Files: `.keras`, `.weights.h5`, `.safetensors` and ONNX, Keras 2's `.h5` to read, and how every file is written."""
