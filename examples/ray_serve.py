"""The server on many machines: Ray Serve's replicas over one state directory.

python examples/ray_serve.py [MODEL [STATES [PORT]]]

STATES is a folder that all machines see. A session lies there after every request, so any replica
goes on with it, and one that dies takes nothing along. On an open network: a key (GRIFFIN_API_KEY).
"""

import os
import sys
from pathlib import Path

from ray import serve
from starlette.datastructures import MutableHeaders

import griffin_lm as griffin
from griffin_lm.server.app import create_app
from griffin_lm.server.service import Service
from griffin_lm.server.settings import Settings

AT_ONCE, WAITING = 8, 64  # requests of a replica


def application(model: str, states: Path, keys: tuple[str, ...] = (), replicas: int = 2):
    """What `serve.run` takes."""
    settings = Settings(
        api_keys=keys, state_dir=states.resolve(), max_sessions=AT_ONCE, max_queue=WAITING
    )

    def app():  # in a replica: a process of its own, maybe on another machine
        server = create_app(Service(griffin.load(model), model, settings))
        name = serve.get_replica_context().replica_id.unique_id

        async def named(scope, receive, send):  # every answer says who gave it

            async def signed(message):
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message)["x-replica"] = name
                await send(message)

            await server(scope, receive, signed)

        return named

    options = {"num_replicas": replicas, "max_ongoing_requests": AT_ONCE + WAITING}
    return serve.deployment(serve.ingress(app)()).options(**options).bind()


if __name__ == "__main__":
    model, states, port, *_ = *sys.argv[1:], *("fledgling", "states", "8000")[len(sys.argv) - 1 :]
    key = os.environ.get("GRIFFIN_API_KEY")
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run(application(model, Path(states), (key,) if key else ()), blocking=True)
