"""Where arrays live: the mesh, and the rules that map parameters to it."""
