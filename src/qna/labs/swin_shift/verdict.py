"""When the claim about shifted windows held: the rule, on figures alone."""

from __future__ import annotations

from qna.labs.ablation import Ablation
from qna.labs.swin_shift.networks import SHIFTED, UNSHIFTED, WHOLE

RULE = (
    "Each network counts at the learning rate with its better mean accuracy over the seeds. Held: with every "
    "second block's windows shifted it is above the same network without shifts by more than two standard "
    "errors of the mean difference over the seeds, at no more parameters and multiply-adds. Direction only: "
    "it is above, at no more of either. Else not seen. What windows as large as the map reach is told and "
    "does not count."
)

ABLATION = Ablation(SHIFTED, UNSHIFTED, WHOLE)
