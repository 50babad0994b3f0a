"""The only door to Docker, control groups and NVML."""
