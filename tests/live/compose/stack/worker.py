"""The queue's worker: measures words and writes them down."""

import os

from wire import Postgres, Redis  # type: ignore[import-not-found]

redis, tables = Redis(os.environ["REDIS"]), Postgres(os.environ["POSTGRES"])
print("waiting", flush=True)
while True:
    found = redis("BLPOP", "jobs", "10")
    if not isinstance(found, list):
        continue
    word = str(found[1])
    quoted = word.replace("'", "''")
    name = os.uname().nodename
    tables.rows(f"INSERT INTO done VALUES ('{quoted}', {len(word)}, '{name}')")
    print("did", word, flush=True)
