"""Where the project meets other frameworks: checkpoints and exported programs."""
