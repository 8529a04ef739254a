"""docker-machine's plugin binaries as drivers: `docker-machine-driver-NAME` on PATH runs as it is.

`finding` finds them, `driver` is the bridge to our contract, `session` and `child` hold the running
program, `rpc` speaks Go's net/rpc and `gob` its encoding. docs/drivers/plugins.md says what users
should know.
"""
