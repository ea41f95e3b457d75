"""State dicts with flat names: the import path of continual-inference."""

from .core.state_dicts import flat_state_dict, load_state_dict, state_dict

__all__ = ["flat_state_dict", "load_state_dict", "state_dict"]
