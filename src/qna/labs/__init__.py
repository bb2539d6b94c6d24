"""Laboratories: one published claim each, tried in minutes beside the control that can win."""

from qna.labs import (
    biformer_routing,
    capsule_retrieval,
    dinat_context,
    evit_keep,
    focalnet_shift,
    gated_sink,
    gcvit_global,
    halo_blocks,
    icl_regression,
    l2vit_concentration,
    minimal_order,
    moh_heads,
    ninformer_gate,
    overlock_context,
    qna_cost,
    qna_detection,
    qna_segmentation,
    qna_upsample,
    sasa_stages,
    sketch_clouds,
    sparsifiner_cost,
    sparsifiner_recall,
    spectformer_share,
    swin_shift,
    tap_corruption,
    tcpa_transfer,
    terminator_convergence,
    transnext_shift,
    vsa_size,
)
from qna.labs.row import Lab

__all__ = ["LABS"]

# by name; a new laboratory is a folder here and its row in this list
LABS: dict[str, Lab] = {
    lab.name: lab
    for lab in (
        qna_cost.LAB,
        qna_upsample.LAB,
        qna_segmentation.LAB,
        qna_detection.LAB,
        dinat_context.LAB,
        sasa_stages.LAB,
        swin_shift.LAB,
        halo_blocks.LAB,
        focalnet_shift.LAB,
        overlock_context.LAB,
        biformer_routing.LAB,
        vsa_size.LAB,
        transnext_shift.LAB,
        evit_keep.LAB,
        gated_sink.LAB,
        tap_corruption.LAB,
        moh_heads.LAB,
        sparsifiner_recall.LAB,
        sparsifiner_cost.LAB,
        tcpa_transfer.LAB,
        gcvit_global.LAB,
        l2vit_concentration.LAB,
        terminator_convergence.LAB,
        ninformer_gate.LAB,
        spectformer_share.LAB,
        icl_regression.LAB,
        capsule_retrieval.LAB,
        sketch_clouds.LAB,
        minimal_order.LAB,
    )
}
