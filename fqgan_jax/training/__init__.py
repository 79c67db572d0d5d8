"""One loop for two tasks: the tokenizer and the generator."""
