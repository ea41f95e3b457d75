"""The checks that `co.verify` makes, one file per concern; importing a file registers its checks."""
