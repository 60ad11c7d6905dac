"""The workshop: makes the model files that the runtime loads. Installed as `dearlite.export`, with heavier needs.

It imports dearlite; dearlite never imports it, except for a command of the CLI at the moment it is called.
"""
