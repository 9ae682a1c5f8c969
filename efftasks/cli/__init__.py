"""The subcommands, one file each: they parse a command line, call a function of `apis` and print its result.

`dataset` calls those of `datasets`, and `quickstart` runs the other commands. Python users call the functions instead.
Importing a command imports only the standard library. May import everything.
"""
