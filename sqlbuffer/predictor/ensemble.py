"""An ensemble of networks: their disagreement is the uncertainty of the prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sqlbuffer._messages import shown
from sqlbuffer._validation import as_list, require_list
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.predictor.agent import PredictiveAgent, draws_from
from sqlbuffer.predictor.dataset import PredictiveDataset
from sqlbuffer.predictor.models import in_mode, one_number_each, require_trainable


class Ensemble(nn.Module):
    """Models whose mean output is the prediction.

    Args:
        members: 2 or more models, each initialised on its own.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        members = as_list(members, "the models of an ensemble")
        if strangers := [member for member in members if not isinstance(member, nn.Module)]:
            raise InvalidArgument(
                f"the models of an ensemble must be torch.nn.Modules, got {shown(strangers[0])}."
            )
        if len(members) < 2 or len({id(member) for member in members}) < len(members):
            raise InvalidArgument(
                "an ensemble needs 2 or more models, each a separate object, got "
                f"{len(members)}: create each model separately, such as [make_model() for _ in "
                "range(5)]."
            )
        self.members = nn.ModuleList(members)

    def predict_each(self, x: Tensor) -> Tensor:
        """Return the outputs (m, n) of m members for features (n, ...)."""
        return torch.stack([one_number_each(member, x) for member in self.members])

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean (n,) over the members."""
        return self.predict_each(x).mean(dim=0)


class EnsembleAgent(PredictiveAgent):
    """An agent of several models, each trained on all rows from its own start in its own order.

    The prediction is the mean of the models, and the uncertainty is their standard deviation. The
    agent is stored and retrained like any other agent.

    Args:
        models: 2 or more models like the model of a `PredictiveAgent`, each initialised separately.
            Five are customary.
        loss_function: As in `PredictiveAgent`.
        dataset: As in `PredictiveAgent`.
        opt_kwargs: Keywords of `torch.optim.Adam`.
        clip: Largest norm of a member's gradient; 0 or None for no clipping.
        name: Name of the agent.
        seed: Seed of all randomness in training; the seed of each member is derived from it.

    Source:
        Lakshminarayanan, Pritzel and Blundell 2017, Simple and scalable predictive uncertainty
        estimation using deep ensembles.

    Examples:
        >>> from sqlbuffer import EnsembleAgent
        >>> models = [torch.nn.Linear(2, 1) for _ in range(5)]
        >>> ensemble = EnsembleAgent(models, loss, featurize)
        >>> mean, deviation = ensemble.predict_distribution(molecules)
        >>> mean.shape, deviation.shape
        (torch.Size([10]), torch.Size([10]))
    """

    model: Ensemble

    def __init__(
        self,
        models: Sequence[nn.Module],
        loss_function: Callable[[Tensor, Tensor], Tensor],
        dataset: PredictiveDataset | Callable[[list[Any]], Tensor],
        opt_kwargs: Mapping[str, Any] | None = None,
        clip: float | None = 1.0,
        name: str = "ensemble",
        *,
        seed: int = 0,
    ) -> None:
        ensemble = Ensemble(models)
        for member in ensemble.members:
            require_trainable(member)
        super().__init__(ensemble, loss_function, dataset, opt_kwargs, clip, name, seed=seed)

    def require_uncertainty(self) -> None:
        """Accept every ensemble: the members are its uncertainty."""

    def predict_distribution(self, samples: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Return the mean (n,) and the standard deviation (n,) of the members' predictions.

        Args:
            samples: n samples.
        """
        require_list(samples)
        if not len(samples):
            return self.predict_data([]), self.predict_data([])
        each = self._predict_each(samples)
        return each.mean(dim=0), each.std(dim=0, correction=0)

    def predict_samples(self, samples: Sequence[Any], n_draws: int, *, step: int = 0) -> Tensor:
        """Return predictions (n_draws, n) of members drawn at random, the same for a step.

        Args:
            samples: n samples.
            n_draws: Number of members drawn, with replacement.
            step: Number that selects the draws, 0 or more.
        """
        require_list(samples)
        n_draws, step = draws_from(n_draws, step)
        rng = np.random.default_rng([self.seed % 2**64, step])
        drawn = torch.from_numpy(rng.integers(len(self.model.members), size=n_draws))
        return self._predict_each(samples)[drawn]

    def train_supervised(
        self, bs: int, epochs: int, lr: float, *args: Any, **options: Any
    ) -> dict[str, float]:
        """Train each member like a `PredictiveAgent`.

        Args:
            bs: Rows in a step.
            epochs: Passes over the rows.
            lr: Highest learning rate.
            *args: See `PredictiveAgent.train_supervised`.
            **options: See `PredictiveAgent.train_supervised`.

        Returns:
            The mean of each measure over the members; `seconds` is the sum. If a member never had a
            finite loss, the loss is NaN.
        """
        found = [
            self._alone(i).train_supervised(bs, epochs, lr, *args, **options)
            for i in range(len(self.model.members))
        ]
        means = {name: float(np.mean([measured[name] for measured in found])) for name in found[0]}
        return {**means, "seconds": sum(measured["seconds"] for measured in found)}

    def _alone(self, number: int) -> PredictiveAgent:
        """Return a member as an agent on the same rows."""
        seed = int(np.random.SeedSequence([self.seed % 2**64, number]).generate_state(1)[0])
        name = f"{self.name} {number + 1} of {len(self.model.members)}"
        member = self.model.members[number]
        return PredictiveAgent(
            member, self.loss_function, self.dataset, self.opt_kwargs, self.clip, name, seed=seed
        )

    def _predict_each(self, samples: Sequence[Any]) -> Tensor:
        if not len(samples):
            return torch.zeros(len(self.model.members), 0, device=self.device)
        with in_mode(self.model, training=False), torch.no_grad():
            return self.model.predict_each(self.dataset.new(samples).tensors()[0])
