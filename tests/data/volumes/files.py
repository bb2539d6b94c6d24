"""NIfTI files for tests."""

import nibabel
import numpy as np

# oblique, with three spacings, one axis turned round
OBLIQUE = np.array([[-0.9, 0.1, 0.0, 30.0], [0.1, 1.2, 0.3, -40.0], [0.05, -0.2, 2.5, 12.0], [0, 0, 0, 1]])


def write(path, voxels, affine=OBLIQUE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def picture(shape=(6, 7, 5), seed=0, lesion=((2, 4), (3, 5), (1, 3))):
    """A volume with a bright box, and its labels."""
    voxels = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    labels = np.zeros(shape, dtype=np.uint8)
    if lesion:
        labels[tuple(slice(*ends) for ends in lesion)] = 1
        voxels[labels > 0] += 3
    return voxels, labels


def fill(root, names, part="", **kinds):
    """Volumes with labels in a folder of a data set."""
    for number, name in enumerate(names):
        voxels, labels = picture(seed=number, **kinds)
        write(root / part / "images" / f"{name}.nii.gz", voxels)
        write(root / part / "labels" / f"{name}.nii.gz", labels)
    return root
