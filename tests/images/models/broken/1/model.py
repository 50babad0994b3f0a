"""Cannot be loaded."""


class TritonPythonModel:
    def initialize(self, args: dict) -> None:
        raise RuntimeError("no weights")
