"""A real JupyterHub with two users: each has a session, an identity, a store and links of their own."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from page_visits import PLACE
from websocket import create_connection

from research_kit.store import stop_store

DEADLINE_S = 120.0
USERS = ("ann", "bob")
# A cell of each user's own: observed, delivered, and what its kernel says of itself.
CELL = """
import json, research_kit as rk
from research_kit.session import kernel_session
%load_ext research_kit
with rk.trace_span("work of " + rk.current_user_id()): pass
assert rk.flush()
rk.wait_for(rk.current_session_id(), 1)
status = rk.status()
frame = rk.sessions_df()
print(json.dumps({"session": status.session_id, "user": status.user_id, "state": status.state,
    "users": list(frame["user_id"]),
    "address": status.session_url, "sessions": list(frame["session_id"]),
    "link": kernel_session().backend.opening_link(session_id=status.session_id)}))
"""


@dataclass
class Hub:
    """A running hub on the loopback interface."""

    url: str
    token: str
    folder: Path

    def api(self, method: str, path: str, **body: Any) -> httpx.Response:
        headers = {"Authorization": f"token {self.token}"}
        answer = httpx.request(
            method,
            f"{self.url}/hub/api{path}",
            headers=headers,
            json=body or None,
            timeout=DEADLINE_S,
        )
        answer.raise_for_status()
        return answer

    def user_token(self, user: str) -> str:
        return self.api("POST", f"/users/{user}/tokens", note="test").json()["token"]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def wait_until(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.3)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    port, proxy_port, hub_port = free_ports(3)
    token = secrets.token_hex(16)
    scripts = Path(sys.executable).parent
    (folder / "config.py").write_text(f"""
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.command = ["{scripts}/configurable-http-proxy"]
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "{folder}/home/{{username}}"
c.Spawner.cmd = ["{scripts}/jupyterhub-singleuser", "--allow-root"]
c.Spawner.http_timeout = c.Spawner.start_timeout = {int(DEADLINE_S)}
c.Spawner.environment = {{
    "PYTHONPATH": "{Path(__file__).parents[1]}",
    "JUPYTERHUB_SINGLEUSER_APP": "jupyter_server.serverapp.ServerApp",
}}
c.JupyterHub.services = [{{"name": "test", "api_token": "{token}", "admin": True}}]
c.JupyterHub.load_roles = [
    {{"name": "test", "scopes": ["admin:users", "admin:servers", "tokens"], "services": ["test"]}},
]
""")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "-f", "config.py"],
            cwd=folder,
            env={**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    found = Hub(url=f"http://127.0.0.1:{port}", token=token, folder=folder)

    def is_ready() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            return found.api("GET", "/").is_success
        except httpx.HTTPError:
            return False

    try:
        wait_until(is_ready, f"the hub did not start; see {folder / 'log'}")
        yield found
    finally:
        process.terminate()  # ends the users' servers and the proxy as well
        process.wait(DEADLINE_S)
        for user in USERS:
            stop_store(folder / "home" / user / ".local" / "share" / "research-kit")


def start_servers(hub: Hub) -> None:
    for user in USERS:
        hub.api("POST", f"/users/{user}")
        hub.api("POST", f"/users/{user}/server")
    for user in USERS:
        wait_until(
            lambda user=user: hub.api("GET", f"/users/{user}").json()["servers"].get("", {}).get("ready"),
            f"the server of {user} did not start",
        )


def run_cell(hub: Hub, user: str, token: str, code: str) -> dict[str, Any]:
    """Run a cell in a new kernel of a user, as a front end does, and return what it printed."""
    headers = {"Authorization": f"token {token}"}
    base = f"{hub.url}/user/{user}"
    kernel_id = httpx.post(f"{base}/api/kernels", headers=headers, timeout=DEADLINE_S).json()["id"]
    channel = create_connection(
        f"{base}/api/kernels/{kernel_id}/channels".replace("http", "ws", 1),
        header=[f"Authorization: token {token}"],
        timeout=DEADLINE_S,
    )
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": "s", "username": user}
    message = {
        "header": {**header, "version": "5.4"},
        "parent_header": {},
        "metadata": {},
        "content": content,
    }
    channel.send(json.dumps({**message, "channel": "shell", "buffers": []}))
    printed = ""
    while True:
        answer = json.loads(channel.recv())
        kind = answer["header"]["msg_type"]
        if kind == "stream":
            printed += answer["content"]["text"]
        if kind == "execute_reply":
            assert answer["content"]["status"] == "ok", answer["content"]
            break
    channel.close()
    httpx.delete(f"{base}/api/kernels/{kernel_id}", headers=headers, timeout=DEADLINE_S)
    return json.loads(printed)


def test_users_of_a_hub_are_apart(hub: Hub) -> None:
    """Sessions carry the hub's user, each user's store holds only theirs, and links lead through the hub."""
    start_servers(hub)
    tokens = {user: hub.user_token(user) for user in USERS}
    said = {user: run_cell(hub, user, tokens[user], CELL) for user in USERS}
    for user in USERS:
        assert said[user]["user"] == user
        assert said[user]["state"] == "local"
        assert said[user]["sessions"] == [said[user]["session"]]
        assert said[user]["users"] == [user]
        address, link = said[user]["address"], said[user]["link"]
        assert f"/user/{user}/proxy/" in address
        assert "token=" not in address
        assert link.startswith(f"{address}?token=")
        [other] = set(USERS) - {user}

        def get(token: str, path: str, **cookies: str) -> httpx.Response:
            headers = {"Authorization": f"token {token}"}
            with httpx.Client(headers=headers, cookies=cookies, timeout=DEADLINE_S) as client:
                return client.get(path if path.startswith("http") else hub.url + path, follow_redirects=True)

        assert get(tokens[other], link).status_code in (401, 403, 404)
        assert get(tokens[user], address).status_code == 401
        opened = get(tokens[user], link)  # exchanges the token in the link for a cookie
        found = PLACE.search(opened.text)
        assert found
        assert f"Path={found[1]}/;" in opened.headers["set-cookie"]
        assert f"/user/{user}/proxy/" in found[1]
        page = found[1] + "/project/" + address.partition("/project/")[2]
        name, _, value = opened.headers["set-cookie"].partition(";")[0].partition("=")
        assert f"work of {user}" in get(tokens[user], page, **{name: value}).text
        assert get(tokens[user], page).status_code == 401
        assert get(tokens[other], page, **{name: value}).status_code in (401, 403, 404)
