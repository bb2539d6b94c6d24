"""Losses that arise inside an adapted network."""

from qna.parts.losses import LossOutlet, ReturnLosses

__all__ = ["LossOutlet", "ReturnLosses"]
