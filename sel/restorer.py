"""A trained model as a function from one image to another: what `train`, `evaluate` and `enhance` share."""

import copy
import dataclasses
import os
from typing import Any

import jax
import numpy as np

from sel.diffusion import SAMPLERS
from sel.errors import UserError
from sel.restoration import Report, TiledRestore
from sel.training import ModelConfig, Sampling, build_restore, find_checkpoint, read_config, read_params


class Restorer:
    """A trained model as a function from one image to another."""

    def __init__(self, restore: TiledRestore, params: Any, seed: int = 0, *, ensemble: bool = False):
        self._restore, self._params, self._key = restore, params, jax.random.key(seed)
        self._turns = range(8) if ensemble else range(1)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        *,
        seed: int = 0,
        method: str | None = None,
        num_steps: int | None = None,
        tile: int | None = None,
        ensemble: bool = False,
    ) -> "Restorer":
        """Network and diffusion are those that the checkpoint was trained with.

        Args:
          path: folder of a training run, or one of its checkpoints.
          seed: of the sampler's noise.
          method: sampler, see `sel.diffusion.sample`; None: that of the checkpoint.
          num_steps: of the sampler; None: those of the checkpoint.
          tile: largest side of what is computed at a time, see `sel.restoration.TiledRestore`; None: its default.
          ensemble: whether to take the mean over the eight ways to turn and mirror the image.

        Raises:
          UserError: if there is no checkpoint of this project at `path`, or it can't be sampled like that.
        """
        checkpoint = find_checkpoint(path)
        config = with_sampler(read_config(checkpoint), method, num_steps)
        restore = build_restore(config, **({} if tile is None else {"tile": tile}))
        return cls(restore, read_params(checkpoint), seed, ensemble=ensemble)

    def with_seed(self, seed: int) -> "Restorer":
        """The same model, compiled once for both, with the noise of another seed."""
        other = copy.copy(self)
        other._key = jax.random.key(seed)
        return other

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Enhance `[h, w, 3]` uint8; the same image and seed give the same result."""
        return np.rint(self.enhance(image.astype(np.float32) / 255) * 255).astype(np.uint8)

    def enhance(self, image: np.ndarray, report: Report | None = None) -> np.ndarray:
        """Enhance `[h, w, 3]` float32 in [0, 1], to the same; `report(done, total)` hears of parts of the work.

        Raises:
          UserError: if there is not enough memory.
        """
        count, result = len(self._turns), None

        def tell(done: int, total: int) -> None:
            if report is not None:
                report(turn * total + done, count * total)

        try:
            for turn in self._turns:
                x0 = turned_back(self._restore(self._key, self._params, turned(image, turn), tell), turn)
                result = x0 if result is None else np.add(result, x0, out=result)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                raise UserError("not enough memory; try a smaller --tile") from None
            raise
        assert result is not None
        return result / count if count > 1 else result


def turned(image: np.ndarray, turn: int) -> np.ndarray:
    """One of the eight ways to turn and mirror an image: 0 is the image itself."""
    return np.ascontiguousarray(np.rot90(image[:, ::-1] if turn >= 4 else image, turn % 4))


def turned_back(image: np.ndarray, turn: int) -> np.ndarray:
    """The inverse of `turned`."""
    image = np.rot90(image, -turn % 4)
    return np.ascontiguousarray(image[:, ::-1] if turn >= 4 else image)


def with_sampler(config: ModelConfig, method: str | None, num_steps: int | None) -> ModelConfig:
    """The configuration with another sampler; None leaves the configuration's, but another method takes its own steps.

    Raises:
      UserError: if there is no such method, or there are not as many steps.
    """
    sampler = config.sampler
    if method is not None and method not in SAMPLERS:
        raise UserError(f"the sampler must be one of {', '.join(SAMPLERS)}, found {method!r}")
    if method is not None and type(sampler.method) is not SAMPLERS[method]:
        names = [field.name for field in dataclasses.fields(SAMPLERS[method])]
        shared = {name: getattr(sampler.method, name) for name in names if hasattr(sampler.method, name)}
        # Steps that are right for one are not for another.
        sampler = Sampling(method=SAMPLERS[method](**shared), num_steps=0)
    if num_steps is not None:
        most = config.diffusion.num_steps
        if not 1 <= num_steps <= most:
            raise UserError(f"{num_steps} steps: the diffusion of this checkpoint has {most}, and takes 1 to {most}")
        sampler = dataclasses.replace(sampler, num_steps=num_steps)
    return dataclasses.replace(config, sampler=sampler)
