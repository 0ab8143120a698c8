"""Networks as folders: weights in `model.safetensors`, and `config.json` beside them."""

import json
from pathlib import Path
from typing import Any, Self

import safetensors
import safetensors.torch
import torch
from torch import nn

from binaural.atomic_files import write_atomically, write_json

WEIGHTS = "model.safetensors"
CONFIG = "config.json"

# Errors of a constructor with wrong arguments, or of a file that does not belong to the network.
_DOES_NOT_FIT = (
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    MemoryError,
    safetensors.SafetensorError,
)


class Pretrained(nn.Module):
    """Gives a network `save_pretrained` and `from_pretrained`.

    The network keeps what its constructor needs in `arguments`.
    """

    arguments: dict[str, Any]

    def save_pretrained(self, folder: str | Path, extra: dict[str, Any] | None = None) -> None:
        """Write weights and config to `folder`; each file is replaced whole or not at all.

        Args:
            folder: made if it is not there.
            extra: what else a reader must know, such as how the input was made; JSON values.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        write_atomically(folder / WEIGHTS, safetensors.torch.save(weights, {"format": "pt"}))
        config = {"network": type(self).__name__, "arguments": self.arguments, **(extra or {})}
        write_json(folder / CONFIG, config)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The network saved in `folder`, on the CPU, in evaluation mode.

        Called on a network's class it refuses another's folder; `load_network` takes any.

        Raises:
            FileNotFoundError: weights or config are not there.
            ValueError: the config is another network's or malformed, or the weights do not fit it.
        """
        folder = Path(folder)
        config = read_config(folder)
        if config["network"] != cls.__name__:
            raise ValueError(f"{folder / CONFIG} describes a {config['network']}, expected a {cls.__name__}")
        try:
            _check_shapes(cls, config["arguments"], folder / WEIGHTS)
            network = cls(**config["arguments"])
            network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{folder / WEIGHTS} not found: expected a network's weights") from error
        except _DOES_NOT_FIT as error:
            raise ValueError(f"{folder / WEIGHTS} does not fit {folder / CONFIG}: {error}") from error
        return network.eval()


def _check_shapes(kind: type[nn.Module], arguments: dict[str, Any], weights: Path) -> None:
    """Compare the shapes of the network with those in the header of the file, before memory is allocated.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a tensor is missing in the file or has another shape.
    """
    with torch.device("meta"):
        expected = {name: [*tensor.shape] for name, tensor in kind(**arguments).state_dict().items()}
    with safetensors.safe_open(weights, framework="pt") as file:
        found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 not a dict
    for name, shape in expected.items():
        if found.get(name) != shape:
            raise ValueError(f"{name} is {found.get(name, 'missing')}, expected {shape}")


def read_config(folder: str | Path) -> dict[str, Any]:
    """`config.json` of a saved network.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is not a network's config.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: expected a folder with {CONFIG} and {WEIGHTS}")
    try:
        config = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if (
        not isinstance(config, dict)
        or not isinstance(config.get("arguments"), dict)
        or "network" not in config
    ):
        raise ValueError(f"{path} is not a network's config: expected the keys 'network' and 'arguments'")
    return config
