"""Container names and ids: random "adjective_surname" names as docker's, and the rule for given ones."""

from __future__ import annotations

import re
import secrets
from typing import Final

from agent.errors import invalid

PATTERN: Final = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_ADJECTIVES: Final = (
    "agile amber ample brave breezy bright brisk bubbly calm candid careful cheerful clever cosy"
    " crisp curious daring dapper deft eager earnest easy epic exact fair famous fearless festive"
    " fond frank fresh friendly frosty gallant gentle gifted glad golden graceful grand happy hardy"
    " honest hopeful humble jolly jovial keen kind lively loyal lucid lucky mellow merry mighty"
    " modest neat nifty nimble noble patient placid playful plucky polite proud quick quiet quirky"
    " radiant rapid ready relaxed rosy rustic serene sharp shiny silent sleek smooth snappy sober"
    " solid spry steady stoic strong sturdy subtle sunny swift tender tidy trusty upbeat vivid warm"
    " wise witty zesty"
)
_SURNAMES: Final = (
    "abel agnesi allen alvarez anning babbage backus banach bardeen bartik bell berners bernoulli"
    " bohr boole bose brahe brattain cantor carson cerf chandra church clarke codd cori curie darwin"
    " davinci dijkstra dirac easley edison einstein elion engelbart erdos euclid euler faraday fermat"
    " fermi feynman floyd franklin galileo galois gauss germain gibbs goedel goldberg goodall hamilton"
    " hawking heisenberg herschel hertz hilbert hoare hodgkin hopper hubble hypatia jang jennings"
    " johnson joliot kalam kapitsa keller kepler khayyam kilby knuth kovalevsky lagrange lalande"
    " lamarr lamport laplace leavitt leibniz lichterman liskov lovelace lumiere maxwell mayer mccarthy"
    " meitner mendel mirzakhani moore morse moser napier nash neumann newton nightingale nobel noether"
    " northcutt pascal pasteur payne perlman pike planck poincare ptolemy raman ramanujan ride ritchie"
    " roentgen rubin sagan sammet shannon shaw shockley sinoussi snyder spence stallman swanson tesla"
    " thompson torvalds turing varahamihira volta wescoff wiles wilson wing wozniak wright yalow yonath"
)
ADJECTIVES: Final = tuple(_ADJECTIVES.split())
SURNAMES: Final = tuple(_SURNAMES.split())


def valid(name: str) -> str:
    """The name without its optional slash.  INVALID with docker's text."""
    if not PATTERN.fullmatch(name) or len(name) > 255:
        raise invalid(
            f"Invalid container name ({name:.300}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    return name.removeprefix("/")


def random_name(attempt: int) -> str:
    """A new name; from the second attempt on with a digit behind, as docker does."""
    name = f"{secrets.choice(ADJECTIVES)}_{secrets.choice(SURNAMES)}"
    return name if attempt == 0 else f"{name}{secrets.randbelow(10 ** min(attempt, 9))}"


def random_id() -> str:
    """64 hex digits; never 12 decimal ones at the front (a host name must not look like a number)."""
    while True:
        identity = secrets.token_hex(32)
        if not identity[:12].isdigit():
            return identity
