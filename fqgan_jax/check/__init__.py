"""Do these devices compute what the project computes? `parts.parts` is the table of what `fqgan check` runs."""
