"""When the claim about dilated neighbourhoods held: the rule, on figures alone."""

from __future__ import annotations

from qna.labs.ablation import Ablation
from qna.labs.dinat_context.networks import DILATED, PLAIN, WIDER

RULE = (
    "Each network counts at the learning rate with its better mean accuracy over the seeds. Held: with every "
    "second neighbourhood dilated it is above the same network without dilation by more than two standard "
    "errors of the mean difference over the seeds, at no more parameters and multiply-adds. Direction only: "
    "it is above, at no more of either. Else not seen. What larger neighbourhoods reach is told and does not "
    "count."
)

ABLATION = Ablation(DILATED, PLAIN, WIDER)
