"""The buffer callback that draws by the predictions of a model, and retrains the model."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqlbuffer._messages import shown
from sqlbuffer._validation import (
    as_mapping,
    is_rate,
    require_count,
    require_flag,
    require_real,
)
from sqlbuffer.core.predictor_versions import Mark
from sqlbuffer.errors import InvalidArgument, TrainingDiverged
from sqlbuffer.predictor.acquisition import Acquisition, acquisition_from
from sqlbuffer.predictor.evaluation import predict
from sqlbuffer.predictor.weights import dump_state, load_state
from sqlbuffer.retraining.background import Background
from sqlbuffer.retraining.train import retrain
from sqlbuffer.retraining.worker import load_newer, retrain_alone, score_by_newest, score_function
from sqlbuffer.training.callback import mean_of
from sqlbuffer.training.weighted_buffer import WeightedBuffer, as_frequency

logger = logging.getLogger(__name__)


class PredictiveBuffer(WeightedBuffer):
    """A buffer that draws by the predictions of a model, which is retrained on the stored rewards.

    Args:
        p_total: Share of each batch that comes from the buffer, in [0, 1]; -1 takes all waiting
            samples.
        refresh_predictions: Iterations from one rescoring of all waiting samples to the next; 0 or
            None for never.
        predictive_agent: A `PredictiveAgent`, or any object with its methods.
        pred_bs: Samples to predict at a time.
        supervised_frequency: Iterations from one retraining to the next; 0 or None for never.
        supervised_epochs: Epochs of each retraining.
        supervised_bs: Batch size of each retraining.
        supervised_lr: Learning rate of each retraining.
        train_silent: Retrain without a progress bar.
        pct_argmax: Share of the draw, in [0, 1], that takes the samples of the greatest weight.
        track: Write the metrics `predictive_buffer_loss` and `predictive_buffer_preds`.
        online: Train the model in the loop too, on each batch. Batches include rows that retraining
            holds out, so the measures of a predictor version are no longer of unseen rows. A batch
            that another process has released is repeated, and trains the model twice.
        in_background: Retrain in a process next to the loop. The loop continues with its current
            predictor until the new one is stored. The agent and the key must be picklable, and a
            script needs `if __name__ == "__main__":`.
        supervised_kwargs: More keywords of `retraining.retrain`: which rows, how long, how many
            versions to keep.
        acquisition: How a prediction becomes a score: "greedy" takes the prediction, negated if the
            buffer minimizes; "ucb", "ei"
            and "thompson" also use the agent's uncertainty. Or an instance of
            `UpperConfidenceBound(beta)`, `ExpectedImprovement(xi)`, `ThompsonSampling()`. The score
            becomes a weight by `weighting`.
        **options: Keywords of `WeightedBuffer`.

    Examples:
        >>> from sqlbuffer import Environment, PredictiveBuffer, RewardCallback
        >>> buffer = PredictiveBuffer(
        ...     1.0, 5, agent, pred_bs=64, supervised_frequency=2, supervised_epochs=5,
        ...     supervised_bs=4, supervised_lr=0.01, url="sqlite:///molecules.db", name="molecules",
        ... )
        >>> reward = RewardCallback(lambda samples: [sample.count("C") for sample in samples])
        >>> Environment(rewards=[reward], buffer=buffer).fit(bs=3, iters=3, report=None)
        >>> store.stats().measured, len(store.predictors())
        (11, 1)
    """

    def __init__(
        self,
        p_total: float,
        refresh_predictions: int | None,
        predictive_agent: Any,
        pred_bs: int,
        supervised_frequency: int | None,
        supervised_epochs: int,
        supervised_bs: int,
        supervised_lr: float,
        train_silent: bool = True,
        pct_argmax: float = 0.0,
        track: bool = True,
        *,
        online: bool = False,
        in_background: bool = False,
        supervised_kwargs: Mapping[str, Any] | None = None,
        acquisition: str | Acquisition = "greedy",
        **options: Any,
    ) -> None:
        pred_bs = require_count(pred_bs, "pred_bs must be a whole number, 1 or more", least=1)
        frequency = as_frequency("supervised_frequency", supervised_frequency)
        if frequency:  # without retraining these values are not used
            rule = "supervised_epochs must be a whole number, 1 or more"
            supervised_epochs = require_count(supervised_epochs, rule, least=1)
            supervised_bs = require_count(
                supervised_bs, "supervised_bs must be a whole number, 1 or more", least=1
            )
            supervised_lr = require_real(
                supervised_lr, "supervised_lr must be a learning rate, 0 or more", is_rate
            )
        train_silent, track = (
            require_flag(train_silent, "train_silent"),
            require_flag(track, "track"),
        )
        online, in_background = (
            require_flag(online, "online"),
            require_flag(in_background, "in_background"),
        )
        self.acquisition = acquisition_from(acquisition, predictive_agent)
        if online and not hasattr(predictive_agent, "predict_online"):
            raise InvalidArgument(
                "online=True needs an agent with predict_online(samples, step=), "
                "such as PredictiveAgent."
            )
        self.supervised_frequency = frequency
        super().__init__(p_total, refresh_predictions, pct_argmax, **options)
        self.name = "predictive_buffer"
        self.predictive_agent = predictive_agent
        self.pred_bs = pred_bs
        self.supervised_epochs = supervised_epochs
        self.supervised_bs = supervised_bs
        self.supervised_lr = supervised_lr
        self.supervised_kwargs = _keywords(supervised_kwargs)
        self.train_silent = train_silent
        self._background = self._beside_the_loop() if in_background else None
        self.track = track
        self.online = online
        self._held: Mark | None = None
        self._scores: Callable[[list[Any]], NDArray[np.float64]] | None = None
        self._is_agent_stored = False

    def _beside_the_loop(self) -> Background:
        try:
            return Background(self.store, self.predictive_agent)
        except BaseException:
            self.store.close()
            raise

    def close(self) -> None:
        """Wait for a retraining in the background, then close the database connections."""
        if self._background is not None:
            self._background.close()
        super().close()

    def compute_weights(self, samples: list[Any]) -> NDArray[np.float64]:
        """Return the acquisition's score of each sample, (n,) float64.

        Args:
            samples: n samples.
        """
        scores = self._scores or self._score_function()
        return scores(samples)

    def _score_function(self) -> Callable[[list[Any]], NDArray[np.float64]]:
        return score_function(self.store, self.predictive_agent, self.acquisition, self.pred_bs)

    def _score(self, only: str, **options: Any) -> int:
        """Score by the newest predictor; all samples by one function."""
        self._scores = self._score_function()
        try:
            return score_by_newest(
                self.store, self._load_newer, self.compute_weights, only, **options
            )
        finally:
            self._scores = None

    def setup(self) -> None:
        """Announce the metrics, and load the newest stored predictor."""
        if self.track:
            log = self.environment.log
            log.add_metric(f"{self.name}_loss")
            log.add_metric(f"{self.name}_preds")
            log.add_log(f"{self.name}_preds")
        self._load_newer()

    def before_batch(self) -> None:
        """Load a predictor that another process has stored, and score the unscored samples."""
        super().before_batch()

    def get_model_outputs(self) -> None:
        """Predict the batch; with gradient if the model is trained online."""
        env = self.environment
        samples = env.batch_state.samples
        if self.online and samples:
            predictions = self.predictive_agent.predict_online(samples, step=env.log.iterations)
        else:
            predictions = self._predict(samples)
        env.batch_state[f"{self.name}_preds"] = predictions
        self._update_metric("preds", predictions)

    def compute_loss(self) -> None:
        """Add the loss of the predictions to the batch's loss; rewards must be finite to count."""
        state = self.environment.batch_state
        predictions = state[f"{self.name}_preds"]
        rewards = torch.as_tensor(state.rewards, dtype=predictions.dtype, device=predictions.device)
        finite = torch.isfinite(rewards)
        if rewards.ndim == 0 or not finite.any():
            self._update_metric("loss", math.nan)
            return
        loss = self.predictive_agent.loss_function(predictions[finite], rewards[finite]).mean()
        state.loss = state.loss + loss  # not in place: the loss of MRL's batch is a leaf
        self._update_metric("loss", loss)

    def zero_grad(self) -> None:
        """Clear the model's gradients."""
        self.predictive_agent.zero_grad()

    def before_step(self) -> None:
        """Clip the model's gradients."""
        self.predictive_agent.before_step()

    def step(self) -> None:
        """Step the model's optimiser; without online training there is no gradient."""
        self.predictive_agent.step()

    def checkpoint(self) -> bytes | None:
        """Return the model's state if no stored predictor has it.

        That is so before the first predictor, and with online training.
        """
        if self._is_agent_stored and not self.online:
            return None
        return dump_state(self.predictive_agent)

    def _note_stored(self, states: Mapping[str, bytes]) -> None:
        super()._note_stored(states)
        self._is_agent_stored = self._is_agent_stored or self.name in states

    def restore(self, state: bytes) -> None:
        """Load a state that `checkpoint` returned, unless a predictor has been stored since."""
        newest = self.store.newest_predictor()
        if newest is None or (self.online and newest.iteration < self.store.iteration):
            load_state(self.predictive_agent, state)
            self._is_agent_stored = True

    def _predict(self, samples: list[Any]) -> Tensor:
        """Return predictions, (n,), in evaluation mode without gradient, `pred_bs` at a time."""
        return predict(self.predictive_agent, samples, self.pred_bs)

    def _load_newer(self) -> int:
        """Load the newest stored predictor if it is another; return the version of its scores."""
        self._held, version = load_newer(self.store, self.predictive_agent, self._held)
        self._is_agent_stored = self._is_agent_stored or self._held is not None
        return version

    def _update_metric(self, suffix: str, values: Any) -> None:
        if self.track:
            self.environment.log.update_metric(f"{self.name}_{suffix}", mean_of(values))

    def _jobs_due(self) -> list[str]:
        due = ["retrain"] if self._is_due(self.supervised_frequency) else []
        return due + super()._jobs_due()

    def _do(self, job: str) -> None:
        if job != "retrain":
            super()._do(job)
            return
        options: dict[str, Any] = {
            "bs": self.supervised_bs,
            "epochs": self.supervised_epochs,
            "lr": self.supervised_lr,
        }
        options |= {
            "silent": self.train_silent,
            **self.supervised_kwargs,
            "checkpoint": self._mark(job),
        }
        if self._background is not None:
            self._background.start(dump_state(self.predictive_agent), options)
            return
        try:
            trained = retrain_alone(self.store, self.predictive_agent, **options)
        except TrainingDiverged as exc:
            logger.warning("%s", exc)  # the loop keeps its current predictor
            return
        self._held = self._held if trained is None else trained.mark


def _keywords(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the keywords of `supervised_kwargs`, refusing unknown ones."""
    kwargs = {} if given is None else dict(as_mapping(given, "supervised_kwargs"))
    known = set(inspect.signature(retrain).parameters) - {"store", "agent", "checkpoint"}
    if unknown := sorted(set(kwargs) - known, key=str):
        odd = ", ".join(map(shown, unknown))
        raise InvalidArgument(
            f"supervised_kwargs has {odd}; retrain knows {', '.join(sorted(known))}."
        )
    return kwargs
