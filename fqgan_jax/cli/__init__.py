"""The `fqgan` command: one small file per subcommand."""
