"""The tokenizer against the published model's numbers (tests/golden/README.md, whose tolerances these are)."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data

from fqgan_jax.interop import import_params, infer_tokenizer_fields
from fqgan_jax.interop.tokenizer_names import codebook_names
from fqgan_jax.losses.quantization_losses import codebook_loss, commitment_loss, disentanglement_loss, entropy_loss
from fqgan_jax.losses.tokenizer_losses import info_nce
from fqgan_jax.models.fqgan import FQGAN

TOLERANCE = 1e-4
MARGIN = 1e-4


class Pass(NamedTuple):
    """What one pass over the golden image gives, beside the golden numbers of the same names."""

    names: list[str]
    golden: dict[str, np.ndarray]
    latents: np.ndarray
    codes: np.ndarray
    losses: dict[str, np.ndarray]
    disentanglement: np.ndarray
    features: tuple[np.ndarray | None, ...]
    reconstruction: np.ndarray

    def errors(self, prefix: str, values) -> dict[str, float]:
        """Relative error per sub-codebook."""
        return {
            name: golden_data.relative_error(value, self.golden[f"{prefix}_{name}"])
            for name, value in zip(self.names, values, strict=True)
            if value is not None
        }


def _forward(module: FQGAN, images, forced):
    """The training pass with the weights of README.md: 0.25 on commitment, 0.03 on entropy, 0.1 on disentanglement.

    `forced` [B, h, w, K] holds the codes to decode if two entries are equally near, and -1 elsewhere.
    """
    latents = module.latents(images)
    found = module.quantize(latents)
    chosen = jnp.where(forced < 0, found.codes, forced)
    entries = module.codes_to_entries(chosen)
    quantized = jnp.where((chosen == found.codes)[..., None], found.quantized, entries)
    entropy = entropy_loss(token_entropy=found.token_entropy, mean_probability=found.mean_probability)
    return {
        "latents": latents,
        "codes": found.codes,
        "losses": {
            "codebook_loss": codebook_loss(entries=found.entries, latents=found.latents),
            "commitment_loss": 0.25 * commitment_loss(entries=found.entries, latents=found.latents),
            "entropy_loss": 0.03 * entropy,
        },
        "disentanglement": 0.1 * disentanglement_loss(quantized=quantized),
        "features": module.predict_features(quantized),
        "reconstruction": module.decode_quantized(quantized),
    }


@pytest.fixture(scope="module", params=["dual_f16", "triple_f16", "dual_f8", "triple_f8"])
def golden_pass(request) -> Pass:
    """One published tokenizer at full size, 256x256 pixels; one program, run once."""
    module = FQGAN(**infer_tokenizer_fields(golden_data.shapes(request.param)))
    params = import_params(golden_data.state_dict(request.param), module)
    golden = golden_data.arrays(f"tokenizer_{request.param}")
    names = [name["code"] for name in codebook_names(module.num_codebooks)]
    expected = np.stack([golden[f"indices_{name}"] for name in names], axis=-1)
    margins = np.stack([golden[f"margin_{name}"] for name in names], axis=-1)
    forced = np.where(margins <= MARGIN, expected, -1)
    forward = jax.jit(partial(module.apply, method=_forward))
    results = jax.device_get(forward({"params": params}, golden_data.image((1, 256, 256, 3)), forced))
    return Pass(names=names, golden=golden, **results)


@pytest.mark.slow
class TestTokenizer:
    def test_latents(self, golden_pass):
        errors = golden_pass.errors("latent", np.moveaxis(golden_pass.latents, -2, 0))
        assert max(errors.values()) < TOLERANCE, errors

    def test_codes(self, golden_pass):
        for k, name in enumerate(golden_pass.names):
            clear = golden_pass.golden[f"margin_{name}"] > MARGIN
            assert clear.mean() > 0.9
            np.testing.assert_array_equal(
                golden_pass.codes[..., k][clear], golden_pass.golden[f"indices_{name}"][clear], err_msg=name
            )

    @pytest.mark.parametrize("loss", ["codebook_loss", "commitment_loss", "entropy_loss"])
    def test_quantizer_loss(self, golden_pass, loss):
        errors = golden_pass.errors(loss, golden_pass.losses[loss])
        assert max(errors.values()) < TOLERANCE, errors

    def test_disentanglement_loss(self, golden_pass):
        expected = golden_pass.golden["disentanglement_loss"]
        assert golden_data.relative_error(golden_pass.disentanglement, expected) < TOLERANCE

    def test_predicted_features(self, golden_pass):
        errors = golden_pass.errors("feature", golden_pass.features)
        assert sorted(errors) == sorted(golden_pass.names[1:])
        assert max(errors.values()) < TOLERANCE, errors

    def test_reconstruction(self, golden_pass):
        expected = golden_pass.golden["reconstruction"]
        assert golden_data.relative_error(golden_pass.reconstruction, expected) < TOLERANCE


def test_info_nce():
    golden = golden_data.arrays("losses")
    loss = info_nce(golden["infonce_predicted"], golden["infonce_teacher"])
    assert golden_data.relative_error(loss, golden["infonce"]) < TOLERANCE
