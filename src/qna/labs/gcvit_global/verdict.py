"""When the claim about global queries held: the rule, on figures alone."""

from __future__ import annotations

from qna.labs.ablation import Ablation
from qna.labs.gcvit_global.networks import GLOBAL, LOCAL, SHIFTED

RULE = (
    "Each network counts at the learning rate with its better mean accuracy over the seeds. Held: with "
    "global queries in every second block it is above the same network of windows alone by more than two "
    "standard errors of the mean difference over the seeds, at no more parameters and multiply-adds. "
    "Direction only: it is above, at no more of either. Else not seen. What shifted windows reach is told "
    "and does not count."
)

ABLATION = Ablation(GLOBAL, LOCAL, SHIFTED)
