"""An adapter by itself, in the folder that PEFT writes and reads.

::

    adapter_config.json           {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["encoder.up"], ...}
    adapter_model.safetensors     base_model.model.encoder.up.lora_A.weight    A transposed, (R, I)
                                  base_model.model.encoder.up.lora_B.weight    B transposed, (U, R)
                                  base_model.model.table.lora_embedding_A      those of an embedding, without .weight

Source: PEFT 0.21.2, `save_pretrained` and `load_adapter`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from fanin.errors import CorruptError, UnsafeError
from fanin.formats import limits
from fanin.formats.adapter_config import Config
from fanin.formats.faults import Faults
from fanin.formats.tensors import Entry, TensorPlan, read_header
from fanin.write import replacing, target

CONFIG, TENSORS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model"
_ENDINGS = {
    False: (".lora_A.weight", ".lora_B.weight"),
    True: (".lora_embedding_A", ".lora_embedding_B"),
}


@dataclass(frozen=True)
class Pair:
    """The adapter of one layer, without its values.

    Attributes:
        embedding: whether the layer looks up rows instead of multiplying.
        rank: R.
        alpha: of any sign; scale = alpha / R, or alpha / sqrt(R).
        sizes: I and U.
    """

    embedding: bool
    rank: int
    alpha: float
    sizes: tuple[int, int]

    def names(self, path: str) -> tuple[str, str]:
        """What A and B are called in the file."""
        a, b = (_key(path, ending) for ending in _ENDINGS[self.embedding])
        return a, b


Values = Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def _key(path: str, ending: str) -> str:
    return f"{_PREFIX}.{path}{ending}" if path else f"{_PREFIX}{ending}"


# --- writing ----------------------------------------------------------------------------------------------------------


def write(
    folder: str,
    pairs: Mapping[str, Pair],
    values: Values,
    others: Collection[str] = (),
    dropout: float = 0.0,
    rslora: bool = False,
    overwrite: bool = True,
) -> None:
    """Write an adapter into a folder, which is made if it is missing.

    Args:
        folder: where to.
        pairs: path -> numbers of the layers that have the adapter.
        values: path -> A (I, R) and B (R, U).
        others: the paths of the other modules.
        dropout: the fraction of the inputs of A that is set to 0 in training.
        rslora: whether the scale is alpha / sqrt(R).
        overwrite: whether the files may be there already.

    Both files are on the disk before the first takes its place, and in between there is no config: so a kill leaves the
    old adapter, the new one, or, for a moment, a folder that cannot be read. Raises as `write.target`.
    """
    from safetensors.torch import save as encode

    ranks, alphas = ({path: getattr(pair, key) for path, pair in pairs.items()} for key in ("rank", "alpha"))
    config = Config.of(ranks, alphas, dropout, rslora, others).to_json()
    Config.from_json(config).numbers(pairs)  # what cannot be read back is not written
    named = {
        name: value.detach().t().to("cpu", copy=True).contiguous()
        for path, pair in pairs.items()
        for name, value in zip(pair.names(path), values[path], strict=True)
    }
    plain = encode(named)
    checksum = hashlib.sha256(memoryview(plain)[8 + int.from_bytes(plain[:8], "little") :]).hexdigest()
    metadata = {"format": "pt", "fanin_version": version("fanin"), "sha256": checksum}
    os.makedirs(folder, exist_ok=True)
    config_path = target(os.path.join(folder, CONFIG), (CONFIG,), overwrite)
    tensors_path = target(os.path.join(folder, TENSORS), (TENSORS,), overwrite)
    with replacing(config_path) as config_file, replacing(tensors_path) as tensors_file:
        for file, data in ((config_file, config), (tensors_file, encode(named, metadata))):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        config_path.unlink(missing_ok=True)


# --- reading ----------------------------------------------------------------------------------------------------------


class Folder:
    """An adapter's folder: its config, and what its tensors are called and how large they are, found to agree.

    Args:
        folder: where PEFT or `write` put the files.

    Raises OSError for a file that cannot be read, UnsafeError if there is a pickle only, else FormatErrors that name
    file and member.

    Attributes:
        config: the numbers.
        pairs: path -> numbers of each layer in the file.
        path: of the file with the tensors.
    """

    def __init__(self, folder: str):
        self.path = os.path.join(folder, TENSORS)
        if not os.path.lexists(self.path) and os.path.lexists(os.path.join(folder, PICKLE)):
            raise UnsafeError(
                f"{os.path.join(folder, PICKLE)}: a pickle is not read, as it can run any code; PEFT's save_pretrained "
                f"writes {TENSORS}."
            )
        config_path = os.path.join(folder, CONFIG)
        with limits.open_regular(config_path) as file:
            data = file.read(limits.JSON_BYTES + 1)
        with limits.naming(config_path, "options", CorruptError):
            self.config = Config.from_json(data)
        with limits.open_regular(self.path) as file, limits.naming(self.path, "header", CorruptError):
            entries, _, _ = read_header(file)
        with limits.naming(self.path, "tensors"):
            found = _in_pairs(entries)
        with limits.naming(config_path, "options"):
            numbers = self.config.numbers(found)
        with limits.naming(self.path, "tensors"):
            self.pairs = self._agreed(found, entries, numbers)

    def _agreed(
        self, found: dict[str, bool], entries: dict[str, Entry], numbers: dict[str, tuple[int, float]]
    ) -> dict[str, Pair]:
        """MismatchError unless each pair has two matrices, of the rank that the config says."""
        faults = Faults()
        pairs = {}
        for path, embedding in found.items():
            rank, alpha = numbers[path]
            shapes = [entries[_key(path, ending)].shape for ending in _ENDINGS[embedding]]
            if [len(shape) for shape in shapes] != [2, 2] or shapes[0][0] != rank or shapes[1][1] != rank:
                faults.found.append(f"{path!r} has {shapes[0]} and {shapes[1]}, expected ({rank}, I) and (U, {rank})")
            else:
                pairs[path] = Pair(embedding, rank, alpha, (shapes[0][1], shapes[1][0]))
        if not found:
            faults.found.append("there are none")
        faults.check()
        return pairs

    def values(self) -> Values:
        """Path -> A (I, R) and B (R, U), read now. Raises a FormatError if the file has changed or is damaged."""
        names = {path: pair.names(path) for path, pair in self.pairs.items()}
        shapes = {
            name: shape
            for path, pair in self.pairs.items()
            for name, shape in zip(names[path], ((pair.rank, pair.sizes[0]), (pair.sizes[1], pair.rank)), strict=True)
        }
        taker = _Taker({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
        TensorPlan(taker, self.path).carry_out()
        return {path: (taker.tensors[a].t(), taker.tensors[b].t()) for path, (a, b) in names.items()}


class _Taker(nn.Module):
    """Tensors by name, where what reads files expects a module with a `state_dict`."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]):
        super().__init__()
        self.tensors = dict(tensors)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.tensors

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        self.tensors = dict(state_dict)


def _in_pairs(entries: Mapping[str, Entry]) -> dict[str, bool]:
    """Path -> whether it is an embedding, of each layer that has A and B of floats; MismatchError for anything else."""
    faults = Faults()
    found: dict[str, bool] = {}
    for name, entry in entries.items():
        place = _place(name)
        if place is None:
            faults.found.append(f"{name[:100]!r} is no A or B of LoRA")
        elif not entry.dtype.is_floating_point:
            faults.found.append(f"{name[:100]!r} is made of {entry.dtype}, expected floats")
        elif found.setdefault(place[0], place[1]) != place[1]:
            faults.found.append(f"{place[0][:100]!r} is an embedding and is none")
    wanted = [_key(path, ending) for path, embedding in found.items() for ending in _ENDINGS[embedding]]
    faults.found += [f"{name[:200]!r} is missing" for name in wanted if name not in entries]
    faults.check()
    return found


def _place(name: str) -> tuple[str, bool] | None:
    """The path of the layer and whether it is an embedding; None for the name of something else."""
    for embedding, endings in _ENDINGS.items():
        for ending in endings:
            path = name.removeprefix(_PREFIX).removesuffix(ending).removeprefix(".")
            if name == _key(path, ending):
                return path, embedding
    return None
