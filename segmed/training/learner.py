"""A network with its optimiser: on its device, synchronised between processes, clipped, averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor, nn

from segmed.config import TrainConfig
from segmed.errors import RunError
from segmed.training.checkpoint import check_same_network
from segmed.training.compilation import compiled
from segmed.training.optimisation import Average, make_optimiser, peak_rate, set_rate
from segmed.training.precision import Choice
from segmed.training.schedule import rate_factor


class Learner:
    """One side of a training method.

    Args:
        network: whose weights learn.
        train: optimiser, rate and its schedule, EMA, clipping, whether this network is compiled.
        fabric: device and processes, in full precision: autocast is the step's affair.
        choice: precision and memory format.
        call: wraps the network into the module that is called in training; none: the network itself.
        betas: of AdamW and Adam.

    Attributes:
        network: on the device, in training mode.
        module: what to call; with several processes its backward pass averages the gradients.
        average: of the weights, where `train.ema` is above 0.
    """

    def __init__(
        self,
        network: nn.Module,
        train: TrainConfig,
        *,
        fabric: Fabric,
        choice: Choice,
        call: Callable[[nn.Module], nn.Module] = lambda network: network,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self.network = choice.place(network, fabric.device).train()
        self.train = train
        self.fabric = fabric
        self.average = Average(self.network, train.ema) if train.ema else None
        module = call(self.network)
        if train.compile == "on":
            module = compiled(module, fabric.device)
        optimiser = make_optimiser(self.network, train, betas=betas)
        self.module, self._stepper = fabric.setup(module, optimiser)
        self.optimiser = optimiser

    def unsynchronised(self, wait: bool) -> AbstractContextManager:
        """Context for all pieces of a batch but the last: processes exchange gradients only with the last."""
        return self.fabric.no_backward_sync(self.module, enabled=wait)

    def advance(self, progress: float) -> Tensor:
        """Clip the gradients that came together, step, average; the gradient's norm before clipping, detached.

        Args:
            progress: share of the run that is done; the learning rate follows it.
        """
        train = self.train
        drops = {"drop_share": train.drop_share, "drop_factor": train.drop_factor}
        rate = peak_rate(train) * rate_factor(progress, train.schedule, warmup=train.warmup, **drops)
        set_rate(self.optimiser, rate)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.train.clip or float("inf"))
        self._stepper.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        return norm.detach()

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimiser.param_groups[0]["lr"])

    @property
    def evaluation_network(self) -> nn.Module:
        """The averaged network, or the trained one where no average is kept."""
        return self.network if self.average is None else self.average.network

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser, averaged weights."""
        state = {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict()}
        return state if self.average is None else {**state, "average": self.average.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], *, where: str) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            RunError: the state is of another network, or with averaged weights and this one without, or the
                other way round.
        """
        if ("average" in state) != (self.average is not None):
            raise RunError(f"{where} is {'without its' if self.average else 'with'} averaged weights: keep train.ema")
        check_same_network(self.network.state_dict(), state["network"], where=where)
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
