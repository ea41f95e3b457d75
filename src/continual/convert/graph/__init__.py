"""Conversion by graph: the exported graph of any module, followed wire by wire, becomes a streaming network."""
