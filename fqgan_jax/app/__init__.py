"""`fqgan app`: a local page for a tokenizer, a generator and their runs, in Gradio."""
