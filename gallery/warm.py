"""Imports what networks need, once, in the server process from which the processes of networks are forked."""

from __future__ import annotations

import contextlib
import io
import os
import warnings

import torch
from torch import nn

import continual as co

from . import measure  # noqa: F401
from .catalogue import everything
from .packages import load, missing

PACKAGES = "CONTINUAL_GALLERY_PACKAGES"  # names with spaces between

everything()
torch.set_num_threads(1)
co.continual(nn.Conv1d(2, 2, 3).eval(), torch.randn(2, 2, 8), progress=False)  # what torch imports when it first exports
with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    warnings.simplefilter("ignore")
    for _name in os.environ.get(PACKAGES, "").split():
        if not missing(_name):
            with contextlib.suppress(Exception):  # the networks that need it say why
                load(_name)
