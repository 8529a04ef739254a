"""The lab: real SSH hosts and a real registry, made from Debian packages on one Linux computer.

By hand: `python -m tests.lab up|list|ssh|exec|stop|start|down`. From tests: the fixtures of
`tests.lab.fixtures`. Needs root. This file stays empty of imports: supervisors run it with
`python -S`, once per host, and every import would cost each of them.
"""
