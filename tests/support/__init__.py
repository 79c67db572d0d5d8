"""What tests share: tiny configs and models, golden data, files and servers that stand for published ones."""
