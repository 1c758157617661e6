"""The convolutional part of VGG16 (Simonyan and Zisserman, 2014, configuration D), as a ruler for pictures.

Layer names and weight files are torchvision's: ``features.0.weight`` and so on, so that its published file is read as
it is. The weights are another project's and are neither shipped nor downloaded here; they are never replaced by others.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmdgen.errors import ConfigError, one_line

# Channels of each stage's convolutions; a 2x2 maximum halves the picture between stages.
_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
RELUS = tuple(
    f"relu{stage}_{number}" for stage, widths in enumerate(_STAGES, 1) for number in range(1, len(widths) + 1)
)
# What the network was trained on: RGB in [0, 1] less this mean, over this deviation (torchvision's documentation).
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
KNOWN_NAME = "vgg16-397923af.pth"  # torchvision's VGG16_Weights.IMAGENET1K_V1
_OTHER_KEYS = "classifier."


def normalise(images: Tensor) -> Tensor:
    """Return RGB images [N, 3, H, W] in [0, 1] as VGG16 expects them."""
    # Channel by channel, with plain numbers: a new tensor of them on a GPU would make the caller wait for it.
    pairs = zip(MEAN, DEVIATION, strict=True)
    planes = [(images[:, number, None] - mean) / deviation for number, (mean, deviation) in enumerate(pairs)]
    return torch.cat(planes, dim=1)


class Vgg16(nn.Module):
    """The layers of VGG16 up to the activation `last` (one of `RELUS`); frozen, always in evaluation mode.

    Made by `load_vgg16`; what is made here has no values yet. Raises `ConfigError` for an unknown name.
    """

    def __init__(self, last: str = RELUS[-1]) -> None:
        super().__init__()
        _check_names((last,))
        layers: list[nn.Module] = []
        self._position: dict[str, int] = {}
        width = 3
        with torch.device("meta"):
            for stage, widths in enumerate(_STAGES, 1):
                for number, outputs in enumerate(widths, 1):
                    layers += [nn.Conv2d(width, outputs, 3, padding=1), nn.ReLU(inplace=True)]
                    self._position[f"relu{stage}_{number}"] = len(layers) - 1
                    width = outputs
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[: self._position[last] + 1])
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor, names: Sequence[str]) -> tuple[Tensor, ...]:
        """Return the activations [N, C, H / 2**k, W / 2**k] of the named relus, in the order of `names`.

        `images` are [N, 3, H, W], normalised as by `normalise`; relu5_x needs sides of 16 or more. Raises
        `ConfigError` for a name that is unknown or lies behind the last layer loaded.
        """
        _check_names(names)
        wanted = {self._position[name]: name for name in names}
        if max(wanted, default=0) >= len(self.features):
            raise ConfigError(f"only {len(self.features)} layers were loaded; {wanted[max(wanted)]} lies behind them")
        found: dict[str, Tensor] = {}
        for position, layer in enumerate(self.features):
            images = layer(images)
            if position in wanted:
                found[wanted[position]] = images
            if len(found) == len(wanted):
                break
        return tuple(found[name] for name in names)


def vgg16_weights(path: Path | str | None = None) -> Path:
    """Return the file with VGG16's weights: `path`, or the one in torchvision's cache.

    The cache is ``hub/checkpoints`` below $TORCH_HOME (else $XDG_CACHE_HOME/torch, else ~/.cache/torch). Raises
    `ConfigError` that says where to put the file when there is none; nothing is downloaded or made up.
    """
    if path is not None:
        if not Path(path).is_file():
            raise ConfigError(f"{path}: there is no file with VGG16's weights (torchvision's {KNOWN_NAME})")
        return Path(path)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    known = folder / KNOWN_NAME
    found = [known] if known.is_file() else sorted(folder.glob("vgg16-*.pth"))
    if not found:
        raise ConfigError(
            f"the weights of VGG16 are missing: put torchvision's {KNOWN_NAME} into {folder}, or name the file with an "
            "option; mmdgen does not download it"
        )
    if len(found) > 1:
        raise ConfigError(f"{folder}: several files could be VGG16's weights ({_names(found)}): name one")
    return found[0]


def load_vgg16(path: Path | str, last: str = RELUS[-1]) -> Vgg16:
    """Return VGG16 up to the relu `last` on the CPU, with the weights of a torchvision file (.pth).

    Every tensor is checked for its name, shape, type and finite values; the file cannot run code. Raises `ConfigError`.
    """
    network = Vgg16(last)
    state = _read(Path(path))
    whole = {key: value.shape for key, value in Vgg16().state_dict().items()}
    missing = sorted(whole.keys() - state.keys())
    extra = sorted(key for key in state.keys() - whole.keys() if not str(key).startswith(_OTHER_KEYS))
    if missing or extra:
        raise ConfigError(
            one_line(
                f"{path}: not the weights of VGG16: {len(missing)} tensors missing (such as {missing[:1]}), "
                f"{len(extra)} unknown (such as {extra[:1]}); expected torchvision's {KNOWN_NAME}"
            )
        )
    used = {}
    for key in network.state_dict():
        value = state[key]
        if not isinstance(value, Tensor) or value.shape != whole[key] or not value.is_floating_point():
            found = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ConfigError(f"{path}: {key} is {found}, expected floats {list(whole[key])}: not the weights of VGG16")
        if not torch.isfinite(value).all():
            raise ConfigError(f"{path}: {key} holds values that are not finite: the file is damaged")
        used[key] = value.detach().to(torch.float32).clone()  # not views of what else the file holds
    network.load_state_dict(used, assign=True)
    return network.requires_grad_(False)


def _read(path: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():  # of an unusual pickle: what is wrong with it is found below
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, KeyError) as error:
        raise ConfigError(one_line(f"{path}: cannot be read as weights: {error}", 400)) from error
    if not isinstance(state, dict):
        raise ConfigError(f"{path}: holds a {type(state).__name__}, expected a table of tensors")
    return state


def _check_names(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in RELUS]
    if unknown or not names:
        raise ConfigError(f"unknown activations {unknown}; VGG16 has {', '.join(RELUS)}")


def _names(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths)
