"""The subcommands, a file each: they parse a line, call one function of `apis` and print what it returns.

Nothing that a Python user would want to call. Importing a command imports the standard library alone. May import
everything.
"""
