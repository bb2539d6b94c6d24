"""What a training run is told: frozen dataclasses, to and from JSON, every field a command-line option."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qna._core.errors import InvalidInput
from qna._core.files import read_bytes
from qna._core.typed_json import from_json_value, parse_json
from qna.data import LARGEST_SIDE


@dataclass(frozen=True)
class ImageOptions:
    """Which images.

    Attributes:
        data: name of a data set, a folder with train/ and val/ (of classes or of tar files), or hfds/NAME.
        data_dir: where the files of a named data set are; None for the usual places.
        download: fetch what is missing of a named data set.
        image_size: side of the square that the network reads, in pixels.
        crop_pct: part of a photograph's shorter side that evaluation keeps; images that are held in memory
            are evaluated whole.
        workers: processes that prepare images; 0 prepares them in the training process.
    """

    data: str = "digits"
    data_dir: Path | None = None
    download: bool = False
    image_size: int = 224
    crop_pct: float = 0.875
    workers: int = 0


@dataclass(frozen=True)
class NetworkOptions:
    """Which network.

    Attributes:
        model: any name that timm.create_model knows.
        model_kwargs: arguments of the model as NAME=VALUE, for example dim=24 or depths=2,2,6,2; values are
            Python's numbers, True, False, tuples and words.
        adapter: what is put around the network, by its name in `qna list adapters`; several one after the
            other, each with its arguments behind it: evit keep_rate=0.7 gated per=head.
        adapter_args: arguments of the adapter as NAME=VALUE, for example keep_rate=0.7, where it is one.
        pretrained: start from the weights that timm knows for the name.
        weights: start from this file (safetensors, or a torch file of tensors); a classifier of another size
            starts anew.
        drop_path: probability that a residual branch of the last block is left out, falling linearly to 0
            at the first; None for the model's own.
        freeze: names of parts, as in the state dict, that keep their weights, for example stem stages.0.
        grad_checkpointing: recompute activations in the backward pass instead of keeping them.
        compile: run through torch.compile.
        channels_last: keep images and convolutions in channels-last memory.
    """

    model: str = "qna_vit_tiny"
    model_kwargs: tuple[str, ...] = ()
    adapter: tuple[str, ...] | None = None
    adapter_args: tuple[str, ...] = ()
    pretrained: bool = False
    weights: Path | None = None
    drop_path: float | None = None
    freeze: tuple[str, ...] = ()
    grad_checkpointing: bool = False
    compile: bool = False
    channels_last: bool = False

    def __post_init__(self):
        # a word that cannot be read is said where it was given
        self.model_arguments()
        self.adapters()

    def model_arguments(self) -> dict[str, Any]:
        """`model_kwargs` by name: `named_values`."""
        return named_values(self.model_kwargs, "model_kwargs")

    def adapters(self) -> list[tuple[str, dict[str, Any]]]:
        """Names of adapters with their arguments, in the order in which they are applied.

        Raises:
            InvalidInput: for arguments without an adapter, or that may be of several.
        """
        named: list[tuple[str, list[str]]] = []
        if isinstance(self.adapter, str):
            raise InvalidInput(
                f"adapter takes names in a tuple, got {self.adapter!r}; say ({self.adapter!r},)"
            )
        for word in self.adapter or ():
            if "=" not in word:
                named.append((word, []))
            elif named:
                named[-1][1].append(word)
            else:
                raise InvalidInput(f"adapter begins with the name of one, got {word!r}")
        if self.adapter_args and not named:
            raise InvalidInput("adapter_args are of an adapter, and none is named; name one with adapter")
        if self.adapter_args and len(named) > 1:
            names = " and ".join(name for name, _ in named)
            raise InvalidInput(
                f"adapter_args are of one adapter, and {names} are named; write each one's arguments behind "
                "its name"
            )
        if named:
            named[0][1].extend(self.adapter_args)
        return [(name, named_values(words, f"arguments of {name}")) for name, words in named]

    def architecture(self) -> NetworkOptions:
        """What decides which weights the network has, and nothing of how they begin or are used."""
        return NetworkOptions(
            model=self.model,
            model_kwargs=self.model_kwargs,
            adapter=self.adapter,
            adapter_args=self.adapter_args,
        )


def named_values(words: Sequence[str], option: str) -> dict[str, Any]:
    """The NAME=VALUE of an option by name.

    Raises:
        InvalidInput: for what is not NAME=VALUE, a value that is none of Python's, or a name given twice.
    """
    arguments: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (equals and name.isidentifier() and text):
            raise InvalidInput(f"{option} must be NAME=VALUE, dim=24 for example, got {word!r}")
        if name in arguments:
            raise InvalidInput(f"{option} names {name} twice")
        arguments[name] = _value(option, name, text)
    return arguments


def _value(option: str, name: str, text: str) -> Any:
    """What `text` stands for in Python; a bare word stands for itself."""
    if text.lower() in ("none", "null"):  # timm would drop it without a word
        raise InvalidInput(f"{option}: timm hands no None on to a model, got {name}={text}; leave it out")
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    if text.lower() in ("true", "false"):  # the word would be taken for true whatever it says
        raise InvalidInput(f"{option}: write {name}={text.capitalize()} for {name}={text}")
    if not re.fullmatch(r"[A-Za-z_][\w.-]*", text):
        raise InvalidInput(f"{option}: {name} must be a Python value or a word, got {text!r}")
    return text


@dataclass(frozen=True)
class AugmentOptions:
    """How training images vary.

    Attributes:
        crop: smallest and largest part of the area that a random crop keeps; None trains on the framing that
            is evaluated.
        rotate: largest angle, in degrees.
        shift: largest displacement along each axis, as a part of the side.
        zoom: largest relative change of size.
        flip: mirror half of the images left to right.
        color: largest relative change of brightness, contrast and saturation.
        policy: RandAugment and its kin in timm's words, rand-m9-mstd0.5 for example.
        erase: probability that a rectangle of an image is replaced by noise.
        mixup: alpha of mixup; 0 for none.
        cutmix: alpha of CutMix; 0 for none; with both, each batch takes one of them.
        smoothing: part of the target that is spread over all classes.
    """

    crop: tuple[float, float] | None = None
    rotate: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    flip: bool = False
    color: float = 0.0
    policy: str | None = None
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    smoothing: float = 0.1


@dataclass(frozen=True)
class SegmentationOptions:
    """What segmentation alone is told.

    Attributes:
        decoder: of segmentation_models_pytorch around the backbone: unet, fpn, upernet and its others; None
            for unet, or for a model that segments by itself.
        decoder_kwargs: arguments of the decoder as NAME=VALUE, for example decoder_channels=64,32,16.
        dice: weight of the Dice loss beside the cross entropy.
        ignore: number of the masks' pixels that count nowhere.
    """

    decoder: str | None = None
    decoder_kwargs: tuple[str, ...] = ()
    dice: float = 1.0
    ignore: int = 255

    def __post_init__(self):
        named_values(self.decoder_kwargs, "decoder_kwargs")  # said where it was given


@dataclass(frozen=True)
class DetectionOptions:
    """What detection alone is told.

    Attributes:
        detector: what finds boxes on the backbone's maps: detr (images keep their ratio of sides) or rt-detr
            (they become squares).
        detector_kwargs: fields of transformers' configuration of the detector as NAME=VALUE, for example
            num_queries=50 d_model=128.
        images_dir: folder of the images, if they are not beside the annotations.
        drop_bad_boxes: leave out boxes that have no area or lie outside their image, which are refused else.
    """

    detector: str = "detr"
    detector_kwargs: tuple[str, ...] = ()
    images_dir: Path | None = None
    drop_bad_boxes: bool = False

    def __post_init__(self):
        named_values(self.detector_kwargs, "detector_kwargs")  # said where it was given


@dataclass(frozen=True)
class LanguageOptions:
    """What the task of language alone is told.

    Attributes:
        context: tokens of a sequence that is trained on.
        lengths: of sequences that the network is judged on, beside context.
        tokenizer: file of the tokenizers library; None for bytes.
        suffixes: of the files of a folder that are text.
        held_out: part of all bytes that is held out, in whole files.
        split_seed: by which files are held out, or held-out sequences drawn.
        limit: bytes of text to train on; 0 for all.
        sequences: of an epoch, where they are drawn.
    """

    context: int = 256
    lengths: tuple[int, ...] = ()
    tokenizer: Path | None = None
    suffixes: tuple[str, ...] = (".txt", ".md", ".py")
    held_out: float = 0.1
    split_seed: int = 0
    limit: int = 0
    sequences: int = 4096

    def __post_init__(self):
        if not 0 < self.held_out < 1:
            raise InvalidInput(f"held_out must be in (0, 1), got {self.held_out}")
        for length in self.lengths:
            if length < 1:
                raise InvalidInput(f"lengths must be at least 1, got {length}")


@dataclass(frozen=True)
class VolumeOptions:
    """What the task of volumes alone is told.

    Attributes:
        patch: voxels per axis of what is trained on, and of the windows in which whole volumes are seen; an
            axis on which all volumes are shorter is as long as they are.
        patches: of an epoch, rounded up to a multiple of the volumes to train on.
        foreground: part of the patches that are laid around a voxel of a class other than number 0.
        overlap: part of a window by which it overlaps the next.
        dice_weight: of the Dice loss beside the cross entropy.
        voxel: millimetres of a voxel of mni152 and lesions.
        volumes_drawn: of lesions, to train on.
        volumes_held_out: of lesions, to judge on.
        draw_seed: by which lesions are drawn.
    """

    patch: tuple[int, int, int] = (48, 48, 48)
    patches: int = 64
    foreground: float = 0.5
    overlap: float = 0.25
    dice_weight: float = 1.0
    voxel: int = 2
    volumes_drawn: int = 12
    volumes_held_out: int = 12
    draw_seed: int = 0

    def __post_init__(self):
        for size in self.patch:
            if size < 1:
                raise InvalidInput(f"patch must have three sizes of at least 1, got {self.patch}")
        if not 0 <= self.foreground <= 1:
            raise InvalidInput(f"foreground must be in [0, 1], got {self.foreground}")


@dataclass(frozen=True)
class OptimOptions:
    """How the network learns: AdamW, linear warm-up, cosine to 0.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per process and forward pass.
        accumulate: forward passes per update.
        lr: highest learning rate per 256 images of an update; scaled linearly with the images of an update.
        schedule: of the rate after the warm-up: a cosine to 0, or constant.
        warmup_epochs: epochs in which the rate rises linearly from 0.
        weight_decay: of everything but position tables, query weights and what the model names.
        clip: largest norm of the gradient; 0 for no limit.
        ema: decay of the running average of the weights that is evaluated and kept; 0 for none.
    """

    epochs: int = 300
    batch_size: int = 128
    accumulate: int = 1
    lr: float = 5e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: float = 5
    weight_decay: float = 0.05
    clip: float = 0.0
    ema: float = 0.0


@dataclass(frozen=True)
class RunOptions:
    """What is learned, where, and how exactly.

    Attributes:
        task: what is learned, a name in `qna.train.tasks.TASKS`.
        out: folder for the results, numbered anew if it holds some already; None for runs/DATA-MODEL.
        seed: of all random draws; equal seeds give equal runs on one machine.
        device: where to compute; auto takes the first accelerator.
        threads: for computing on the CPU; 0 for as many as torch takes. Results differ by rounding.
        precision: of the forward pass; the weights stay in float32.
        sharding: fsdp keeps in each of several processes only a part of weights, gradients and optimizer
            state (PyTorch's FSDP2); none keeps all of them in each (DDP).
        save_every: updates between checkpoints, beside the one after each epoch; 0 for that one alone.
        tensorboard: write TensorBoard's event files too, if it is installed.
    """

    task: str = "classification"
    out: Path | None = None
    seed: int = 0
    device: Literal["auto", "cpu"] = "auto"
    threads: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    sharding: Literal["none", "fsdp"] = "none"
    save_every: int = 0
    tensorboard: bool = True


# option -> smallest value
_AT_LEAST = {
    "epochs": 1,
    "batch_size": 1,
    "accumulate": 1,
    "image_size": 1,
    "lr": 0,
    "warmup_epochs": 0,
    "weight_decay": 0,
    "clip": 0,
    "workers": 0,
    "threads": 0,
    "save_every": 0,
    "rotate": 0,
    "shift": 0,
    "zoom": 0,
    "color": 0,
    "mixup": 0,
    "cutmix": 0,
    "dice": 0,
    "ignore": 0,
    "context": 1,
    "limit": 0,
    "sequences": 1,
    "patches": 1,
    "dice_weight": 0,
    "voxel": 1,
    "volumes_drawn": 1,
    "volumes_held_out": 1,
}
# beyond these nothing can be meant, and what takes the number would fail in its own words
_AT_MOST = {"ignore": 255, "image_size": LARGEST_SIDE, "workers": 2**10, "threads": 2**10, "voxel": 20}
# parts of a whole; 1 is no value for them
_PARTS = ("ema", "smoothing", "drop_path", "overlap")


def _check_number(name: str, value: Any) -> None:
    """Refuse what could not be read again once it is written."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"{name} must be finite, got {value}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InvalidInput(f"{name} must have at most 64 bits, got {value}")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a training run is told."""

    images: ImageOptions = ImageOptions()
    network: NetworkOptions = NetworkOptions()
    augment: AugmentOptions = AugmentOptions()
    segmentation: SegmentationOptions = SegmentationOptions()
    detection: DetectionOptions = DetectionOptions()
    language: LanguageOptions = LanguageOptions()
    volumes: VolumeOptions = VolumeOptions()
    optim: OptimOptions = OptimOptions()
    run: RunOptions = RunOptions()

    def __post_init__(self):
        values = {name: value for group in vars(self).values() for name, value in vars(group).items()}
        for name, value in values.items():
            for number in value if isinstance(value, tuple) else (value,):
                _check_number(name, number)
        for name, low in _AT_LEAST.items():
            if not values[name] >= low:
                raise InvalidInput(f"{name} must be at least {low}, got {values[name]}")
        for name, high in _AT_MOST.items():
            if values[name] > high:
                raise InvalidInput(f"{name} must be at most {high:,}, got {values[name]:,}")
        for name in _PARTS:
            if values[name] is not None and not 0 <= values[name] < 1:
                raise InvalidInput(f"{name} must be in [0, 1), got {values[name]}")
        if not 0 <= values["erase"] <= 1:
            raise InvalidInput(f"erase must be in [0, 1], got {values['erase']}")
        if not 0 < values["crop_pct"] <= 1:
            raise InvalidInput(f"crop_pct must be in (0, 1], got {values['crop_pct']}")
        if values["crop"] is not None and not 0 < values["crop"][0] <= values["crop"][1] <= 1:
            raise InvalidInput(f"crop must be two numbers in (0, 1], the smaller first, got {values['crop']}")
        if (values["mixup"] or values["cutmix"]) and values["batch_size"] % 2:
            raise InvalidInput(f"mixup and cutmix need an even batch_size, got {values['batch_size']}")

    def to_json(self) -> str:
        """The configuration as JSON that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> TrainConfig:
        """Read a configuration; fields that are not there take their defaults.

        Raises:
            InvalidInput: if it is not JSON, or a value does not fit its field's type.
            UnknownName: for a field that does not exist, with the nearest names.
        """
        return from_json_value(cls, parse_json(text, "the configuration"), "the configuration")

    @classmethod
    def from_file(cls, path: Path) -> TrainConfig:
        """Read a configuration from a JSON file."""
        try:
            return cls.from_json(read_bytes(path))
        except OSError as error:
            raise InvalidInput(f"cannot read the configuration {path}: {error.strerror}") from None
        except InvalidInput as error:
            raise InvalidInput(f"{path}: {error}") from None
