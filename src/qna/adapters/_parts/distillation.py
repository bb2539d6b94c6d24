"""A network that learns from what it was before it was changed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.errors import InvalidInput
from qna._core.with_losses import WithLosses
from qna.parts.attend import transformed

# makes a dense network of a copy of the adapted one, in place
MakeDense = Callable[[Any], None]
# (features (B, n, C) as they come out of the blocks, network) -> (which of M image tokens they are (B, m), or
# None; which of them count (B, m), or None)
Whereabouts = Callable[[Tensor, Any], tuple[Tensor | None, Tensor | None]]


class FrozenTeacher:
    """A network that others share and nobody trains: no module, so that it is in no state dict.

    Copies of the network that it teaches share it; those that are made before there is one get their own.
    """

    def __init__(self):
        self.network: nn.Module | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTeacher:
        return FrozenTeacher() if self.network is None else self


class Distillation(nn.Module):
    """What a network in training is told by its teacher: the network as it was when training with it began.

    The losses are

        logits_distillation: ``KL(teacher || student)`` of the softmax of what comes out, mean over the batch;
        token_distillation: ``mean (student - teacher)^2`` of image tokens behind the last norm.

    The teacher is copied at the first call in training that is to be taught. It is in no state dict;
    checkpoints of a run ask `beside` for its weights.

    Args:
        network: that is taught; it gets hooks.
        logits: weight of the first loss.
        tokens: of the second.
        from_epoch: of training; before it nothing is taught.
        make_dense: what makes a copy of the network its teacher.
        whereabouts: of the tokens that come out of the network's blocks.
    """

    def __init__(
        self,
        network: Any,
        *,
        logits: float,
        tokens: float,
        from_epoch: int,
        make_dense: MakeDense,
        whereabouts: Whereabouts,
    ):
        super().__init__()
        self.logits = logits
        self.tokens = tokens
        self.from_epoch = from_epoch
        self.make_dense = make_dense
        self.whereabouts = whereabouts
        self.teacher = FrozenTeacher()
        self.teaches = from_epoch == 0
        self.seen: tuple[Tensor, Tensor] | None = None
        network.register_forward_hook(self.after)
        if tokens:
            network.norm.register_forward_hook(self.note)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Teach in this epoch, or not yet."""
        self.teaches = epoch >= self.from_epoch

    def note(self, norm: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep what comes out of the blocks, and that behind the norm, until this call ends."""
        if norm.training and self.teaches:
            self.seen = given[0], output

    def after(self, network: Any, given: tuple[Any, ...], output: Any) -> Any:
        """A forward hook: in training the output comes with the losses."""
        if not network.training or not self.teaches:
            return None
        # a teacher is copied in here, which no compiler follows
        taught: Any = torch.compiler.disable(self._with_losses)
        return taught(network, given[0], output)

    def _with_losses(self, network: Any, images: Tensor, output: Any) -> WithLosses:
        # nothing of this call may be copied into a teacher
        seen, self.seen = self.seen, None
        plain = output.output if isinstance(output, WithLosses) else output
        told, features = self._told(images, network)
        own = _mean_of_heads(plain)
        if own.shape != told.shape:
            raise InvalidInput(
                f"the teacher gives {told.shape[-1]} logits and the network {own.shape[-1]}; make it with "
                "its classes before the adapter comes"
            )
        found: dict[str, Tensor] = {}
        if self.logits:
            found["logits_distillation"] = self.logits * F.kl_div(
                own.log_softmax(-1),
                told.log_softmax(-1),
                reduction="batchmean",
                log_target=True,
            )
        if seen is not None:
            blocks, student = seen
            places, active = self.whereabouts(blocks, network)
            prefix = network.num_prefix_tokens
            student, teacher = student[:, prefix:], features[:, prefix:]
            if places is not None:
                teacher = teacher.gather(1, places[..., None].expand(-1, -1, teacher.shape[-1]))
            if active is None:
                apart = F.mse_loss(student, teacher)
            else:
                squares = torch.where(active[..., None], (student - teacher).square(), 0.0)
                apart = squares.sum() / (active.sum() * squares.shape[-1])
            found["token_distillation"] = self.tokens * apart
        before = output.losses if isinstance(output, WithLosses) else {}
        return WithLosses(plain, {**before, **found}, *(output[2:] if isinstance(output, WithLosses) else ()))

    @torch.no_grad()
    def _told(self, images: Tensor, network: Any) -> tuple[Tensor, Tensor]:
        """What the teacher says of images: logits, and tokens behind its last norm."""
        teacher: Any = self.teacher.network
        if teacher is None or _kind(teacher) != _kind(network):
            if transformed():
                # weights that are copied or moved in there are none outside
                raise InvalidInput(
                    "torch.func must not be the first to call a network that gets a teacher; call it once "
                    "before"
                )
            teacher = self.teacher.network = teacher or self._copied(network)
            device, dtype = _kind(network)
            teacher.to(device=device, dtype=dtype)
        features = teacher.forward_features(images)
        return _mean_of_heads(teacher.forward_head(features)), features

    def _copied(self, network: Any) -> nn.Module:
        """A dense copy of the network, frozen."""
        teacher = copy.deepcopy(network)
        for name, part in list(teacher.named_children()):
            if isinstance(part, Distillation):
                delattr(teacher, name)
        for module in (teacher, teacher.norm):
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
        self.make_dense(teacher)
        teacher.zero_grad(set_to_none=True)
        return teacher.requires_grad_(False).eval()

    def beside(self) -> dict[str, Tensor]:
        """The teacher's weights, where there is one."""
        network = self.teacher.network
        return {} if network is None else dict(network.state_dict())

    def take_beside(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Take what `beside` gave, in another run of the same network.

        Raises:
            RuntimeError: if they are another network's.
        """
        teacher = self.teacher.network or self._copied(network)
        teacher.load_state_dict(dict(tensors))
        self.teacher.network = teacher

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "seen": None}


def _kind(network: nn.Module) -> tuple[torch.device, torch.dtype]:
    first = next(network.parameters())
    return first.device, first.dtype


def _mean_of_heads(output: Any) -> Tensor:
    """Logits; of two heads their mean, as in evaluation."""
    return torch.stack(output).mean(0) if isinstance(output, tuple) else output
