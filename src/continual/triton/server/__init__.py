"""Files that go into model repositories as they are. They run in the server's Python, on numpy and onnxruntime alone."""
