"""An emulator of DigitalOcean's API, version 2, written from its public reference.

    with DoLab() as lab:
        cloud = lab.account("token")      # an empty account
        lab.endpoint                      # "http://127.0.0.1:PORT/v2/"
        lab.faults.append(Fault("POST", "droplets", status=503))
        cloud.lag = Lag(listed=3)         # a new droplet is missing from three lists

Droplets are in memory, or lab hosts (`tests.support.dolab.hosts`).
"""

from tests.support.dolab.cloud import Cloud, Lag
from tests.support.dolab.refusals import ApiError
from tests.support.dolab.server import DoLab, Fault

__all__ = ["ApiError", "Cloud", "DoLab", "Fault", "Lag"]
