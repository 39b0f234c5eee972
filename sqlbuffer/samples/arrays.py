"""numpy arrays and torch tensors as flat, little-endian elements; torch is not imported."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlbuffer._numpy import np
from sqlbuffer.errors import UnsupportedType

if TYPE_CHECKING:
    from numpy.typing import NDArray

TYPED_ARRAY_TAGS = {
    "uint8": 64, "uint16": 69, "uint32": 70, "uint64": 71,
    "int8": 72, "int16": 77, "int32": 78, "int64": 79,
    "float16": 84, "float32": 85, "float64": 86,
}  # fmt: skip
"""Tags of RFC 8746 for little-endian elements, by dtype."""

ELEMENT_DTYPES = {name: np.dtype(name).newbyteorder("<") for name in TYPED_ARRAY_TAGS} | {
    "bool": np.dtype("bool"),
    "complex64": np.dtype("<c8"),
    "complex128": np.dtype("<c16"),
    "bfloat16": np.dtype("<u2"),
}
"""Every supported dtype, with the numpy dtype of its bytes."""

NUMPY_SCALARS = tuple(
    scalar
    for scalar in dict.fromkeys(np.sctypeDict.values())
    if np.dtype(scalar).name in ELEMENT_DTYPES
)

_FLOAT_LAYOUTS = {
    "float16": ("<u2", 0x7C00, 0x7E00),
    "bfloat16": ("<u2", 0x7F80, 0x7FC0),
    "float32": ("<u4", 0x7F80_0000, 0x7FC0_0000),
    "complex64": ("<u4", 0x7F80_0000, 0x7FC0_0000),
    "float64": ("<u8", 0x7FF0_0000_0000_0000, 0x7FF8_0000_0000_0000),
    "complex128": ("<u8", 0x7FF0_0000_0000_0000, 0x7FF8_0000_0000_0000),
}
"""By dtype: the integer type of its bits, the bits of infinity, and the bits of the one NaN."""


class Elements(NamedTuple):
    """The elements of an array or tensor.

    Attributes:
        dtype: A name in `ELEMENT_DTYPES`.
        shape: Its dimensions; () for a scalar.
        data: (size,) the elements in C order, little-endian and contiguous.
    """

    dtype: str
    shape: tuple[int, ...]
    data: NDArray[Any]


def flatten(value: Any) -> Elements:
    """Return the elements of a numpy array or scalar, or of a torch tensor.

    Device, layout, strides and byte order of the value do not matter.

    Raises:
        UnsupportedType: If its dtype is not in `ELEMENT_DTYPES`, or it has no data.
    """
    if is_tensor(type(value)):
        return _flatten_tensor(value)
    array = np.asarray(value)
    name = array.dtype.name
    if name not in ELEMENT_DTYPES:
        raise UnsupportedType(
            f"an array of dtype {array.dtype} is not supported: add array.tolist(), or convert it"
        )
    return Elements(
        name, array.shape, np.ascontiguousarray(array, dtype=ELEMENT_DTYPES[name]).reshape(-1)
    )


def is_tensor(cls: type[Any]) -> bool:
    """Tell whether the class is torch.Tensor or derived from it, without importing torch."""
    # torch has no Tensor yet while it is being imported.
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    return tensor is not None and issubclass(cls, tensor)


def is_plain_tensor(cls: type[Any]) -> bool:
    """Tell whether the class is torch.Tensor, or derived from it without overriding operators."""
    if not is_tensor(cls):
        return False
    torch = sys.modules["torch"]
    operators = {
        _function(kind, "__torch_function__") for kind in (torch.Tensor, torch.nn.Parameter)
    }
    return (
        cls.__eq__ is torch.Tensor.__eq__
        and _function(cls, "__torch_function__") in operators
        and _function(cls, "__torch_dispatch__") is _function(torch.Tensor, "__torch_dispatch__")
        and cls not in (torch.nn.UninitializedParameter, torch.nn.UninitializedBuffer)
    )


def _function(cls: Any, name: str) -> Any:
    """Return a function of a class; for a class method, the function that it binds."""
    found = getattr(cls, name)
    return getattr(found, "__func__", found)


def _flatten_tensor(tensor: Any) -> Elements:
    torch = sys.modules["torch"]
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in ELEMENT_DTYPES or tensor.is_nested or tensor.is_meta:
        kind = "nested" if tensor.is_nested else "meta" if tensor.is_meta else name
        raise UnsupportedType(
            f"a {kind} tensor is not supported: convert it to a plain tensor of a common dtype"
        )
    dense = tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
    plain = dense.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    data = (plain.view(torch.int16) if name == "bfloat16" else plain).numpy()
    return Elements(name, tuple(tensor.shape), data.astype(ELEMENT_DTYPES[name], copy=False))


def is_normal(elements: Elements) -> bool:
    """Tell whether `normalised` changes nothing: there is no -0.0 and no NaN.

    Read as integers, -0.0 is the least of all, and every NaN is beyond the infinity of its sign.
    """
    if elements.dtype not in _FLOAT_LAYOUTS or not elements.data.size:
        return True
    form, infinity, _ = _FLOAT_LAYOUTS[elements.dtype]
    bits, signed = elements.data.view(form), elements.data.view(form.replace("u", "i"))
    least = np.iinfo(signed.dtype).min
    return bool(
        signed.min() != least and signed.max() <= infinity and bits.max() <= infinity - least
    )


def normalised(elements: Elements) -> NDArray[Any]:
    """Return the elements with 0.0 for -0.0 and one NaN for every NaN.

    It changes bits, not floats: numpy has no bfloat16, and a signalling NaN raises no warning.
    """
    if elements.dtype not in _FLOAT_LAYOUTS:
        return elements.data
    form, infinity, nan = _FLOAT_LAYOUTS[elements.dtype]
    bits = elements.data.view(form).copy()
    magnitude = bits & (infinity | (infinity & -infinity) - 1)
    bits[magnitude == 0] = 0
    bits[magnitude > infinity] = nan
    return bits
