"""Files that are copied into model repositories. They run in the server's Python, with only numpy and onnxruntime."""
