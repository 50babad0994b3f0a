"""Servers beside operators, on the real Triton and on services: what both find, what is measured, how things go wrong.

The pipelines are under way together from the first test on; each test looks at one or two of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from images.triton import MODELS, infer
from integration import harness
from integration.conftest import Operator
from integration.harness import Cpost, Done, Record, Running

MB = 10**6
LIMIT = 400 * MB
URIS = ("NVIDIA_TRITON_HTTPURI", "NVIDIA_CLARA_TRTISURI", "CLARA_TRITON_URI")
MOST_AT_ONCE = 4


def script(*parts: str) -> tuple[str, ...]:
    return ("sh", "-ec", "; ".join(parts))


def ask(model: str, count: int = 1) -> str:
    """A part of a script that asks a model."""
    return infer(model, 1.0, 2.0, count=count)[2]


def not_there(model: str) -> str:
    """A part of a script that fails if the server has this model."""
    return f"if wget -q -O - http://$NVIDIA_TRITON_HTTPURI/v2/models/{model}/ready; then exit 9; fi"


def asking(name: str, *models: str) -> Record:
    return {"models": [{"name": model} for model in (name, *models)]}


@dataclass(frozen=True)
class Scenario:
    """A pipeline and the options that it is run with; it keeps its metrics unless `kept` is False."""

    operators: list[Record]
    options: tuple[str, ...] = ()
    kept: bool = True


class Sized:
    """A scenario that is run: its end, and what it left."""

    def __init__(self, running: Running, folder: Path) -> None:
        self._running = running
        self.metrics, self.outputs = folder / "metrics", folder / "outputs"

    @cached_property
    def done(self) -> Done:
        return self._running.wait()

    @cached_property
    def run(self) -> Record:
        assert self.done
        return harness.load_run(self.metrics)

    @cached_property
    def rows(self) -> dict[str, dict[str, str]]:
        """The rows of the summary, by operator or server."""
        assert self.done
        return {row["operator"]: row for row in harness.rows_of(self.metrics / "summary.csv")}

    def operator(self, name: str) -> Record:
        found: Record = next(each for each in self.run["operators"] if each["operator"] == name)
        return found

    def server(self, of: str, name: str = "triton") -> Record:
        found: Record = next(each for each in self.operator(of)["servers"] if each["name"] == name)
        return found

    def column(self, file: str, name: str) -> list[str]:
        return [row[name] for row in harness.rows_of(self.metrics / file)]


def served(server: Record) -> dict[tuple[str, str], Record]:
    return {(model["name"], model["version"]): model for model in server["triton"]["models"]}


# ---------------------------------------------------------------- the scenarios


@pytest.fixture(scope="module")
def scenarios(op: Operator, image: str, triton_image: str) -> Mapping[str, Scenario]:
    """All of them; those that take longest come first."""

    def service(name: str, *command: str, **fields: object) -> Record:
        return harness.service(name, *command, **{"image": image, **fields})  # type: ignore[arg-type]

    own = {"CLARA_TRITON_URI": "mine:1"}
    web = "mkdir /w; echo hello >/w/index.html; echo from-web >/data/web; exec httpd -f -p 8080 -h /w"
    store = "--model-store=$(NVIDIA_CLARA_SERVICE_DATA_PATH)/models"
    triton_like = ("tritonserver", store, "--model-control-mode=explicit", "--load-model=double")
    trtis = service("trtis", *triton_like, image=triton_image, http=[("NVIDIA_CLARA_TRTISURI", 8000)])
    out = [{"path": "/out"}]
    return {
        "well": Scenario(
            [
                op("asks", *script("env >/out/env", ask("double", 5), not_there("other")), **asking("double"),
                   output=out, variables=own),
                op("heavy", *script("sleep 0.5", ask("hungry"), ask("other"), not_there("double")),
                   **asking("other", "hungry"), output=out),
                op("parts", *script(ask("twice"), ask("versions"), ask("versions/versions/1"), ask("slow")),
                   **asking("twice", "versions", "slow")),
            ]
        ),
        "failing": Scenario(
            [
                op("broken", "true", **asking("broken")),
                op("mortal", *script(ask("mortal", 9)), **asking("mortal")),
                op("glutton", *script(ask("glutton")), **asking("glutton")),
                op("brief", "true", services=[service("leaves", *script("echo no time; exit 7"), http=[("X", 8080)])]),
            ],
            ("--force", "cont", "--memory_limit", str(LIMIT)),
        ),
        "repeated": Scenario([op("asks", *script(ask("double")), **asking("double"))], ("--repeat", "2", "--json")),
        "first": Scenario(  # the shapes of definitions that the first cpost took
            [
                op("plain", *script("echo a >/out/a"), input=[{"path": "/in"}], output=out),
                op("models", *script("ls /in", "wget -q -O - http://$CLARA_TRITON_URI/v2/models/double/ready"),
                   input=[{"from": "plain", "path": "/in"}], **asking("double")),
                op("services", *script("wget -q -O - http://$NVIDIA_CLARA_TRTISURI/v2/models/double/ready"),
                   input=[{"from": "plain", "path": "/in"}], services=[trtis]),
            ],
            kept=False,
        ),
        "shared": Scenario(
            [
                op("one", *script(ask("double", 3), ask("other")), **asking("double")),
                op("two", *script("sleep 0.4", ask("other", 2), ask("hungry")), **asking("other", "hungry")),
                op("none", "true"),
            ],
            ("--triton_scope", "pipeline"),
        ),
        "dying": Scenario(
            [op("kills", *script(ask("mortal", 3)), **asking("mortal")), op("next", "true", **asking("double"))],
            ("--triton_scope", "pipeline", "--force", "cont"),
        ),
        "services": Scenario(
            [
                op("uses", *script("env >/out/env", "wget -q -O - $WEB/ >/out/web", "wget -q -O - $AGAIN/ >>/out/web",
                                   "cat /data/web /logs/env >>/out/web", "test -w /logs", ask("double")),
                   output=out, **asking("double"),
                   services=[
                       service("web", *script(web), http=[("WEB", 8080)], volumes=["/data"]),
                       service("again", *script(web), http=[("AGAIN", 8080)]),
                       service("sink", *script("env >/logs/env", "test -d /models/double", "exec httpd -f -p 8001"),
                               http=[("SINK_GRPC", None)], volumes=["/logs"], variables={"A": "b"}),
                       service("mute", "sleep", "1000"),
                   ]),
            ]
        ),
        "late": Scenario(
            [
                op("slow", "true", **asking("slow")),
                op("closed", "true", services=[service("deaf", "sleep", "1000", http=[("X", 8080)])]),
            ],
            ("--force", "cont", "--triton_timeout", "1s"),
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def sized(
    scenarios: Mapping[str, Scenario], tmp_path_factory: pytest.TempPathFactory, before: object, triton_image: str
) -> Iterator[Callable[[str], Sized]]:
    """Waits for a scenario; the first that is asked for starts them, a few at a time."""
    root = tmp_path_factory.mktemp("servers")
    payload = root / "payload"
    payload.mkdir()
    runner = Cpost(root)
    made: dict[str, Sized] = {}

    def start(name: str) -> None:
        scenario, folder = scenarios[name], root / name
        folder.mkdir()
        (folder / "pipeline.yaml").write_text(harness.definition(scenario.operators))
        kept = ("--metrics_dir", folder / "metrics", "--outputs_dir", folder / "outputs") if scenario.kept else ()
        servers = ("--models_dir", MODELS, "--triton_image", triton_image)
        running = runner.start(folder / "pipeline.yaml", payload, *servers, *kept, *scenario.options)
        made[name] = Sized(running, folder)

    def get(name: str) -> Sized:
        for each in [name, *scenarios]:
            if (
                each not in made
                and sum(other._running.process.poll() is None for other in made.values()) < MOST_AT_ONCE
            ):
                start(each)
        return made[name]

    yield get
    runner.end()
    harness.until(lambda: not list(runner.temp.iterdir()), "removal of temporary files", harness.REMOVAL_S)


Get = Callable[[str], Sized]


# ---------------------------------------------------------------- models


def test_an_operator_finds_its_triton_and_what_it_sets_itself_stays(sized: Get) -> None:
    well = sized("well")
    well.done.ended(0)
    lines = (well.outputs / "asks" / "env").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines)
    address = found["NVIDIA_TRITON_HTTPURI"].removesuffix(":8000")
    assert re.fullmatch(r"[0-9.]+", address)
    assert found["NVIDIA_CLARA_TRTISURI"] == f"{address}:8000"
    assert found["NVIDIA_TRITON_GRPCURI"] == f"{address}:8001"
    assert found["CLARA_TRITON_URI"] == "mine:1"
    assert "cpost: warning: asks sets CLARA_TRITON_URI itself" in well.done.err


def test_what_a_triton_served_is_counted(sized: Get) -> None:
    well = sized("well")
    well.done.ended(0)
    triton = well.server("asks")["triton"]
    assert triton["version"] == "2.51.0"
    (double,) = triton["models"]
    assert (double["name"], double["requests"], double["failures"], double["inferences"]) == ("double", 5, 0, 5)
    assert 0 < double["queue_us_mean"] < double["compute_us_mean"] < double["request_us_mean"] < 60_000_000
    assert "Server triton served asks: model double: 5 requests, on average " in well.done.out
    row = well.rows["asks__triton"]
    assert (row["requests_served"], row["requests_failed"]) == ("5", "0")
    assert float(row["compute_mean_ms"]) == pytest.approx(double["compute_us_mean"] / 1000, abs=1e-5)


def test_each_operator_has_the_models_it_asks_for_and_what_they_need(sized: Get) -> None:
    well = sized("well")
    assert well.server("heavy")["models"] == ["other", "hungry"]
    assert well.server("parts")["models"] == ["twice", "double", "versions", "slow"]
    requests = {key: model["requests"] for key, model in served(well.server("parts")).items()}
    assert requests == {
        ("double", "1"): 2,
        ("slow", "1"): 1,
        ("twice", "1"): 1,
        ("versions", "1"): 1,
        ("versions", "2"): 1,
    }
    assert "model versions, version 2: 1 request, on average" in well.done.out


def test_waiting_for_a_slow_model_is_not_its_operator_s_time(sized: Get) -> None:
    well = sized("well")
    server = well.server("parts")
    assert server["ready_ns"] > 3 * 10**9
    assert float(well.rows["parts__triton"]["ready_s"]) == pytest.approx(server["ready_ns"] / 1e9, abs=1e-5)
    assert well.operator("parts")["result"]["wall_ns"] < server["ready_ns"]
    assert server["result"]["wall_ns"] > server["ready_ns"]


def test_a_server_is_measured_idle_and_under_load(sized: Get) -> None:
    heavy = sized("well").server("heavy")
    need, whole = 200 * MB, heavy["usage"]["memory_bytes"]["maximum"]
    assert heavy["idle"]["memory_bytes"]["maximum"] < need / 2
    assert need < heavy["load"]["memory_bytes"]["maximum"] <= whole < 1.6 * need
    assert heavy["result"]["totals"]["memory_peak_bytes"] == whole
    assert heavy["idle"]["cpu_pct"]["average"] < heavy["load"]["cpu_pct"]["average"]
    reasons = heavy["recommendation"]["reasons"]
    assert heavy["recommendation"]["status"] == "ok"
    assert heavy["recommendation"]["requests"]["memory_bytes"] > whole + 100 * MB - 1
    assert any("a server: CPU while its operator ran" in reason for reason in reasons)


def test_a_server_has_its_series_and_rows_beside_its_operator_s(sized: Get) -> None:
    well = sized("well")
    assert list(well.rows) == ["asks", "asks__triton", "heavy", "heavy__triton", "parts", "parts__triton"]
    assert [row["server_of"] for row in well.rows.values()] == ["", "asks", "", "heavy", "", "parts"]
    harness.check_csvs(well.metrics)
    memory = [int(cell) for cell in well.column("heavy__triton_final_result.csv", "memory_bytes") if cell]
    assert max(memory) > 200 * MB
    assert well.server("heavy")["result"]["sampling"]["samples"] == len(memory) > 50
    elapsed = [float(cell) for cell in well.column("parts__triton_final_result.csv", "elapsed_s")]
    assert elapsed == sorted(elapsed)
    assert elapsed[0] < 0.5
    assert elapsed[-1] > 3
    assert "Its servers' are beside it: heavy__triton_final_result.csv" in well.done.out
    for metric in ("CPU", "Memory", "CPU idle", "Memory idle"):
        assert (
            len(re.findall(rf"\| +triton: {metric} +\|", well.done.out)) == 6
        )  # in an operator's table, and in the last


# ---------------------------------------------------------------- what goes wrong


def test_a_model_that_cannot_be_loaded_is_named_with_its_reason(sized: Get) -> None:
    failing = sized("failing")
    failing.done.ended(1)
    cause = failing.operator("broken")["result"]["cause"]
    assert cause.startswith("its server triton: model broken: UNAVAILABLE, ")
    assert "no weights" in cause
    assert cause in failing.done.out
    said = failing.done.out.partition("The last lines of the log of its server triton:\n")[2]
    assert any("load failed for model 'broken'" in line for line in said.splitlines()[:10])
    assert not re.search(r" {8}|-{8}", said.partition("____")[0].partition("\n+")[0])
    assert failing.operator("broken")["result"]["exit_code"] is None
    server = failing.server("broken")
    assert server["ready_ns"] is None
    assert server["recommendation"]["reasons"][0].startswith("the server failed (model broken: UNAVAILABLE")


def test_the_death_of_a_server_is_what_its_operator_failed_of(sized: Get) -> None:
    failing = sized("failing")
    result = failing.operator("mortal")["result"]
    assert (result["outcome"], result["exit_code"]) == ("failed", 1)
    assert result["cause"] == "its server triton failed: ended by signal 9 (exit code 137); exit code 1"
    assert len([line for line in result["log_tail"] if '"OUT"' in line]) == 2
    server = failing.server("mortal")["result"]
    assert (server["outcome"], server["exit_code"]) == ("failed", 137)
    assert server["log_tail"]


def test_a_server_s_process_that_is_killed_for_memory_is_named_with_the_limit(sized: Get) -> None:
    failing = sized("failing")
    result, server = failing.operator("glutton")["result"], failing.server("glutton")
    assert result["outcome"] == "failed"
    assert result["cause"].startswith("a process of its server triton was killed for memory at the limit of ")
    assert server["result"]["outcome"] == "completed"
    assert server["result"]["totals"]["oom_kills"] >= 1
    assert server["recommendation"]["status"] == "refused"
    assert "a process of the server was killed for memory" in server["recommendation"]["reasons"][0]
    assert [model["failures"] for model in served(server).values()] == [1]


def test_a_service_that_ends_at_once_is_named_with_its_code(sized: Get) -> None:
    failing = sized("failing")
    assert (
        failing.operator("brief")["result"]["cause"] == "its server leaves: it ended before it was ready: exit code 7"
    )
    assert failing.server("brief", "leaves")["result"]["log_tail"] == ["no time"]
    assert failing.run["complete"] is True
    harness.check_csvs(failing.metrics)


@pytest.mark.parametrize(("name", "server"), [("slow", "triton"), ("closed", "deaf")])
def test_a_server_that_is_not_ready_in_time(sized: Get, name: str, server: str) -> None:
    late = sized("late")
    late.done.ended(4)
    result = late.operator(name)["result"]
    assert result["outcome"] == "timed_out"
    why = "it was not ready within 1.000 s, its time by --triton_timeout (it does not answer yet)"
    assert result["cause"] == f"its server {server}: {why}"
    assert late.server(name, server)["ready_ns"] is None
    assert result["wall_ns"] is None


# ---------------------------------------------------------------- one server for all


def test_one_server_for_all_operators_has_the_load_of_all(sized: Get) -> None:
    shared = sized("shared")
    shared.done.ended(0)
    (server,) = shared.run["servers"]
    assert [each["servers"] for each in shared.run["operators"]] == [[], [], []]
    assert {key: model["requests"] for key, model in served(server).items()} == {
        ("double", "1"): 3,
        ("hungry", "1"): 1,
        ("other", "1"): 3,
    }
    assert server["load"]["memory_bytes"]["maximum"] > 200 * MB > server["idle"]["memory_bytes"]["maximum"]
    assert server["series_file"] == "pipeline__triton_final_result.csv"
    assert len(shared.column("pipeline__triton_final_result.csv", "cpu_us")) > 50
    harness.check_csvs(shared.metrics)
    row = shared.rows["pipeline__triton"]
    assert (row["server_of"], row["requests_served"], row["run_complete"]) == ("pipeline", "7", "yes")
    assert list(shared.rows) == ["one", "two", "none", "pipeline__triton"]
    assert shared.done.out.count("Starting server triton with double, other, hungry ...") == 1
    assert re.search(r"\| \(shared\) +\| triton: CPU +\|", shared.done.out)
    assert "Server triton served all operators: model double: 3 requests" in shared.done.out


def test_after_the_death_of_a_shared_server_no_operator_runs_that_needs_it(sized: Get) -> None:
    dying = sized("dying")
    dying.done.ended(1)
    assert "its server triton failed: ended by signal 9" in dying.operator("kills")["result"]["cause"]
    after = dying.operator("next")["result"]
    assert after["cause"] == "its server triton: it has ended: ended by signal 9 (exit code 137)"
    assert (after["outcome"], after["container_id"]) == ("failed", "")
    assert "The last lines of the log of server triton:" in dying.done.out
    (server,) = dying.run["servers"]
    assert server["result"]["exit_code"] == 137


# ---------------------------------------------------------------- repeats


def test_every_repeat_has_a_fresh_server(sized: Get) -> None:
    repeated = sized("repeated")
    repeated.done.ended(0)
    assert repeated.done.record["run_id"] == repeated.run["run_id"]
    record = repeated.operator("asks")
    servers = [each["servers"][0] for each in record["repeats"]]
    assert len({server["result"]["container_id"] for server in servers}) == 2
    assert [server["series_file"] for server in servers] == [
        "asks__triton_repeat1.csv",
        "asks__triton_final_result.csv",
    ]
    assert [served(server)["double", "1"]["requests"] for server in servers] == [1, 1]
    assert all(len(repeated.column(server["series_file"], "cpu_us")) > 50 for server in servers)
    (joined,) = record["servers"]
    peaks = [server["usage"]["memory_bytes"]["maximum"] for server in servers]
    assert joined["usage"]["memory_bytes"]["maximum"] == max(peaks)
    assert any(re.search(r"\(repeat [12] of 2\)", reason) for reason in joined["recommendation"]["reasons"])
    harness.check_csvs(repeated.metrics)


# ---------------------------------------------------------------- services


def test_definitions_of_the_first_cpost_run_as_they_are(sized: Get) -> None:
    first = sized("first").done.ended(0)
    assert "Server triton is ready after" in first.out
    assert "Server trtis is ready after" in first.out
    assert "Server trtis served services: model double: 0 requests" in first.out  # it is asked what it served
    for name in ("plain", "models", "models__triton", "services", "services__trtis"):
        assert first.out.count(f"Operator {name} Metrics Data") == 1


def test_any_container_can_be_a_service(sized: Get) -> None:
    services = sized("services")
    services.done.ended(0)
    lines = (services.outputs / "uses" / "env").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines)
    assert found["WEB"].endswith(":8080")
    assert found["AGAIN"] == found["WEB"]  # image and command are the same: so is the container
    assert found["SINK_GRPC"].endswith(":8001")
    assert len({found[name].partition(":")[0] for name in ("WEB", "SINK_GRPC", "NVIDIA_TRITON_HTTPURI")}) == 3
    seen = (services.outputs / "uses" / "web").read_text().splitlines()
    assert seen[:3] == ["hello", "hello", "from-web"]
    assert {"A=b", "NVIDIA_CLARA_SERVICE_DATA_PATH=/clara/common"} < set(seen)
    assert [each["name"] for each in services.operator("uses")["servers"]] == ["web", "sink", "mute", "triton"]
    web = services.server("uses", "web")
    assert (web["triton"], web["result"]["outcome"]) == (None, "completed")
    assert services.rows["uses__web"]["requests_served"] == ""
    assert float(services.rows["uses__mute"]["ready_s"]) >= 0
