"""Losses that arise inside an adapted network: `qna.parts.left_losses`, under the name that adapters know."""

from qna.parts.left_losses import LossOutlet, ReturnLosses

__all__ = ["LossOutlet", "ReturnLosses"]
