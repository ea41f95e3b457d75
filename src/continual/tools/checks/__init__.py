"""The checks of `co.verify`, one file per concern; importing a file registers its checks."""
