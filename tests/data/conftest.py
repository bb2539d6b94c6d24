import io
import tarfile

import pytest
from PIL import Image


@pytest.fixture
def write_tar():
    """Write a tar file of (name, content) members."""

    def write(path, members):
        with tarfile.open(path, "w") as tar:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))

    return write


@pytest.fixture
def picture():
    """The bytes of a picture of one colour."""

    def make(colour, size=(20, 14), kind="PNG"):
        out = io.BytesIO()
        Image.new("RGB", size, colour).save(out, kind)
        return out.getvalue()

    return make
