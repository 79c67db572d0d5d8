"""In the place of EfficientNet-Lite0's package, without its file: its program compiles far longer than tiny models'."""
