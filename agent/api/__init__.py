"""The Engine API: routes, schema and handlers, written against `agent.api.backend`."""
