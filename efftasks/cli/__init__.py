"""The subcommands, one file each: they parse a command line, call one function of `apis` and print its result.

Python users call `apis` instead. Importing a command imports only the standard library. May import everything.
"""
