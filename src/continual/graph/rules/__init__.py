"""One small rule for each operation of torch: what it does to time, and how it runs on a stream."""

from . import attention, contraction, conv, elementwise, norms, pooling, products, recurrent, reduce, resample, shape, slices  # noqa: F401
