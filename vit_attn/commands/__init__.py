"""Commands of ``vit-attn``, one module each, imported only when run because importing torch takes seconds.

A module with a function ``run(command, options) -> int`` is a command; its name is that of the file, and the first line
of its docstring is its summary in ``vit-attn --help``. Other modules here are shared by commands.
"""
