"""Doubles what it gets, twice; the third request ends the whole server with SIGKILL."""

import os
import signal

from triton_arrays import give, take


class TritonPythonModel:
    def initialize(self, args: dict) -> None:
        self.served = 0

    def execute(self, requests: list) -> list:
        self.served += len(requests)
        if self.served > 2:
            os.kill(os.getppid(), signal.SIGKILL)
        return [give(OUT=take(request, "IN") * 2) for request in requests]
