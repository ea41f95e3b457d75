"""Recurrent layers: the import path of continual-inference."""

from .layers.recurrent.stacked import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN"]
