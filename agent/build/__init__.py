"""Dockerfile builds: parser, instructions, cache, context, stages, and `commit`.

`open_builder` is the composition entry; `agent.engine.building` is the contract.  Like the other
adapters this package knows ports, model, host and wire only.
"""
