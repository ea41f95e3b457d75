"""One small rule for each operation of torch: what it does to time, and how it runs on a stream."""

from . import (  # noqa: F401 (they register themselves)
    along,
    attention,
    contraction,
    conv,
    elementwise,
    index,
    joins,
    norms,
    padding,
    pooling,
    products,
    recurrent,
    reduce,
    registered,
    resample,
    scores,
    shape,
    slices,
    spectra,
    writes,
)
