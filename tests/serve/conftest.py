"""A server in this process around a small pointwise model."""

import pytest

from dearlite.models.chain import resolve
from dearlite.serve.models import Models, serve_model

BASE = "http://localhost"


@pytest.fixture(scope="session")
def tiny(tiny_bundle):
    """The small model as a served one."""
    return serve_model(resolve(tiny_bundle), {"threads": 1})


@pytest.fixture(scope="session")
def make_client():
    """Makes a client of a server of models."""
    pytest.importorskip("starlette", reason="starlette is not installed (extra serve)")
    pytest.importorskip("httpx2", reason="httpx2 is not installed (extra dev)")
    from starlette.testclient import TestClient

    from dearlite.serve.app import create_app

    return lambda models, **options: TestClient(create_app(Models(models), **options), base_url=BASE)


@pytest.fixture(scope="session")
def client(tiny, make_client):
    """A client of a server of the small model."""
    with make_client((tiny,)) as client:
        yield client


@pytest.fixture
def serve(tiny, make_client):
    """Makes a client of a server with other limits, access or models; its server ends with the test."""
    clients = []

    def make(*models, **options):
        client = make_client(models or (tiny,), **options)
        clients.append(client)
        return client.__enter__()

    yield make
    for client in clients:
        client.__exit__(None, None, None)
