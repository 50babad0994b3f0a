"""What cpost costs and how true it is, beside the tools that people use in its place and the limit of a C program.

`benchmarks/run.sh` runs all of it and prints one table; see `__main__.py` for the options.
"""
