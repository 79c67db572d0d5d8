"""Images, their frozen features and their codes, served by grain: every batch is a function of seed and step."""
