"""Tensors as bytes of safetensors. This module imports torch."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
from torch import Tensor


def tensors_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return dense tensors, by name, as bytes of safetensors."""
    # Copies: safetensors refuses tensors that share memory, such as tied weights.
    copies = {
        name: tensor.cpu().resolve_conj().resolve_neg().contiguous().clone()
        for name, tensor in tensors.items()
    }
    return safetensors.torch.save(copies)
