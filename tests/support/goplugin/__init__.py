"""The other side of docker-machine's plugin protocol: in Python (standin.py) and in Go (standin/).

`vectors/` prints what the real encoding/gob and net/rpc write, for the tests of our codec;
`program.py` builds the Go program with Debian's compiler.
"""
