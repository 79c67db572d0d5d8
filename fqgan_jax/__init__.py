"""The FQGAN tokenizer and the FAR generator in JAX (arXiv 2411.16681)."""
