"""The objective: weights, names and options of the rows."""

import jax.numpy as jnp
import numpy as np
import pytest

from fqgan_jax import losses
from fqgan_jax.config import Registry
from fqgan_jax.errors import UserError
from fqgan_jax.losses.rows import Loss, objective
from fqgan_jax.training.from_config import loss_weights


@pytest.fixture
def rows():
    """Two values per sub-codebook, one for all, one that does not apply, one that is computed on demand."""
    rows = Registry("loss", lambda function, **attributes: Loss(function=function, **attributes))
    rows("codebook", always=True)(lambda *, latents, **_: latents)
    rows("disentanglement")(lambda **_: jnp.float32(4))
    rows("absent", always=True)(lambda **_: None)
    rows("scaled", options=("scale",))(lambda *, latents, scale, **_: scale * latents[0])
    return rows


@pytest.mark.parametrize(("over_codebooks", "expected"), [(jnp.sum, 2.5), (jnp.mean, 1.75)])
def test_values_per_sub_codebook_are_reduced_and_weighted(rows, over_codebooks, expected):
    weights, latents = {"codebook": 0.5, "disentanglement": 0.25, "scaled": 0.0}, np.array([1.0, 2.0])
    total, terms = objective(
        rows, weights, num_codebooks=2, over_codebooks=over_codebooks, options={"scale": 3}, latents=latents
    )
    assert total == expected
    assert terms.keys() == {"codebook", "disentanglement"}


def test_a_loss_without_weight_is_logged_only_if_it_says_so(rows):
    total, terms = objective(
        rows, {}, num_codebooks=2, over_codebooks=jnp.sum, options={}, latents=np.array([1.0, 2.0])
    )
    assert (total, list(terms)) == (0, ["codebook"])


def test_options_reach_their_loss(rows):
    values = {"num_codebooks": 2, "over_codebooks": jnp.sum, "options": {"scale": 3}, "latents": np.array([1.0, 2.0])}
    assert objective(rows, {"scaled": 2.0}, **values)[0] == 6


def test_config_sections_are_split_into_weights_and_options():
    weights, options = loss_weights({"codebook": 1.0, "feature_group": 4}, losses.tokenizer)
    assert (weights, options) == ({"codebook": 1.0}, {"feature_group": 4})


def test_a_weight_of_no_loss_names_the_nearest():
    with pytest.raises(UserError, match=r"loss.comitment is the weight of no loss; did you mean 'commitment'"):
        loss_weights({"comitment": 1.0}, losses.tokenizer)


def test_a_loss_of_one_number_an_image_is_refused(rows):
    rows("per_image")(lambda **_: jnp.ones(8))
    with pytest.raises(
        UserError, match=r"loss 'per_image' returns an array of shape \[8\].*each of the 2 sub-codebooks"
    ):
        objective(
            rows, {"per_image": 1.0}, num_codebooks=2, over_codebooks=jnp.sum, options={"scale": 1}, latents=np.ones(2)
        )


def test_a_loss_that_takes_no_other_keywords_is_refused():
    with pytest.raises(UserError, match=r"The loss narrow must end its parameters with \*\*_"):

        @losses.tokenizer("narrow")
        def narrow(*, reconstruction):
            return reconstruction


def test_a_keyword_that_no_step_gives_is_refused(rows):
    rows("edges")(lambda *, latent, **_: latent)
    with pytest.raises(UserError, match=r"'edges' asks for 'latent', which no step gives; did you mean 'latents'"):
        objective(rows, {"edges": 1.0}, num_codebooks=2, over_codebooks=jnp.sum, options={"scale": 1}, latents=1.0)
