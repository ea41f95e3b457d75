"""Networks as files that stream without Python: `co.export` writes them, `co.load` runs them."""
