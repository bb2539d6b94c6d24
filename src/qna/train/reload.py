"""A trained network brought back, from a run's folder, a file of weights or a name that timm knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna._core.seeds import seeded
from qna._core.tensor_file import read_metadata
from qna._core.third_party import import_vision
from qna._core.typed_json import from_json_value, parse_json, read_json
from qna.eval import Classifier, ImageView
from qna.models.resolve import architecture_of, check_model
from qna.models.shared_folder import LOCAL
from qna.train.checkpoint import WEIGHTS, load_tensors
from qna.train.config import NetworkOptions, TrainConfig
from qna.train.fitting import check_fit, check_numbers, load_whole
from qna.train.folder import CONFIG
from qna.train.network import create_network, try_network
from qna.train.weights import classifier_names, read_weights

T = TypeVar("T")


@dataclass(frozen=True)
class ViewOptions:
    """What is to differ from how a network was trained to see images; None changes nothing.

    Attributes:
        image_size: side of the square that it reads, in pixels.
        crop_pct: part of a photograph's shorter side that is kept.
        mean: per channel, of images in [0, 1].
        std: per channel, likewise.
    """

    image_size: int | None = None
    crop_pct: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def over(self, view: ImageView) -> ImageView:
        """`view` with these changes."""
        changes = {name: value for name, value in vars(self).items() if value is not None}
        if "image_size" in changes:
            changes["size"] = changes.pop("image_size")
        for name in ("mean", "std"):
            if name in changes and len(changes[name]) != view.channels:
                raise InvalidInput(
                    f"{name} needs one number for each of {view.channels} channels, got {changes[name]}"
                )
        return replace(view, **changes)


def load_classifier(
    source: str,
    *,
    weights: Path | None = None,
    pretrained: bool = False,
    channels: int | None = None,
    untrained: bool = False,
    view: ViewOptions | None = None,
) -> Classifier:
    """Bring a trained network back, in evaluation mode.

    Args:
        source: the folder of a run of `qna train`, the model.safetensors in one, a folder that timm can read
            (config.json with an architecture), or a name that timm knows.
        weights: for a timm name: a file of weights; a classifier of its size is made.
        pretrained: for a timm name: take the weights that timm knows.
        channels: for a timm name: colour channels; None for the model's own.
        untrained: for a timm name: do without weights.
        view: what is to differ from how it was trained to see images.

    Raises:
        UnknownName: for a name that timm does not know, with the nearest names.
        InvalidInput: if the file cannot be read, is not of that network, or a name comes without weights.
    """
    path, view = Path(source), view or ViewOptions()
    if is_timm_name(source):
        return _from_timm(source, weights, pretrained, channels, untrained, view)
    if weights is not None or pretrained:
        raise InvalidInput(
            f"{source} has weights of its own; --weights and --pretrained go with timm's names"
        )
    if path.is_dir() and _is_timm_folder(path):
        return _from_timm(f"{LOCAL}{path}", None, True, channels, untrained, view)
    return _from_run(source, view)


def task_of(source: str) -> str:
    """The task of the run that `source` names; classification where it is a model of timm.

    Raises:
        InvalidInput: if it is none of them.
    """
    if is_timm_name(source) or (Path(source).is_dir() and _is_timm_folder(Path(source))):
        return "classification"
    return _task_in(load_tensors(weights_of(source))[1])


def _task_in(about: dict[str, Any]) -> str:
    """The task that the header of a run's weights tells."""
    config = about.get("config")
    run = config.get("run") if isinstance(config, dict) else None
    return str(run.get("task", "classification")) if isinstance(run, dict) else "classification"


def is_timm_name(source: str) -> bool:
    """Whether `source` is a name for timm, and neither a folder nor a file.

    Raises:
        InvalidInput: if it is none of them.
    """
    if Path(source).is_dir() or source.endswith(".safetensors"):
        return False
    if "/" in source and ":" not in source:
        raise InvalidInput(f"there is no run or weights file {source}")
    return True


def told_in(path: Path, about: Mapping[str, Any], kind: type[T]) -> T:
    """What a run's weights say of it in their header, as the dataclass that its task writes there.

    Raises:
        InvalidInput: if it is damaged.
    """
    try:
        wanted = {field.name: about[field.name] for field in fields(kind) if field.name in about}  # pyright: ignore[reportArgumentType]
        return from_json_value(kind, wanted, "the header")
    except InvalidInput as error:
        raise InvalidInput(f"{path} is damaged: {error}") from None


def weights_of(source: str) -> Path:
    """The file of weights of a run, by its folder or itself.

    Raises:
        InvalidInput: if it is not there.
    """
    path = Path(source) / WEIGHTS if Path(source).is_dir() else Path(source)
    if not path.is_file():
        what = f"{source} is not a run that can be used: there is no {path}"
        if (path.parent / CONFIG).is_file():
            what += f"; if it was stopped, `qna train --resume {path.parent}` goes on with it"
        raise InvalidInput(what)
    return path


def _from_run(source: str, options: ViewOptions) -> Classifier:
    path = weights_of(source)
    tensors, about = load_tensors(path)
    if (task := _task_in(about)) != "classification":
        raise InvalidInput(f"{source} is a run of {task}, and only networks that classify can be taken here")
    seen = _header(about, path)
    if seen is None:
        raise InvalidInput(
            f"{path} does not say what it was trained on; `qna train --resume {path.parent}` on the complete "
            "run writes it anew, or give the model's name with --weights"
        )
    config, view = seen.config, seen.view
    make = partial(
        create_network,
        config.network.architecture(),
        classes=len(seen.classes),
        channels=view.channels,
        image_size=view.size,
    )
    check_numbers(tensors, path)
    network = made_of(tensors, f"{path} has the weights of another network: it", make)
    view = _resized(network, config.network.model, view, options)
    data_dir = None if config.images.data_dir is None else str(config.images.data_dir)
    return Classifier(source, network, seen.classes, view, config.network.model, config.images.data, data_dir)


@dataclass(frozen=True)
class TrainedOn:
    """What a run's weights say of it in their header.

    Attributes:
        config: of the run.
        classes: names of the logits.
        mean: per channel.
        std: per channel.
        crop_pct: part of a photograph's shorter side that was kept.
        interpolation: of resizing.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    interpolation: str

    @property
    def view(self) -> ImageView:
        """How the network sees images."""
        size = self.config.images.image_size
        return ImageView(size, self.mean, self.std, self.crop_pct, self.interpolation)


def _header(about: dict[str, Any], path: Path) -> TrainedOn | None:
    """What the header of the weights in `path` says; None if it is not there."""
    names = [field.name for field in fields(TrainedOn)]
    if not all(name in about for name in names):
        return None
    try:
        seen = from_json_value(TrainedOn, {name: about[name] for name in names}, "the header")
        assert seen.view.channels  # the view checks its numbers when it is made
    except InvalidInput as error:
        raise InvalidInput(f"{path} is damaged: {error}") from None
    return seen


def made_of(tensors: dict[str, Any], source: object, make: Callable[[], nn.Module]) -> nn.Module:
    """The network that `make` gives with the weights `tensors`, which come from `source`.

    Names and shapes are compared before anything is allocated: a header may name a network of any size.

    Raises:
        InvalidInput: if the model refuses its arguments, or the first tensor that does not fit.
    """
    try:
        # what is drawn for them is thrown away
        with seeded(0), torch.device("meta"):
            plan = make().state_dict()
    except InvalidInput as error:
        # some of timm's models read numbers while they are built
        if "meta" not in str(error):
            raise
    except NotImplementedError:
        pass
    else:
        check_fit(plan, tensors, source)
    network = make()
    load_whole(network, tensors, source)
    return network


def _from_timm(  # noqa: PLR0917 - as load_classifier has them
    name: str,
    weights: Path | None,
    pretrained: bool,
    channels: int | None,
    untrained: bool,
    options: ViewOptions,
) -> Classifier:
    check_model(name)
    own = name.startswith((LOCAL, "hf-hub:", "hf_hub:"))
    if weights is not None and (pretrained or own):
        raise InvalidInput(f"{name} cannot take both --weights and the weights that timm knows")
    if weights is None and not (pretrained or own or untrained):
        raise InvalidInput(f"{name} has no weights: give --pretrained for timm's, or --weights FILE")
    network_options = NetworkOptions(model=name, pretrained=pretrained or own)
    seen = None
    if weights is None:
        with seeded(0):  # an untrained network is to be the same one every time
            network = create_network(network_options, channels=channels, image_size=options.image_size)
    else:
        network, seen = _with_weights(network_options, weights, channels, options.image_size)
    config = _timm_data().resolve_data_config({}, model=network)
    if seen is not None:
        view = seen.view
    else:
        read = getattr(network, "in_chans", None) or channels or len(config["mean"])
        size = config["input_size"][-1]
        mean, std = _spread(config["mean"], read), _spread(config["std"], read)
        view = ImageView(size, mean, std, config["crop_pct"], config["interpolation"])
    view = _resized(network, name, view, options)
    classes = seen.classes if seen is not None else _class_names(network)
    called = name if weights is None else f"{name} ({weights})"
    return Classifier(called, network, classes, view, architecture_of(name) or name)


def _with_weights(
    options: NetworkOptions, path: Path, channels: int | None, image_size: int | None
) -> tuple[nn.Module, TrainedOn | None]:
    """The network with the weights in `path`, and what their header says, if a run wrote it."""
    tensors, seen = read_weights(path), None
    if path.suffix == ".safetensors":
        about = parse_json(read_metadata(path).get("qna", "{}"), f"the header of {path}")
        seen = _header(about, path) if isinstance(about, dict) else None
    if seen is not None and seen.config.network.model == options.model:
        options = replace(seen.config.network.architecture(), pretrained=options.pretrained)
    plain = create_network(replace(options, weights=None), channels=channels)
    heads, own = classifier_names(plain), plain.state_dict()
    kernels = [f"{head}.weight" for head in heads if f"{head}.weight" in tensors and f"{head}.weight" in own]
    if not kernels:
        raise InvalidInput(f"{path} has no classifier of {options.model!r} ({', '.join(heads) or 'none'})")
    for name in kernels:
        shape, wanted = tuple(tensors[name].shape), tuple(own[name].shape)
        # beside the number of classes
        if shape[1:] != wanted[1:] or not shape:
            raise InvalidInput(f"{path}: the shape of {name!r} is {shape}, the network's is {wanted}")
    if seen is not None:
        channels, image_size = seen.view.channels, image_size or seen.view.size
    classes = len(tensors[kernels[0]])
    make = partial(create_network, options, classes=classes, channels=channels, image_size=image_size)
    return made_of(tensors, path, make), seen


def _resized(network: nn.Module, name: str, view: ImageView, options: ViewOptions) -> ImageView:
    """The view that is asked for, tried on the network."""
    asked = options.over(view)
    if asked.size != view.size and hasattr(network, "set_input_size"):
        try:
            network.set_input_size(img_size=asked.size)  # type: ignore[operator]
        except (AssertionError, RuntimeError, ValueError, TypeError) as error:
            raise InvalidInput(f"model {name!r} cannot read images of {asked.size} pixels: {error}") from None
    try_network(network, name, asked.channels, (asked.size, asked.size))
    network.eval()
    return asked


def _spread(values: Any, channels: int) -> tuple[float, ...]:
    """Statistics of colour images for another number of channels."""
    values = tuple(map(float, values))
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def _class_names(network: nn.Module) -> tuple[str, ...]:
    """Names of the logits: those in the network's configuration, ImageNet's, or numbers."""
    count = getattr(network, "num_classes", 0)
    if not count:
        raise InvalidInput("the network has no classifier (num_classes is 0)")
    config = getattr(network, "pretrained_cfg", None) or {}
    names = config.get("label_names")
    if names and len(names) == count:
        return tuple(names)
    subset = _timm_data().infer_imagenet_subset(network)
    if subset is not None:
        info = _timm_data().ImageNetInfo(subset)
        if info.num_classes() == count:
            return tuple(info.index_to_description(i).split(",")[0] for i in range(count))
    return tuple(map(str, range(count)))


def _timm_data() -> Any:
    return import_vision("timm.data", extra="train", purpose="timm's models")


def _is_timm_folder(path: Path) -> bool:
    """Whether `path` is a folder as timm saves them, not one of a run."""
    try:
        about = read_json(path / CONFIG)
    except (OSError, InvalidInput):
        return False
    return isinstance(about, dict) and "architecture" in about
