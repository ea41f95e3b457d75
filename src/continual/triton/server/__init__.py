"""Files that go into model repositories as they are. They run in the server's Python: they import numpy and onnxruntime, and nothing else."""
