"""`co.bench`: how fast a network streams, in each form that runs here."""
