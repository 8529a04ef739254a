"""One module a family of endpoints; each handler is `(Api, Call) -> Answer`."""
