"""Pictures and reports that show what a model does."""
