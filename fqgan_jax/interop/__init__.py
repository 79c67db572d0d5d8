"""Exchange with other frameworks: published checkpoint files, their names of tensors and their layouts."""

from fqgan_jax.interop.checkpoint_files import (
    CheckpointFile,
    is_checkpoint_file,
    read_checkpoint_file,
    read_further_sets,
)
from fqgan_jax.interop.discriminator_names import (
    PublishedDiscriminator,
    discriminator_entries,
    export_discriminator,
    import_discriminator,
    published_discriminators,
)
from fqgan_jax.interop.far_names import infer_generator_fields
from fqgan_jax.interop.published import (
    PublishedKind,
    export_params,
    import_params,
    import_published,
    in_published_terms,
    infer_fields,
    published_entries,
    published_kind,
    published_kinds,
)
from fqgan_jax.interop.tokenizer_names import (
    PublishedHead,
    infer_tokenizer_fields,
    published_heads,
    published_quantizers,
)

__all__ = [
    "CheckpointFile",
    "PublishedDiscriminator",
    "PublishedHead",
    "PublishedKind",
    "discriminator_entries",
    "export_discriminator",
    "export_params",
    "import_discriminator",
    "import_params",
    "import_published",
    "in_published_terms",
    "infer_fields",
    "infer_generator_fields",
    "infer_tokenizer_fields",
    "is_checkpoint_file",
    "published_discriminators",
    "published_entries",
    "published_heads",
    "published_kind",
    "published_kinds",
    "published_quantizers",
    "read_checkpoint_file",
    "read_further_sets",
]
