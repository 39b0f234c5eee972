"""The four buffer callbacks: a training buffer in a SQL database, with the calls of MRL's."""

from __future__ import annotations

import inspect
import logging
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
    is_share,
    require_count,
    require_flag,
    require_real,
)
from sqlbuffer.core.predictor_versions import Mark
from sqlbuffer.core.weighting import Weighting
from sqlbuffer.errors import InvalidArgument, TrainingDiverged
from sqlbuffer.predictor.acquisition import Acquisition, acquisition_from
from sqlbuffer.predictor.agent import predict
from sqlbuffer.predictor.weights import dump_state, load_state
from sqlbuffer.retraining.background import Background
from sqlbuffer.retraining.train import retrain
from sqlbuffer.retraining.worker import load_newer, retrain_alone, score_by_newest, score_function
from sqlbuffer.training.buffer import Buffer, from_buffer
from sqlbuffer.training.callback import Callback, mean_of

logger = logging.getLogger(__name__)

__all__ = ["Buffer", "BufferSizeCallback", "PredictiveBuffer", "WeightedBuffer"]

REFRESH_SOME = "refresh_some"
"""The job of a refresh budget."""


class WeightedBuffer(Buffer):
    """A buffer that draws by weight: override `compute_weights`.

    Args:
        p_total: Share of each batch that comes from the buffer, in [0, 1]; -1 takes everything that waits.
        refresh_predictions: Score everything that waits again every so many iterations; 0 or None for never.
        pct_argmax: Share of the draw, in [0, 1], that takes the samples of the greatest weight.
        weighting: How scores become weights: "shift" is score - lowest score + 1e-8.
        refresh_budget: Refresh piece by piece: after each iteration at most so many waiting samples whose score is
            out of date, the oldest scores first, and of these the highest. A score is out of date when a predictor has
            been stored since, and `refresh_predictions` says how often all scores are. None: refresh all at once.
        **options: Keywords of `Buffer`.
    """

    JOBS = frozenset({"retrain", "refresh", REFRESH_SOME})

    def __init__(
        self,
        p_total: float,
        refresh_predictions: int | None,
        pct_argmax: float = 0.0,
        *,
        weighting: str | Weighting = "shift",
        refresh_budget: int | None = None,
        **options: Any,
    ) -> None:
        pct_argmax = require_real(
            pct_argmax, "pct_argmax must be a share between 0 and 1", is_share
        )
        if refresh_budget is not None:
            rule = "refresh_budget must be 1 sample or more, or None"
            refresh_budget = require_count(refresh_budget, rule, least=1)
        self.refresh_budget = refresh_budget
        self.refresh_predictions = _frequency("refresh_predictions", refresh_predictions)
        super().__init__(p_total, weighting=weighting, **options)
        self.name = "weighted_buffer"
        self.pct_argmax = pct_argmax

    def compute_weights(self, samples: list[Any]) -> NDArray[np.float64]:
        """Return the score of each sample, (n,) floats; its weight follows by `weighting`."""
        raise NotImplementedError(
            "a WeightedBuffer needs scores: derive from it and override compute_weights(samples) -> (n,) floats, "
            "or use Buffer to draw uniformly."
        )

    @property
    def weights(self) -> list[float | None]:
        """What `compute_weights` said of all waiting samples, in the order of `buffer`; None where it has not yet."""
        return [
            None if np.isnan(score) else score for score in self._waiting.read().scores.tolist()
        ]

    def sample(self, n: int) -> tuple[Any, ...]:
        """Draw n samples, -1 for all, and settle them without rewards; returns (samples, sources, scores)."""
        batch = self._claim(n)
        batch.settle(is_iteration=False)
        return batch.samples, from_buffer(batch.sources), batch.scores.tolist()

    def before_batch(self) -> None:
        """Score what has no score yet."""
        self._score("missing")

    def sample_batch(self) -> None:
        """Claim the buffer's share of the batch; `batch_state.buffer_weights` has its scores."""
        super().sample_batch()
        self._realign_weights()

    def filter_batch(self) -> None:
        """Let repeats within the batch go, and their scores with them."""
        super().filter_batch()
        self._realign_weights()

    def after_sample(self) -> None:
        """Keep the scores in step with a batch that other callbacks have filtered."""
        self._realign_weights()

    def _score(self, only: str, **options: Any) -> int:
        """Score by `compute_weights`, see `SampleStore._score_by`."""
        return self.store._score_by(None, self.compute_weights, only, **options)

    def _realign_weights(self) -> None:
        """Set the scores of those samples of the batch that were drawn from the buffer, in the order of the batch."""
        state, batch = self.environment.batch_state, self._batch
        if batch is not None:
            scores = dict(zip(self._hashes(batch.samples), batch.scores.tolist(), strict=True))
            state.buffer_weights = [
                scores[digest] for digest in self._hashes(state.samples) if digest in scores
            ]

    def _is_due(self, frequency: int) -> bool:
        iteration = self.environment.log.iterations
        return frequency > 0 and iteration > 0 and iteration % frequency == 0

    def _jobs_due(self) -> list[str]:
        due = ["refresh"] if self._is_due(self.refresh_predictions) else []
        return due if self.refresh_budget is None else [*due, REFRESH_SOME]

    def _do(self, job: str) -> None:
        mark = self._mark(job)
        if job == REFRESH_SOME:
            self._score("stale", budget=self.refresh_budget, checkpoint=mark)
            return
        if job == "refresh" and self.refresh_budget is not None:
            self._score("all", budget=0, checkpoint=mark)
            return
        # Scoring what is stale ends a refresh that was interrupted. One that is due scores everything: without a new
        # predictor nothing counts as stale, and yet compute_weights may have come to see things differently.
        if job == "refresh":
            self._score("all", checkpoint=mark)
        else:
            self._score("stale")

    def _jobs_left(self, jobs: list[str]) -> list[str]:
        left = super()._jobs_left(jobs)
        return left if self.store.is_refreshed() else [*left, "end_refresh"]


class PredictiveBuffer(WeightedBuffer):
    """A buffer that draws by the predictions of a model, which is retrained on the stored rewards.

    Args:
        p_total: Share of each batch that comes from the buffer, in [0, 1]; -1 takes everything that waits.
        refresh_predictions: Score everything that waits again every so many iterations; 0 or None for never.
        predictive_agent: A `PredictiveAgent`, or any object with its methods.
        pred_bs: Samples to predict at a time.
        supervised_frequency: Retrain every so many iterations; 0 or None for never.
        supervised_epochs: Epochs of each retraining.
        supervised_bs: Batch size of each retraining.
        supervised_lr: Learning rate of each retraining.
        train_silent: Retrain without a progress bar.
        pct_argmax: Share of the draw, in [0, 1], that takes the samples of the greatest weight.
        track: Write the metrics `predictive_buffer_loss` and `predictive_buffer_preds`.
        online: Train the model in the loop too, on each batch, rows that retraining holds out included: the measures of
            a predictor version are then not of unseen rows. A batch that others have released, and that is
            done again, has taught it twice.
        in_background: Retrain in a process next to the loop, which goes on with the predictor that it has until the new
            one is stored. The agent and the key must be picklable, and a script needs its `if __name__ == "__main__":`.
        supervised_kwargs: More keywords of `train.retrain`: which rows, how long, how many versions to keep.
        acquisition: What a sample is worth: "greedy", its prediction; "ucb", "ei" or "thompson", by what the agent
            says of its uncertainty; or an instance of `UpperConfidenceBound(beta)`, `ExpectedImprovement(xi)`,
            `ThompsonSampling()`. That is its score, and its weight follows by `weighting`.
        **options: Keywords of `WeightedBuffer`.
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
        frequency = _frequency("supervised_frequency", supervised_frequency)
        if frequency:  # else no process trains here
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
                "online=True needs an agent with predict_online(samples, step=), such as PredictiveAgent."
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
        """Return what the acquisition makes of the model's prediction for each sample, (n,) float64."""
        scores = self._scores or self._score_function()
        return scores(samples)

    def _score_function(self) -> Callable[[list[Any]], NDArray[np.float64]]:
        return score_function(self.store, self.predictive_agent, self.acquisition, self.pred_bs)

    def _score(self, only: str, **options: Any) -> int:
        """Score by the newest predictor; all samples by the same function."""
        self._scores = self._score_function()
        try:
            return score_by_newest(
                self.store, self._load_newer, self.compute_weights, only, **options
            )
        finally:
            self._scores = None

    def setup(self) -> None:
        """Announce the metrics, and load the newest predictor there is."""
        if self.track:
            log = self.environment.log
            log.add_metric(f"{self.name}_loss")
            log.add_metric(f"{self.name}_preds")
            log.add_log(f"{self.name}_preds")
        self._load_newer()

    def before_batch(self) -> None:
        """Load what another process has trained in between, and score what has no score yet."""
        super().before_batch()

    def get_model_outputs(self) -> None:
        """Predict the batch, with gradient where the model is trained online."""
        env = self.environment
        samples = env.batch_state.samples
        if self.online and samples:
            predictions = self.predictive_agent.predict_online(samples, step=env.log.iterations)
        else:
            predictions = self._predict(samples)
        env.batch_state[f"{self.name}_preds"] = predictions
        self._update_metric("preds", predictions)

    def compute_loss(self) -> None:
        """Add the loss of the predictions to the loss of the batch; rewards that are not finite are left out."""
        state = self.environment.batch_state
        predictions = state[f"{self.name}_preds"]
        rewards = torch.as_tensor(state.rewards, dtype=predictions.dtype, device=predictions.device)
        finite = torch.isfinite(rewards)
        if rewards.ndim == 0 or not finite.any():
            self._update_metric("loss", 0.0)
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
        """Step the model's optimiser; without online training there is no gradient to step along."""
        self.predictive_agent.step()

    def checkpoint(self) -> bytes | None:
        """Return the model's state where no stored predictor has it: before the first, and with online training."""
        if self._is_agent_stored and not self.online:
            return None
        return dump_state(self.predictive_agent)

    def _note_stored(self, states: Mapping[str, bytes]) -> None:
        super()._note_stored(states)
        self._is_agent_stored = self._is_agent_stored or self.name in states

    def restore(self, state: bytes) -> None:
        """Take the state back, if no predictor has been stored since."""
        newest = self.store.newest_predictor()
        if newest is None or (self.online and newest.iteration < self.store.iteration):
            load_state(self.predictive_agent, state)
            self._is_agent_stored = True

    def _predict(self, samples: list[Any]) -> Tensor:
        """Return predictions (n,), made in evaluation mode without gradient, `pred_bs` at a time."""
        return predict(self.predictive_agent, samples, self.pred_bs)

    def _load_newer(self) -> int:
        """Load the newest stored predictor, unless the model has it already; return of which version its scores are."""
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
            logger.warning("%s", exc)  # the loop goes on with the predictor it has
            return
        self._held = self._held if trained is None else trained.mark


class BufferSizeCallback(Callback):
    """Writes the metric `buffer size`: how many samples wait when a batch has been drawn."""

    def __init__(self) -> None:
        super().__init__(name="buffer size", order=0)

    def setup(self) -> None:
        """Announce the metric."""
        self.environment.log.add_metric(self.name)

    def after_sample(self) -> None:
        """Write the size of the pool."""
        self.environment.log.update_metric(self.name, len(self.environment.buffer))


def _keywords(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return further keywords of a retraining."""
    kwargs = {} if given is None else dict(as_mapping(given, "supervised_kwargs"))
    known = set(inspect.signature(retrain).parameters) - {"store", "agent", "checkpoint"}
    if unknown := sorted(set(kwargs) - known, key=str):
        odd = ", ".join(map(shown, unknown))
        raise InvalidArgument(
            f"supervised_kwargs has {odd}; retrain knows {', '.join(sorted(known))}."
        )
    return kwargs


def _frequency(name: str, every: int | None) -> int:
    """Return a number of iterations, 0 for never."""
    if every is None:
        return 0
    return require_count(
        every, f"{name} must be a number of iterations, or 0 or None to switch it off"
    )
