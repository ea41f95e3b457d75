"""`co.plot`: a network on one's own signal, as a picture."""
