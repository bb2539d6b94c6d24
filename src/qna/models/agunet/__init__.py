"""AGUNet, DAUNet and DAGUNet: attention in a U-Net of volumes, and that U-Net without it."""

from qna._core.about import About
from qna.models.agunet.network import AGUNet
from qna.models.agunet.variants import UNET, VARIANTS, AGUNetVariant
from qna.models.volume_family import VolumeFamily

__all__ = ["AGUNet", "AGUNetVariant", "AGUNET_FAMILY", "UNET_FAMILY"]

AGUNET_FAMILY = VolumeFamily(
    "agunet",
    About(
        title="Meningioma Segmentation in T1-Weighted MRI Leveraging Global Context and Attention Mechanisms",
        authors="Bouget, Pedersen, Hosainey et al.",
        venue="Frontiers in Radiology 2021",
        arxiv="2101.07715",
        read="the authors' code, dbouget/mri_brain_tumor_segmentation at 7af4e77 (BSD-2), run beside this",
        differs="any size, axes of up to 4 voxels included; logits in the place of a softmax; joined maps "
        "lie in one order; the projections of position attention are weights; batch norms average over ten "
        "batches, not a hundred; the sizes are ours",
        status="exact",
    ),
    AGUNet,
    VARIANTS,
)
UNET_FAMILY = VolumeFamily(
    "unet3d",
    About(
        title="3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation",
        authors="Çiçek, Abdulkadir, Lienkamp et al.",
        venue="MICCAI 2016",
        arxiv="1606.06650",
        read="a description; the network is AGUNet's with all switches off",
        differs="convolutions keep the size, and transposed ones have three taps, as in AGUNet: the control "
        "of the family",
        status="after",
    ),
    AGUNet,
    UNET,
)
