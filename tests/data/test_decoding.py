"""From bytes to an image: what they may hold, and that damage gives an image or its name with the cause."""

import io
import random
import struct

import numpy as np
import pytest
from PIL import Image

from qna.data import UnreadableImage
from qna.data.images.decoding import FORMATS, decode
from tests.damage.mutations import bytes_changed


def opened(content, name="a"):
    return decode(lambda _: content, 0, name)


def stored(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def noise(mode, size=(16, 12)):
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,)}[mode]
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8), mode)


def exif_block(kind, count, value):
    """EXIF data of two tags: orientation 6, and an x resolution of some type."""
    head = b"II*\0" + struct.pack("<IH", 8, 2)
    orientation = struct.pack("<HHIHxx", 0x0112, 3, 1, 6)
    resolution = struct.pack("<HHII", 0x011A, kind, count, 38)
    return b"Exif\0\0" + head + orientation + resolution + bytes(4) + value


ODD = {
    "a negative rational over zero": exif_block(10, 1, struct.pack("<ii", -1, 0)),
    "text": exif_block(2, 8, b"72 dpi\0\0"),
    "a type that does not exist": exif_block(99, 1, bytes(8)),
    "more values than there are bytes": exif_block(5, 2**30, bytes(8)),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("oddity", ODD)
def test_of_odd_exif_data_the_orientation_is_read(kind, oddity):
    lossless = {"lossless": True} if kind == "WEBP" else {}
    image = Image.new("RGB", (24, 16), (0, 0, 250))
    image.paste((250, 0, 0), (0, 0, 8, 16))  # left, which is above once it is turned
    pixels = np.asarray(opened(stored(image, kind, exif=ODD[oddity], **lossless)))
    assert pixels.shape == (24, 16, 3)
    assert pixels[:7, :, 0].min() > 200
    assert pixels[9:, :, 0].max() < 60


def test_of_an_odd_tiff_the_orientation_is_read():
    content = stored(noise("RGB"), "TIFF", tiffinfo={0x0112: 6, 0x011A: 72.0}, compression="raw")
    expected = noise("RGB").transpose(Image.Transpose.ROTATE_270)
    at = content.index(struct.pack("<HHI", 0x011A, 5, 1))
    place = struct.unpack_from("<I", content, at + 8)[0]
    for kind, value in ((10, struct.pack("<ii", -1, 0)), (2, b"72 dpi\0\0")):
        odd = bytearray(content)
        struct.pack_into("<HHI", odd, at, 0x011A, kind, 1 if kind == 10 else 8)
        odd[place : place + 8] = value
        assert np.array_equal(opened(bytes(odd)), expected)


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_what_pillow_makes_of_it(orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    content = stored(noise("RGB"), "PNG", exif=exif)
    assert np.array_equal(opened(content), ImageOps.exif_transpose(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_images_of_8_bits_are_as_pillow_converts_them(mode):
    image = noise("RGB").convert(mode)
    content = stored(image, "TIFF" if mode in ("LA", "CMYK") else "PNG")
    assert np.array_equal(opened(content), image.convert("RGB"))


GREY = np.arange(192, dtype=np.uint8).reshape(12, 16) + 40


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (GREY.astype(np.uint16) * 257, "PNG"),
        (GREY.astype(np.uint16) * 257, "TIFF"),
        (GREY.astype(np.uint16) * 257, "JPEG2000"),
        (GREY.astype(np.uint16) * 257, "PPM"),
        # of mode I, whose files are of signed integers: 2**31 - 1 is white
        ((GREY.astype(np.int64) * (2**31 - 1) // 255).astype(np.int32), "TIFF"),
        (GREY.astype(np.float32) / 255, "TIFF"),
    ],
    ids=["16-bit PNG", "16-bit TIFF", "16-bit JPEG 2000", "16-bit PGM", "mode I", "float"],
)
def test_deep_grey_is_what_the_same_picture_is_in_8_bits(values, kind):
    assert np.array_equal(opened(stored(Image.fromarray(values), kind)), Image.fromarray(GREY).convert("RGB"))


def test_unsigned_integers_of_32_bits_reach_to_white():
    content = stored(
        Image.fromarray((GREY.astype(np.int64) * 16843009).astype(np.uint32).view(np.int32)), "TIFF"
    )
    at = content.index(struct.pack("<HHI", 339, 3, 1))
    unsigned = content[: at + 8] + struct.pack("<H", 1) + content[at + 10 :]
    assert np.array_equal(opened(unsigned), Image.fromarray(GREY).convert("RGB"))


@pytest.mark.parametrize(
    "values", [GREY.astype(np.uint16) * 257, GREY.astype(np.float32) / 255], ids=["16 bits", "float"]
)
def test_white_may_be_zero_in_a_deep_tiff(values):
    content = stored(Image.fromarray(values), "TIFF")
    at = content.index(struct.pack("<HHI", 262, 3, 1))
    turned = content[: at + 8] + struct.pack("<H", 0) + content[at + 10 :]
    assert np.array_equal(opened(turned), Image.fromarray(255 - GREY).convert("RGB"))


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        (GREY.astype(np.float32), r"grey floats must lie in \[0, 1\], got 40 to 231"),
        (GREY.astype(np.float32) / 255 - 0.5, r"must lie in \[0, 1\], got -0.343137 to 0.405882"),
        (np.full((2, 2), np.nan, dtype=np.float32), "got nan to nan"),
        (GREY.astype(np.uint16), "its brightest value is 231 of 65,535 that are white: it would be black"),
        (-GREY.astype(np.int32) - 1, "a grey image needs values from 0, got -232"),
    ],
    ids=["floats above 1", "floats below 0", "NaN", "8 bits in 16", "negative"],
)
def test_what_has_no_range_is_named(values, cause):
    with pytest.raises(UnreadableImage, match=f"^photo: .*{cause}"):
        opened(stored(Image.fromarray(values), "TIFF"), "photo")


def test_a_black_image_of_16_bits_is_black():
    assert not np.asarray(opened(stored(Image.fromarray(np.zeros((3, 4), np.uint16)), "PNG"))).any()


def test_other_formats_are_no_images():
    """Pillow hands some to other programs."""
    for content in (stored(noise("RGB"), "EPS"), stored(noise("RGB"), "ICO"), stored(noise("RGB"), "PDF")):
        with pytest.raises(UnreadableImage, match=r"^a: not an image, or cut short$"):
            opened(content)


def samples():
    """A few files of every format that is read: modes, depths, EXIF data, compressions."""
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    photo, clear, grey = noise("RGB"), noise("RGBA"), noise("L")
    few = photo.quantize(8)
    return {
        "AVIF": [stored(photo, "AVIF", exif=exif)],
        "BMP": [stored(photo, "BMP"), stored(few, "BMP")],
        "GIF": [stored(few, "GIF"), stored(few, "GIF", save_all=True, append_images=[few.rotate(90)])],
        "JPEG": [
            stored(photo, "JPEG", exif=exif, dpi=(72, 72)),
            stored(grey, "JPEG", progressive=True),
            stored(noise("CMYK"), "JPEG"),
            stored(photo, "MPO", save_all=True, append_images=[photo], exif=exif),
        ],
        "JPEG2000": [stored(photo, "JPEG2000"), stored(deep, "JPEG2000")],
        "PNG": [stored(clear, "PNG", exif=exif), stored(few, "PNG"), stored(deep, "PNG")],
        "PPM": [
            stored(photo, "PPM"),
            stored(deep, "PPM"),
            stored(Image.fromarray(GREY.astype(np.float32) / 255), "PPM"),
        ],
        "TIFF": [
            stored(photo, "TIFF", exif=exif, compression="tiff_lzw"),
            stored(photo, "TIFF", compression="jpeg"),
            stored(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF", compression="tiff_adobe_deflate"),
            stored(deep, "TIFF", tiffinfo={0x0112: 8}),
        ],
        "WEBP": [stored(photo, "WEBP", exif=exif), stored(clear, "WEBP", lossless=True)],
    }


def attack(kind, count, capfd, monkeypatch):
    """Decode `count` mutations; return how many of them gave an image."""
    # Pillow refuses twice as many; a header that says so many more is to cost this test nothing
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**5)
    rng, files, good = random.Random(f"{kind} {count}"), samples()[kind], 0
    for file in files:
        assert opened(file).mode == "RGB"
    for number in range(count):
        content = bytes_changed(files[number % len(files)], rng)
        try:
            image = opened(content, "some name")
        except UnreadableImage as error:
            text = str(error)
            assert text.startswith("some name: ")
            assert len(text) > len("some name: ")
            assert "\n" not in text
            assert text.isprintable()
        else:
            assert image.mode == "RGB"
            assert 0 < image.width * image.height <= 2 * 10**5
            good += 1
    said = capfd.readouterr()
    # the TIFF library tells by itself of what it cannot decode
    assert said.out == (said.err if kind != "TIFF" else "") == ""
    return good


@pytest.mark.parametrize("kind", FORMATS)
def test_whatever_a_file_holds_decoding_gives_an_image_or_its_name(kind, capfd, monkeypatch):
    assert 0 < attack(kind, 300, capfd, monkeypatch) < 300


@pytest.mark.long
@pytest.mark.parametrize("kind", FORMATS)
def test_whatever_many_files_hold(kind, capfd, monkeypatch):
    assert 0 < attack(kind, 10_000, capfd, monkeypatch) < 10_000
