"""Loss functions as modules: the options bound once, one definition for both forms."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec

from torch import Tensor, nn

P = ParamSpec("P")


class Loss(nn.Module, Generic[P]):
    """A loss function with its options bound, as :func:`functools.partial` binds them.

    ``DiceLoss(batch=True)(input, target)`` is ``dice_loss(input, target, batch=True)``; an option given to the call
    overrides the bound one. Tensor options are buffers, so that ``.to(device)`` moves them.
    """

    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, *args: P.args, **options: P.kwargs) -> None:
        super().__init__()
        if args:
            raise TypeError(f"expected options of {type(self).__name__} by keyword, got {args!r}")
        known = inspect.signature(type(self)).parameters
        for name in options:
            if name not in known:
                raise TypeError(f"expected options of {type(self).__name__} among {', '.join(known)}, got `{name}`")
        self.options = tuple(options)
        for name, value in options.items():
            if isinstance(value, Tensor):
                self.register_buffer(name, value, persistent=False)
            else:
                setattr(self, name, value)

    def forward(self, input: Tensor, target: Tensor, *args: P.args, **options: P.kwargs) -> Tensor:
        """Return the loss of logits (B, C, *spatial) against a target; see the function for shapes and options."""
        bound = {name: getattr(self, name) for name in self.options}
        return type(self).function(input, target, *args, **(bound | options))

    def extra_repr(self) -> str:
        """Return the options that were given."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.options)


def as_module(name: str, function: Callable[Concatenate[Tensor, Tensor, P], Tensor]) -> type[Loss[P]]:
    """Return the class `name` of modules that compute `function`, its keyword options being their arguments."""
    signature = inspect.signature(function)
    options = list(signature.parameters.values())[2:]
    summary = (function.__doc__ or "").partition("\n")[0]
    members: dict[str, Any] = {
        "function": staticmethod(function),
        "__module__": function.__module__,
        "__qualname__": name,
        "__doc__": f"{summary}\n\nThe module of :func:`{function.__name__}`; takes its options, here or at the call.",
        "__signature__": signature.replace(parameters=options, return_annotation=inspect.Signature.empty),
    }
    return type(name, (Loss,), members)
