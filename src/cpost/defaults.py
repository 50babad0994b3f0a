"""Defaults that the command line shows and the model holds; apart, so that `cpost --help` need not load the model."""

TRITON_IMAGE = "nvcr.io/nvidia/tritonserver:25.11-py3"
