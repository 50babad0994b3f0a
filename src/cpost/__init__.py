"""cpost measures what each container of a pipeline really needs.

One noun, one meaning:

pipeline        the parsed definition
operator        one container of the pipeline
step            an operator made ready to run: mounts, environment, limits, time-out
plan            the ordered steps of one pipeline
run             the record of one whole execution of a pipeline (the verb is "measure")
sample          one reading of cumulative counters at one instant
series          the samples of one step
usage           statistics of a series
policy          a pure function from usage to a recommendation
recommendation  requests and limits, with the evidence for them
engine          the Docker daemon
meter           what reads one source of numbers (cgroup v1, v2 or hybrid)
"""

__version__ = "0.9.0"
