# An image for NVIDIA GPUs; its build steps are the README's.
#   docker build --tag fqgan_jax . && docker run --gpus all --volume "$PWD/runs:/runs" fqgan_jax check
FROM python:3.12-slim
WORKDIR /fqgan_jax
COPY . .
RUN python3 -m venv .venv && .venv/bin/pip install --no-cache-dir -c constraints.txt -e ".[cuda]"
ENTRYPOINT [".venv/bin/fqgan"]
CMD ["--help"]
