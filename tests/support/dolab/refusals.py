"""How the API refuses."""


class ApiError(Exception):
    """A refusal, as the API words it."""

    def __init__(self, status: int, ident: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.ident = ident
        self.message = message


def missing() -> ApiError:
    return ApiError(404, "not_found", "The resource you were accessing could not be found.")


def wrong(message: str) -> ApiError:
    return ApiError(422, "unprocessable_entity", message)
