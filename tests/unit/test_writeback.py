"""What is written where, format by format and style by style; the lines that tell of it."""

from __future__ import annotations

import textwrap

import pytest

from cpost.definition import writeback
from cpost.definition.marks import is_json, parsed, source_of
from cpost.definition.sites import find_sites
from cpost.definition.writeback import Advised, write_back
from cpost.model import Advice, Change, Fate, Recommendation, Resources, Verdict

MB, GB = 10**6, 10**9
TWO_CORES_1GB = Resources(2000, GB)


def advice(requests: Resources = TWO_CORES_1GB, limits: Resources | None = None, **given) -> Recommendation:
    return Recommendation("peak", Advice.OK, requests, requests if limits is None else limits, **given)


P95 = advice(limits=Resources(memory_bytes=GB))


def written(text: str, recommendation: Recommendation | None = None, *names: str):
    source = source_of(textwrap.dedent(text).encode(), "f")
    names = names or tuple(site.name for site in find_sites(source))
    return write_back(source, [Advised((name,), recommendation or advice()) for name in names])


def becomes(before: str, after: str, recommendation: Recommendation | None = None, *names: str) -> None:
    assert written(before, recommendation, *names).text == textwrap.dedent(after)


def left(text: str, recommendation: Recommendation | None = None) -> str:
    """The only reason for leaving something."""
    (reason,) = [each.reason for each in written(text, recommendation).amendments if each.fate is Fate.LEFT]
    return reason


# ---------------------------------------------------------------- Clara


def test_clara_takes_whole_cores_and_megabytes():
    becomes(
        """
        operators:
        - name: a  # the first
          container: {image: x}
          requests:
            memory: "512"  # MB
            gpu: 1
        - name: b
          container:
            image: x
            tag: '1'
          input: [{path: /in}]
        """,
        """
        operators:
        - name: a  # the first
          container: {image: x}
          requests:
            memory: "1001"  # MB
            gpu: 2
            cpu: 2
        - name: b
          container:
            image: x
            tag: '1'
          requests:
            cpu: 2
            memory: 1001
            gpu: 2
          input: [{path: /in}]
        """,
        advice(Resources(1001, GB + 1, 2)),
    )


def test_clara_services_and_imports():
    text = """
        operators:
        - name: a
          services:
            - name: s
              container: {image: x}
        - {name: b, import: {path: b.yaml}}
        """
    done = written(text, None, "a__s", "b")
    assert "            - name: s\n" not in done.text
    assert "      container: {image: x}\n      requests:\n        cpu: 2\n        memory: 1000\n" in done.text
    assert [each.fate for each in done.amendments] == [Fate.CHANGED, Fate.LEFT]


def test_a_clara_placeholder_is_left():
    text = "operators: [{name: a, requests: {cpu: '${{ CORES }}', memory: 512}}]"
    done = written(text)
    assert done.text == "operators: [{name: a, requests: {cpu: '${{ CORES }}', memory: 1000}}]"
    assert left(text) == 'requests.cpu is a variable, "${{ CORES }}": change it where that gets its value'


# ---------------------------------------------------------------- Kubernetes and Argo

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers:
  - name: a
    image: x
"""


def pod(resources: str, after: str, recommendation: Recommendation | None = None) -> None:
    """The resources of a container, in lines below its image, before and after."""
    done = written(POD + textwrap.indent(textwrap.dedent(resources), "    "), recommendation)
    assert done.text == POD + textwrap.indent(textwrap.dedent(after), "    ")


WHOLE = """\
resources:
  requests:
    cpu: 2
    memory: 960Mi
  limits:
    cpu: 2
    memory: 960Mi
"""


@pytest.mark.parametrize("nothing", ["", "resources:\n", "resources: {}\n", "resources: ~\n", "resources:   null\n"])
def test_missing_resources_are_added(nothing):
    pod(nothing, WHOLE)


@pytest.mark.parametrize(
    ("nothing", "first"),
    [
        ("resources: {}  # none yet\n", "resources: # none yet\n"),
        ("resources:  # none yet\n", "resources:  # none yet\n"),
        ("resources: &r\n", "resources: &r\n"),
        ("resources:\n  {}\n", "resources:\n\n"),
    ],
)
def test_comments_and_anchors_stay_where_they_are(nothing, first):
    pod(nothing, first + WHOLE.split("\n", 1)[1])


def test_a_limit_follows_and_the_rest_stays():
    pod(
        """\
        resources:
          limits: {memory: 512Mi, nvidia.com/gpu: 1, ephemeral-storage: 1Gi}
          requests:
              cpu: '500m'
        """,
        """\
        resources:
          limits: {memory: 960Mi, nvidia.com/gpu: 1, ephemeral-storage: 1Gi, cpu: 2}
          requests:
              cpu: '2'
              memory: 960Mi
        """,
    )


def test_equal_amounts_are_not_rewritten():
    done = written(
        POD + "    resources: {requests: {cpu: 2000m, memory: 0.9375Gi}, limits: {cpu: '2', memory: 960Mi}}\n"
    )
    assert [each.fate for each in done.amendments] == [Fate.UNCHANGED]


def test_without_a_limit_in_the_policy_none_is_added_or_exceeded():
    pod("resources: {limits: {cpu: 3}, requests: {cpu: 1}}\n",
        "resources: {limits: {cpu: 3, memory: 960Mi}, requests: {cpu: 2, memory: 960Mi}}\n", P95)  # fmt: skip
    text = POD + "    resources: {requests: {cpu: 500m}, limits: {cpu: 1500m}}\n"
    assert left(text, P95).startswith("cpu: a request of 2 is above the limit of 1500m, and the policy sets no limit")
    assert "requests: {cpu: 500m, memory: 960Mi}" in written(text, P95).text


@pytest.mark.parametrize("today", ["requests: {cpu: 500m}, limits: {cpu: 0.5}", "limits: {cpu: 1}"])
def test_a_limit_that_the_request_equals_grows_with_it(today):
    text = written(POD + f"    resources: {{{today}}}\n", P95).text
    assert "limits: {cpu: 2, memory: 960Mi}" in text
    assert "requests: {cpu: 2, memory: 960Mi}" in text


@pytest.mark.parametrize("today", ["limits: {cpu: 8}", "requests: {cpu: 8}, limits: {cpu: 8}"])
def test_a_limit_that_the_policy_does_not_set_is_never_lowered(today):
    text = written(POD + f"    resources: {{{today}}}\n", P95).text
    assert "limits: {cpu: 8, memory: 960Mi}" in text
    assert "requests: {cpu: 2, memory: 960Mi}" in text


@pytest.mark.parametrize(
    ("resources", "reason"),
    [
        ("requests: {memory: '$(MEMORY)'}", "is a variable"),
        ("limits: {memory: '{{inputs.parameters.memory}}'}", "is a variable"),
        ("requests: {memory: lots}", 'cannot be understood, "lots"'),
        ("requests: {memory: [1]}", "is not a single value"),
    ],
)
def test_what_cannot_be_told_is_left_request_and_limit(resources, reason):
    text = POD + f"    resources: {{{resources}}}\n"
    assert reason in left(text)
    assert "960Mi" not in written(text).text


def test_a_template_in_the_place_of_all_resources():
    text = POD + "    resources: '{{ .Values.resources }}'\n"
    reasons = {each.reason for each in written(text).amendments}
    assert len(reasons) == 2
    assert all("is no mapping" in reason for reason in reasons)
    assert written(text).text == text


def test_a_block_text_is_left():
    text = POD + "    resources:\n      requests:\n        memory: |-\n          1Gi\n"
    assert "not a single value" in left(text, advice(Resources(None, GB)))


def test_argo_uses_share_a_template_and_the_largest_counts():
    text = """
        apiVersion: argoproj.io/v1alpha1
        kind: Workflow
        metadata: {name: w}
        spec:
          templates:
          - name: work
            script: {image: x}
          - name: dag
            dag: {tasks: [{name: t1, template: work}, {name: t2, template: work}]}
        """
    source = source_of(textwrap.dedent(text).encode(), "f")
    small = advice(Resources(1000, 2 * GB))
    done = write_back(source, [Advised(("t1",), small), Advised(("t2",), advice())])
    assert "requests: {cpu: 2, memory: 1920Mi}" in done.text
    assert [(each.name, each.fate) for each in done.amendments] == [("work", Fate.CHANGED)]
    refused = Recommendation("peak", Advice.REFUSED, reasons=("it failed",))
    done = write_back(source, [Advised(("t1",), refused), Advised(("work",), advice())])
    assert done.text == source.text
    assert [(each.name, each.fate) for each in done.amendments] == [("work", Fate.LEFT), ("t1", Fate.REFUSED)]


def test_the_defaults_of_a_workflow_are_limits_too():
    text = """
        apiVersion: argoproj.io/v1alpha1
        kind: Workflow
        spec:
          templateDefaults: {container: {resources: {limits: {cpu: 1}}}}
          templates: [{name: a, container: {image: x}}]
        """
    assert "above the limit of 1" in left(text, P95)


# ---------------------------------------------------------------- Docker Compose


def test_compose_states_both_in_deploy():
    becomes(
        """
        services:
          a:
            image: x
            ports: ["80:80"]
        """,
        """
        services:
          a:
            image: x
            deploy:
              resources:
                reservations:
                  cpus: "2.00"
                  memory: 954M
                limits:
                  cpus: "2.00"
                  memory: 954M
            ports: ["80:80"]
        """,
    )


def test_compose_short_form_stays_short():
    becomes(
        "services: {a: {image: x, mem_limit: '512m', cpus: 0.5}}\n",
        "services: {a: {image: x, mem_limit: '954M', cpus: 2.00, mem_reservation: 954M}}\n",
    )
    becomes(
        "services: {a: {image: x, mem_limit: 512m}, b: {extends: a}}\n",
        "services: {a: {image: x, mem_limit: 512m}, b: {extends: a, mem_reservation: 954M, mem_limit: 954M}}\n",
        advice(Resources(None, GB)),
        "b",
    )


def test_compose_both_forms_are_kept_equal():
    becomes(
        "services: {a: {mem_limit: 1g, deploy: {resources: {limits: {memory: 1g}}}}}\n",
        "services: {a: {mem_limit: 954M, "
        "deploy: {resources: {limits: {memory: 954M}, reservations: {memory: 954M}}}}}\n",
        advice(Resources(None, GB)),
    )


def test_compose_zero_is_no_limit():
    becomes(
        "services: {a: {deploy: {resources: {limits: {cpus: '0', memory: 1g}}}}}",
        "services: {a: {deploy: {resources: {limits: {cpus: '0', memory: 954M}, "
        'reservations: {cpus: "2.00", memory: 954M}}}}}',
        P95,
    )


@pytest.mark.parametrize(
    ("today", "size", "after"),
    [
        ("", 64, ""),
        ("", 65, ", shm_size: 65M"),
        (", shm_size: 1gb", 65, ", shm_size: 1gb"),
        (", shm_size: 64m", 99, ", shm_size: 99M"),
    ],
)
def test_compose_shared_memory_is_only_raised(today, size, after):
    recommendation = advice(Resources(), Resources(), dev_shm_bytes=size * 2**20)
    becomes(f"services: {{a: {{image: x{today}}}}}", f"services: {{a: {{image: x{after}}}}}", recommendation)
    assert "variable" in left("services: {a: {shm_size: '${SHM}'}}", recommendation)


def amended(text: str, recommendation: Recommendation | None = None) -> list[tuple[Fate, str]]:
    return [(each.fate, each.reason) for each in written(text, recommendation).amendments]


def test_the_short_form_has_no_place_for_a_cpu_reservation():
    text = "services: {a: {image: x, mem_limit: 512m}}"
    assert written(text, P95).text == "services: {a: {image: x, mem_limit: 954M, mem_reservation: 954M}}"
    (_, (fate, reason)) = amended(text, P95)
    assert fate is Fate.NO_PLACE
    assert "there is no key for it beside mem_limit" in reason
    with_block = "services: {a: {mem_limit: 1g, deploy: {resources: {reservations: {memory: 1g}}}}}"
    assert amended(with_block, P95) == [(Fate.CHANGED, "")]


@pytest.mark.parametrize(
    ("today", "after"),
    [
        # Beside a block of limits a short key would have to say the same, also where the block says nothing of it.
        (
            "mem_limit: 1g, deploy: {resources: {reservations: {devices: []}}}",
            "mem_limit: 954M, deploy: {resources: {reservations: {devices: [], cpus: '2.00', memory: 954M}}}, "
            "cpus: '2.00'",
        ),
        (
            "mem_limit: 1g, deploy: {resources: {limits: {pids: 9}}}",
            "mem_limit: 954M, deploy: {resources: {limits: {pids: 9, cpus: '2.00', memory: 954M}, "
            "reservations: {cpus: '2.00', memory: 954M}}}",
        ),
        ("pids_limit: 9", "pids_limit: 9, cpus: '2.00', mem_reservation: 954M, mem_limit: 954M"),
        (
            "mem_reservation: 1g, deploy: {resources: {limits: {pids: 9}}}",
            "mem_reservation: 954M, deploy: {resources: {limits: {pids: 9, cpus: '2.00', memory: 954M}}}",
        ),
    ],
)
def test_compose_has_each_amount_in_the_form_that_is_there(today, after):
    becomes(f"services: {{a: {{{today}}}}}", f"services: {{a: {{{after}}}}}".replace("'", '"'))


@pytest.mark.parametrize(
    ("base", "own", "after"),
    [
        (
            "mem_limit: 100m",
            "deploy: {resources: {reservations: {cpus: '0.1'}}}",
            "deploy: {resources: {reservations: {cpus: '0.1', memory: 954M}}}, mem_limit: 954M",
        ),
        (
            "deploy: {resources: {limits: {memory: 100m}}}",
            "mem_reservation: 50m",
            "mem_reservation: 954M, deploy: {resources: {limits: {memory: 954M}}}",
        ),
        (
            "mem_limit: 1g, deploy: {resources: {limits: {memory: 1g}}}",
            "image: x",
            "image: x, deploy: {resources: {reservations: {memory: 954M}, limits: {memory: 954M}}}, mem_limit: 954M",
        ),
    ],
)
def test_compose_forms_that_are_taken_over_count(base, own, after):
    text = "services: {{base: {{{}}}, a: {{extends: base, {}}}}}"
    becomes(text.format(base, own), text.format(base, after), advice(Resources(None, GB)), "a")


@pytest.mark.parametrize(
    ("today", "after"),
    [
        ("mem_limit: 100m, memswap_limit: 200m", "mem_limit: 954M, memswap_limit: 1054M, mem_reservation: 954M"),
        ("mem_limit: 4g, memswap_limit: 4g", "mem_limit: 954M, memswap_limit: 954M, mem_reservation: 954M"),
        ("mem_limit: 4g, memswap_limit: -1", "mem_limit: 954M, memswap_limit: -1, mem_reservation: 954M"),
        ("memswap_limit: 100m, mem_limit: 0", "memswap_limit: 954M, mem_limit: 954M, mem_reservation: 954M"),
        (
            "memswap_limit: 2g, deploy: {resources: {limits: {memory: 1g}}}",
            "memswap_limit: 1978M, deploy: {resources: {limits: {memory: 954M}, reservations: {memory: 954M}}}",
        ),
    ],
)
def test_compose_services_may_swap_as_much_as_before(today, after):
    becomes(f"services: {{a: {{{today}}}}}", f"services: {{a: {{{after}}}}}", advice(Resources(None, GB)))


def test_compose_swap_that_is_taken_over_or_a_variable():
    memory = advice(Resources(None, GB))
    text = "services: {{b: {{mem_limit: 4g, memswap_limit: 4g}}, a: {{extends: b{}}}}}"
    added = ", mem_reservation: 954M, mem_limit: 954M, memswap_limit: 954M"
    becomes(text.format(""), text.format(added), memory, "a")
    variable = "services: {a: {mem_limit: 4g, memswap_limit: '${SWAP}'}}"
    assert "memswap_limit is a variable" in left(variable, memory)
    assert written(variable, memory).text == variable


def test_compose_cpu_quota_is_a_limit():
    text = "services: {a: {cpu_quota: 50000, deploy: {resources: {limits: {memory: 1g}}}}}"
    assert "above the limit of 0.50" in left(text, P95)
    assert left(text) == "cpu: beside cpu_quota and cpu_period the engine takes no other limit: use cpus"
    assert 'cpus: "2.00"' in written(text.replace("50000", "100000, cpu_period: 50000"), P95).text
    assert 'cpus: "2.00"' in written(text.replace("50000", "-1")).text


SHM = advice(Resources(), Resources(), dev_shm_bytes=99 * 2**20)


def test_shared_memory_has_no_place_elsewhere():
    reason = "/dev/shm should have 112Mi: mount an emptyDir of medium Memory there"
    assert amended(POD, SHM) == [(Fate.NO_PLACE, reason)]
    assert amended(POD + "    volumeMounts: [{name: v, mountPath: /dev/shm}]\n", SHM) == [(Fate.UNCHANGED, "")]
    assert amended("operators: [{name: a}]", SHM) == [(Fate.NO_PLACE, "/dev/shm should have 112Mi")]
    assert amended(POD, advice(Resources(), Resources(), dev_shm_bytes=2**20)) == [(Fate.UNCHANGED, "")]


def test_compose_shared_memory_that_is_taken_over_is_not_lowered():
    text = "services: {b: {shm_size: 1g}, a: {extends: b}}"
    assert written(text, SHM, "a").text == text


def test_who_extends_a_service_keeps_what_applies_to_it():
    memory = advice(Resources(None, GB))
    text = "services: {{c: {{extends: base{}}}, base: {{mem_limit: 4g}}, d: {{image: x}}}}"
    done = written(text.format(""), memory, "base", "d")
    assert [(each.name, each.fate) for each in done.amendments] == [("base", Fate.LEFT), ("d", Fate.CHANGED)]
    assert done.amendments[0].reason == "it is extended by c, and what applies there would change too"
    assert "base: {mem_limit: 4g}" in done.text
    # Who has its own amounts, or gets them in the same go, is in nobody's way.
    for names, own in (("base", ", mem_limit: 1g, mem_reservation: 1g"), ("base c", ""), ("c base", "")):
        done = written(text.format(own), memory, *names.split())
        assert {each.fate for each in done.amendments} == {Fate.CHANGED}
    # Also where something else keeps all of them from being tried together.
    more = text.format("").replace("image: x}", "extends: e}, e: {mem_limit: 1g}")
    done = written(more, memory, "e", "c", "base")
    assert [(each.name, each.fate) for each in done.amendments] == [
        ("e", Fate.LEFT), ("c", Fate.CHANGED), ("base", Fate.CHANGED),
    ]  # fmt: skip


def test_who_extends_a_service_does_not_get_a_second_form():
    text = "services: {a: {image: x}, b: {extends: a, mem_limit: 1g}}"
    done = written(text, advice(Resources(None, GB)))
    assert done.text == "services: {a: {image: x}, b: {extends: a, mem_limit: 954M, mem_reservation: 954M}}"
    assert [each.fate for each in done.amendments] == [Fate.LEFT, Fate.CHANGED]


def test_a_service_that_is_extended_over_two_steps():
    text = "services: {a: {mem_limit: 1g}, b: {extends: a}, c: {extends: b}}"
    done = written(text, advice(Resources(None, GB)), "a", "b")
    assert [(each.name, each.fate) for each in done.amendments] == [("a", Fate.LEFT), ("b", Fate.LEFT)]
    more = text.replace("c: {extends: b", "c: {extends: b, mem_limit: 2g, mem_reservation: 2g")
    assert {each.fate for each in written(more, advice(Resources(None, GB)), "a", "b").amendments} == {Fate.CHANGED}


def test_one_that_cannot_be_changed_does_not_make_many_tries(monkeypatch):
    tries = []
    monkeypatch.setattr(writeback, "parsed", lambda source: tries.append(1) or parsed(source))
    many = "".join(f"  s{i}: {{mem_limit: 1g}}\n" for i in range(64))
    text = f"services:\n{many}  c: {{extends: base}}\n  base: {{mem_limit: 1g}}\n"
    done = written(text, advice(Resources(None, GB)), *(f"s{i}" for i in range(64)), "base")
    assert [each.name for each in done.amendments if each.fate is Fate.LEFT] == ["base"]
    assert done.text.count("mem_limit: 954M") == 64
    assert len(tries) < 20


# ---------------------------------------------------------------- aliases and merge keys


def test_a_merged_value_becomes_an_own_one_with_all_beside_it():
    becomes(
        """
        x-gpu: &gpu
          deploy:
            resources:
              limits: {memory: 1g, pids: 10}
              reservations:
                devices: [{capabilities: [gpu]}]
            labels:
              - "a: b"
              - {c: d}
        services:
          a:
            <<: *gpu
            image: x
          b: {<<: *gpu}
        """,
        """
        x-gpu: &gpu
          deploy:
            resources:
              limits: {memory: 1g, pids: 10}
              reservations:
                devices: [{capabilities: [gpu]}]
            labels:
              - "a: b"
              - {c: d}
        services:
          a:
            <<: *gpu
            image: x
            deploy:
              resources:
                limits:
                  memory: 954M
                  pids: 10
                reservations:
                  devices: [{capabilities: [gpu]}]
                  memory: 954M
              labels:
                - "a: b"
                - c: d
          b: {<<: *gpu}
        """,
        advice(Resources(None, GB)),
        "a",
    )


def test_an_alias_becomes_an_own_value():
    becomes(
        """
        x: {m: &m 1g, r: &r {limits: {memory: *m}}}
        services:
          a:
            deploy: {resources: *r}
          b:
            deploy:
              resources: *r  # shared
          c: {mem_limit: *m}
        """,
        """
        x: {m: &m 1g, r: &r {limits: {memory: *m}}}
        services:
          a:
            deploy: {resources: {limits: {memory: 954M}, reservations: {memory: 954M}}}
          b:
            deploy:
              resources: # shared
                limits:
                  memory: 954M
                reservations:
                  memory: 954M
          c: {mem_limit: 954M, mem_reservation: 954M}
        """,
        advice(Resources(None, GB)),
    )


def test_what_others_take_over_is_left_unless_they_have_their_own():
    text = """
        services:
          a: &a
            mem_limit: 1g
          b:
            <<: *a
            image: x
          c: {mem_limit: 2g}
        """
    memory = advice(Resources(None, GB))
    done = written(text, memory, "a", "c")
    assert [(each.name, each.fate) for each in done.amendments] == [("a", Fate.LEFT), ("c", Fate.CHANGED)]
    assert "other parts of the file" in done.amendments[0].reason
    assert "mem_limit: 1g" in done.text
    assert "c: {mem_limit: 954M, mem_reservation: 954M}" in done.text
    # With b in the run as well it has values of its own, and a may change.
    assert [each.fate for each in written(text, memory, "a", "b").amendments] == [Fate.CHANGED, Fate.CHANGED]


def test_what_is_shared_keeps_nobody_else_from_changing():
    services = "".join(f"  s{i}: {{<<: *a, mem_limit: 2g}}\n" for i in range(20))
    text = f"services:\n  a: &a\n    mem_limit: 1g\n  b: *a\n{services}"
    done = written(text, advice(Resources(None, GB)))
    assert [each.name for each in done.amendments if each.fate is Fate.LEFT] == ["a", "b"]
    assert done.text.count("954M") == 40


def test_a_tag_is_not_copied():
    text = "x: &x {deploy: {resources: {limits: {memory: !!str 1g}}, mode: !!str global}}\nservices: {a: {<<: *x}}\n"
    assert "has a tag" in left(text)


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{mem_limit: 1g}", "{mem_limit: 954M, mem_reservation: 954M}"),
        ("{mem_limit: 1g, }", "{mem_limit: 954M, mem_reservation: 954M, }"),
        ("{mem_limit: 1g,image: x}", "{mem_limit: 954M,image: x,mem_reservation: 954M}"),
        ("{\n   mem_limit: 1g # now\n  }", "{\n   mem_limit: 954M,\n   mem_reservation: 954M # now\n  }"),
        ("{ mem_limit : 1g }", "{ mem_limit : 954M, mem_reservation: 954M }"),
        ("\n   mem_limit: !!str '1g'", "\n   mem_limit: !!str '954M'\n   mem_reservation: 954M"),
        ("\n   mem_limit: &m 1g\n\n", "\n   mem_limit: &m 954M\n   mem_reservation: 954M\n\n"),
        (
            "\n   mem_limit: 1g\n   x: |\n    t\n\n\n",
            "\n   mem_limit: 954M\n   x: |\n    t\n   mem_reservation: 954M\n\n\n",
        ),
        (
            "\n   mem_limit: 1g\n   x: |+\n    t\n\n",
            "\n   mem_limit: 954M\n   x: |+\n    t\n\n   mem_reservation: 954M\n",
        ),
        ("\n   mem_limit: 1g\n   x: |\n    t", "\n   mem_limit: 954M\n   mem_reservation: 954M\n   x: |\n    t"),
        ("\n   mem_limit: 1g\n   x: a\n     b\n", "\n   mem_limit: 954M\n   x: a\n     b\n   mem_reservation: 954M\n"),
        (
            "\n   mem_limit: 1g\n   x:\n   - b # c\n",
            "\n   mem_limit: 954M\n   x:\n   - b # c\n   mem_reservation: 954M\n",
        ),
        ("\n   mem_limit: 1g\n   x:\n", "\n   mem_limit: 954M\n   x:\n   mem_reservation: 954M\n"),
    ],
)
@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_styles(before, after, line_break):
    text, wanted = (f"services:\n a: {each}".replace("\n", line_break) for each in (before, after))
    source = source_of(text.encode(), "f")
    assert write_back(source, [Advised(("a",), advice(Resources(None, GB)))]).text == wanted


def test_the_indentation_of_the_file_is_used():
    memory = advice(Resources(None, GB), Resources())
    becomes(
        """
        services:
            a:
                image: x
        """,
        """
        services:
            a:
                image: x
                deploy:
                    resources:
                        reservations:
                            memory: 954M
        """,
        memory,
    )


def test_before_the_first_key_where_nothing_can_follow():
    becomes(
        "services:\n  a: &a # c\n    command: |\n      true",
        "services:\n  a: &a # c\n    deploy:\n      resources:\n        reservations:\n          memory: 954M\n"
        "    command: |\n      true",
        advice(Resources(None, GB), Resources()),
    )


def test_json_stays_json():
    becomes(
        '{\n\t"apiVersion": "v1", "kind": "Pod",\n\t"spec": {\n\t\t"containers": [\n\t\t\t{\n\t\t\t\t"name": "a"\n'
        "\t\t\t}\n\t\t]\n\t}\n}\n",
        '{\n\t"apiVersion": "v1", "kind": "Pod",\n\t"spec": {\n\t\t"containers": [\n\t\t\t{\n\t\t\t\t"name": "a",\n'
        '\t\t\t\t"resources": {\n\t\t\t\t\t"requests": {\n\t\t\t\t\t\t"memory": "960Mi"\n\t\t\t\t\t}\n\t\t\t\t}\n'
        "\t\t\t}\n\t\t]\n\t}\n}\n",
        advice(Resources(None, GB), Resources()),
    )
    becomes('{"operators":[{"name":"a"}]}', '{"operators":[{"name":"a","requests":{"cpu":2,"memory":1000}}]}')
    becomes('{"services": {"a": {"image": "x"}}}',
            '{"services": {"a": {"image": "x", "deploy": {"resources": {"reservations": {"cpus": "2.00"}}}}}}',
            advice(Resources(2000), Resources()))  # fmt: skip


@pytest.mark.parametrize(
    ("amounts", "after"),
    [
        ('{"cpu": 2, "memory": 1073741824}', '{"cpu": 1, "memory": "960Mi"}'),
        ('{"cpu": "2", "memory": "1Gi"}', '{"cpu": "1", "memory": "960Mi"}'),
        ('{"cpu":0.5,"memory":1}', '{"cpu":1,"memory":"960Mi"}'),
    ],
)
def test_a_number_in_json_becomes_a_text_where_it_must(amounts, after):
    text = '{"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "a", "resources": {"requests": %s}}]}}'
    done = written(text % amounts, advice(Resources(1000, GB), Resources())).text
    assert done == text % after
    assert is_json(done)


def test_compose_numbers_in_json():
    memory = advice(Resources(1500, GB), Resources(1500, GB))
    becomes('{"services": {"a": {"mem_limit": 100, "cpus": 1}}}',
            '{"services": {"a": {"mem_limit": "954M", "cpus": 1.50, "mem_reservation": "954M"}}}', memory)  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("memory: !!int 1073741824", ""),
        ("memory: !!int '1073741824'", ""),
        ("memory: !!float 1e9", ""),
        ("cpu: !!int 1", "cpu: !!int 2"),
        ("cpu: !!float 0.5", "cpu: !!float 2"),
        ("memory: !!str 1Gi", "memory: !!str 960Mi"),
        ("memory: !override 1Gi", "memory: !override 960Mi"),
    ],
)
def test_a_tag_has_to_fit_what_is_written(old, new):
    text = POD + f"    resources: {{requests: {{{old}}}}}\n"
    request = Resources(2000, None) if "cpu" in old else Resources(None, GB)
    done = written(text, advice(request, Resources()))
    assert done.text == (text.replace(old, new) if new else text)
    if not new:
        assert "its tag !!" in done.amendments[0].reason


def test_a_number_of_cores_that_is_none_by_its_tag():
    text = POD + "    resources: {requests: {cpu: !!int 1}}\n"
    assert left(text, advice(Resources(1500), Resources())) == "its tag !!int does not allow 1500m: remove the tag"


def test_a_comment_in_empty_braces_is_not_lost():
    for text in (POD + "    resources: {\n      # nothing\n    }\n", "services: {a: {\n # nothing\n }}"):
        assert left(text) == "a comment stands in its empty braces: move it out of them"
        assert written(text).text == text


def test_a_key_in_braces_without_a_colon_is_left():
    block = "services: {a: {image: x, deploy: {resources: {limits: {memory}}}}}"
    for text in ("services: {a: {image: x, deploy, command: x}}", block):
        assert "is written without a colon" in left(text, advice(Resources(None, GB)))
        assert written(text).text == text


def test_compact_braces_of_yaml():
    pod = 'apiVersion: v1\nkind: Pod\nspec: {"containers":[{"name":a, "resources":{"requests":{"cpu":1}}}]}\n'
    done = written(pod)
    assert '{"requests":{"cpu":2,memory: 960Mi},limits: {cpu: 2, memory: 960Mi}}' in done.text


def test_the_indentation_of_the_neighbours_is_used():
    pod(
        """\
        securityContext:
          runAsUser: 1
        resources:
            limits:
                memory: 1Gi
        """,
        """\
        securityContext:
          runAsUser: 1
        resources:
            limits:
                memory: 960Mi
            requests:
                memory: 960Mi
        """,
        advice(Resources(None, GB)),
    )


def test_tabs_between_things():
    becomes(
        "services:\t\n  a:\t# one\n    mem_limit:\t1g\t# two\n    image: x\ty\t\n",
        "services:\t\n  a:\t# one\n    mem_limit:\t954M\t# two\n    image: x\ty\t\n    mem_reservation: 954M\n",
        advice(Resources(None, GB)),
    )


@pytest.mark.parametrize(
    ("mark", "encoding"), [(b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")]
)
def test_marks_and_encodings_are_kept(mark, encoding):
    source = source_of(mark + "services: {é: {mem_limit: 1g}}".encode(encoding), "f")
    done = write_back(source, [Advised(("-",), advice(Resources(None, GB), Resources(None, GB)))])
    expected = "services: {é: {mem_limit: 954M, mem_reservation: 954M}}"
    assert source.bytes_of(done.text) == mark + expected.encode(encoding)


def test_only_the_document_meant_changes():
    other = "---\n# a comment\nkind: ConfigMap\napiVersion: v1\ndata: {memory: 1Gi}\n...\n"
    done = written(f"{POD}{other}---\n{POD.replace('name: a', 'name: b')}", None, "b")
    assert done.text == f"{POD}{other}---\n{POD.replace('name: a', 'name: b')}{textwrap.indent(WHOLE, '    ')}"


# ---------------------------------------------------------------- what is told


def test_every_operator_is_told_of():
    refused = Recommendation("peak", Advice.REFUSED, reasons=("the operator failed",))
    source = source_of(b"services: {a: {mem_limit: 1g, mem_reservation: 1g}}", "f")
    done = write_back(
        source,
        [
            Advised(("x", "a"), advice(Resources(None, GB))),
            Advised(("b",), refused),
            Advised(("c",), advice()),
        ],
    )
    changes = (Change("mem_reservation", "1g", "954M"), Change("mem_limit", "1g", "954M"))
    assert [(each.name, each.fate, each.changes, each.reason) for each in done.amendments] == [
        ("a", Fate.CHANGED, changes, ""),
        ("b", Fate.REFUSED, (), "the operator failed"),
        ("c", Fate.ABSENT, (), ""),
    ]
    assert [each.in_file for each in done.amendments] == [True, True, False]


def test_what_did_not_hold_is_not_written():
    text = "services: {a: {mem_limit: 1g}, b: {mem_limit: 1g}}"
    broken = advice(Resources(None, GB), verified=Verdict.BROKEN)
    source = source_of(text.encode(), "f")
    done = write_back(source, [Advised(("a",), broken), Advised(("b",), advice(verified=Verdict.SLOW))])
    assert [(each.name, each.fate, each.reason) for each in done.amendments if each.fate is not Fate.CHANGED] == [
        ("a", Fate.LEFT, "what is recommended did not hold when it was tried")
    ]
    assert "a: {mem_limit: 1g}, b: {mem_limit: 954M" in done.text


def test_a_service_of_clara_is_not_an_operator_of_its_name():
    source = source_of(b"operators: [{name: a}, {name: s}]", "f")
    done = write_back(source, [Advised(("a__s", "s"), advice())])
    assert done.text == source.text
    assert [each.fate for each in done.amendments] == [Fate.ABSENT]
    source = source_of(b"services: {a: {image: x}, s: {image: x}}", "f")
    assert [each.name for each in write_back(source, [Advised(("a__s", "s"), advice())]).amendments] == ["s"]
