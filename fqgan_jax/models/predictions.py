"""How the K codes of a position are predicted: a table of variants, for whole sequences and step by step.

The backbone reads tokens, and a variant says which, and how codes follow from what it makes of them. The first token is
the class; every other stands for codes that were drawn in the step before.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fqgan_jax.config.registry import Registry
from fqgan_jax.models.causal_layers import Cache

Choose = Callable[[Float[Array, "B N"], int], Int[Array, " B"]]
Drawn = tuple[Sequence[Cache], Int[Array, "B K"], Float[Array, "B K N"]]


class Prediction:
    """What variants share: a token and a step for each position, and all K codes of a position in its step.

    Attributes:
      has_head: whether a head transformer follows the backbone.
      any_order: whether positions may come in another order than row by row.
    """

    has_head = False
    any_order = True

    def tokens(self, embedded: Float[Array, "B T K D"]) -> Float[Array, "B S W"]:
        """Returns the embeddings of the codes of each token after the first, side by side."""
        B, T = embedded.shape[:2]
        return embedded[:, :-1].reshape(B, T - 1, -1)

    def spread(self, of_positions: Float[Array, "*b T c"], num_codebooks: int) -> Float[Array, "*b S c"]:
        """Returns for each token what belongs to the first position that it predicts."""
        del num_codebooks
        return of_positions

    def hidden(
        self, far: nn.Module, hidden: Float[Array, "B S D"], embedded: Float[Array, "B T K D"], *, train: bool
    ) -> Float[Array, "B T K D"]:
        """Returns the hidden vectors from which each code's logits follow, given the backbone's outputs.

        Args:
          far: the `FAR` that the variant is part of.
          hidden: outputs of its backbone, one a token.
          embedded: embeddings of the true codes.
          train: whether dropout acts.
        """
        raise NotImplementedError

    def tokens_per_step(self, num_codebooks: int) -> int:
        """Returns the number of tokens that the backbone reads in a step."""
        del num_codebooks
        return 1

    def num_steps(self, num_positions: int, num_codebooks: int) -> int:
        """Returns the number of steps that draw all codes."""
        del num_codebooks
        return num_positions

    def positions(self, s: Int[Array, ""], num_codebooks: int) -> Int[Array, " K"]:
        """Returns the position whose code of each sub-codebook step s draws; it may lie outside the grid."""
        return jnp.full(num_codebooks, s)

    def step(
        self,
        stepwise: Any,
        caches: Sequence[Cache],
        previous: Int[Array, "B K"],
        *,
        s: Int[Array, ""],
        labels: Int[Array, " B"],
        choose: Choose,
    ) -> Drawn:
        """Draws the codes of step s, those of one position unless sub-codebooks are delayed.

        Args:
          stepwise: the `StepwiseFAR` of the generator.
          caches: of the steps before, from its `empty_caches`.
          previous: codes of the step before; ignored at step 0, which takes the class token.
          s: number of the step.
          labels: in [0, C].
          choose: `choose(logits, k)` returns the codes of sub-codebook k.

        Returns:
          The new caches, the codes and their logits (float32).
        """
        raise NotImplementedError

    def aligned(self, drawn: Array, num_positions: int) -> Array:
        """Returns [B, T, K, ...] of what was drawn in each step, [B, S, K, ...]."""
        del num_positions
        return drawn


predictions: Registry[Prediction] = Registry("prediction of codes", lambda variant: variant())


@predictions("transformer")
class Transformer(Prediction):
    """A small transformer predicts the K codes of a position in turn (paper section 3.4)."""

    has_head = True

    def hidden(self, far, hidden, embedded, *, train):
        """Runs the head transformer over the backbone's output and the codes before."""
        B, T, K = embedded.shape[:3]
        sequence = jnp.concatenate([hidden[:, :, None], embedded[:, :, :-1]], axis=2).reshape(B * T, K, -1)
        return far.head(sequence, far.rotary_table()[:K], train=train).reshape(B, T, K, -1)

    def step(self, stepwise, caches, previous, *, s, labels, choose):
        """Runs the backbone once and the head K times."""
        far, (B, K) = stepwise.far, previous.shape
        x = stepwise.token(far.embed(previous).reshape(B, -1), labels=labels, first=s == 0, target=s)
        x, caches = stepwise.run_backbone(x, caches, index=s, row=s)
        head_caches = stepwise.head_caches(B, K)
        codes, logits = [], []
        for k in range(K):
            hidden, head_caches = stepwise.run_head(x, head_caches, index=k)
            logits.append(stepwise.logits(hidden, k))
            codes.append(choose(logits[-1], k))
            x = far.embed_one(codes[-1], k)[:, None]
        return caches, jnp.stack(codes, axis=1), jnp.stack(logits, axis=1)


class _AtOnce(Prediction):
    """The codes of a step do not know of each other."""

    def step(self, stepwise, caches, previous, *, s, labels, choose):
        """Runs the backbone once."""
        far, (B, K) = stepwise.far, previous.shape
        # Only a delayed code can lie outside the grid; step 0 ignores them all.
        T = far.grid[0] * far.grid[1]
        read = self.positions(s - 1, K)
        embedded = jnp.where(((read >= 0) & (read < T))[:, None], far.embed(previous), 0)
        x = stepwise.token(embedded.reshape(B, -1), labels=labels, first=s == 0, target=s)
        hidden, caches = stepwise.run_backbone(x, caches, index=s, row=jnp.minimum(s, T))
        logits = [stepwise.logits(hidden, k) for k in range(K)]
        codes = [choose(each, k) for k, each in enumerate(logits)]
        return caches, jnp.stack(codes, axis=1), jnp.stack(logits, axis=1)


@predictions("parallel")
class Parallel(_AtOnce):
    """K outputs at once, each of which sees the positions before but no code of its own position."""

    def hidden(self, far, hidden, embedded, *, train):
        """Takes the backbone's output for all K codes."""
        del far, train
        return jnp.broadcast_to(hidden[:, :, None], embedded.shape)


@predictions("delayed")
class Delayed(_AtOnce):
    """Sub-codebook k runs k positions behind, so that K outputs at once see the codes before them.

    (Copet et al. 2023, arXiv 2306.05284.)
    """

    any_order = False

    def tokens(self, embedded):
        """Joins the codes that one step draws; those outside the grid are zeros."""
        B, T, K, _ = embedded.shape
        late = [jnp.pad(embedded[:, :, k], ((0, 0), (k, K - 1 - k), (0, 0))) for k in range(K)]
        return jnp.stack(late, axis=2)[:, :-1].reshape(B, T + K - 2, -1)

    def spread(self, of_positions, num_codebooks):
        """Lets the last steps, which predict no code of sub-codebook 0, stand where the last position does."""
        last = jnp.repeat(of_positions[..., -1:, :], num_codebooks - 1, axis=-2)
        return jnp.concatenate([of_positions, last], axis=-2)

    def hidden(self, far, hidden, embedded, *, train):
        """Takes for sub-codebook k the outputs of k steps later."""
        del far, train
        T, K = embedded.shape[1:3]
        return jnp.stack([hidden[:, k : k + T] for k in range(K)], axis=2)

    def num_steps(self, num_positions, num_codebooks):
        """Counts the steps until the last sub-codebook has caught up."""
        return num_positions + num_codebooks - 1

    def positions(self, s, num_codebooks):
        """Counts back from the step."""
        return s - jnp.arange(num_codebooks)

    def aligned(self, drawn, num_positions):
        """Takes for sub-codebook k what was drawn k steps later."""
        return jnp.stack([drawn[:, k : k + num_positions, k] for k in range(drawn.shape[2])], axis=2)


@predictions("flattened")
class Flattened(Prediction):
    """One sequence of K * h * w codes, each predicted from all before it."""

    def tokens(self, embedded):
        """Takes each code for itself."""
        B, T, K, _ = embedded.shape
        return embedded.reshape(B, T * K, -1)[:, :-1]

    def spread(self, of_positions, num_codebooks):
        """Repeats each position K times."""
        return jnp.repeat(of_positions, num_codebooks, axis=-2)

    def hidden(self, far, hidden, embedded, *, train):
        """Takes the backbone's output for each code."""
        del far, train
        return hidden.reshape(embedded.shape)

    def tokens_per_step(self, num_codebooks):
        """Counts a token for each code."""
        return num_codebooks

    def step(self, stepwise, caches, previous, *, s, labels, choose):
        """Runs the backbone K times."""
        far, K = stepwise.far, previous.shape[1]
        embedded, codes, logits = far.embed_one(previous[:, -1], K - 1), [], []
        for k in range(K):
            x = stepwise.token(embedded, labels=labels, first=(s == 0) & (k == 0), target=s)
            hidden, caches = stepwise.run_backbone(x, caches, index=s * K + k, row=s + min(k, 1))
            logits.append(stepwise.logits(hidden, k))
            codes.append(choose(logits[-1], k))
            embedded = far.embed_one(codes[-1], k)
        return caches, jnp.stack(codes, axis=1), jnp.stack(logits, axis=1)
