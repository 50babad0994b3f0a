"""Takes its time to load, as its configuration says; then it doubles what it gets."""

import json
import time

from triton_arrays import give, take


class TritonPythonModel:
    def initialize(self, args: dict) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        time.sleep(float(parameters["SECONDS"]["string_value"]))

    def execute(self, requests: list) -> list:
        return [give(OUT=take(request, "IN") * 2) for request in requests]
