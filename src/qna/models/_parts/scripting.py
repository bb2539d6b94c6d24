"""What torch.jit.script is told."""

from typing import NoReturn

from qna._core.errors import InvalidInput


class NotScripted:
    """A module of a network that torch.jit.script refuses: kernels are chosen in Python at each call."""

    def __prepare_scriptable__(self) -> NoReturn:
        """What torch.jit.script asks before it compiles.

        Raises:
            InvalidInput: always.
        """
        raise InvalidInput(
            f"torch.jit.script cannot compile the network of this {type(self).__name__}, which chooses its "
            "kernels in Python; record it with torch.jit.trace, torch.export or torch.onnx.export"
        )
