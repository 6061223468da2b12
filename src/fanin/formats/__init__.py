"""Files: `.keras`, `.weights.h5`, `.safetensors`, ONNX and PEFT's folders, and the `.h5` of Keras 1 to 3 to read."""
