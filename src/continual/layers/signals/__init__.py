"""Layers of signals: spectra of windows, filters, resampling, normalisers with state."""
