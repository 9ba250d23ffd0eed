"""The store proves who it is before it gets a key or a trace, and its folder belongs to its user alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from stranger import NOBODY, stranger_on

from research_kit.errors import ConfigError, StoreError
from research_kit.private import open_private
from research_kit.store import StoreAddress, ensure_running, get_store_status, stop_store
from research_kit.store.reaching import ask_store, check_socket
from research_kit.store.transports import transport_to

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="another user is needed")

# A kernel as it goes on through a crash of the store; what it does is told line by line.
KERNEL = """
import asyncio, json, sys
import research_kit as rk
from langfuse import get_client
from research_kit.traces.defaults import open_reader
rk.bind("s-long")
with rk.trace_span("before"): pass
rk.flush()
held = open_reader()
reader = held.__enter__()
list(reader.list_observations())
get_client().api.health.health()
print("ready", flush=True)
sys.stdin.readline()
# Each of them was connected to the store that is gone.
STEPS = (
    lambda: list(reader.list_observations()),
    lambda: get_client().api.observations.get_many(limit=1),
    lambda: asyncio.run(get_client().async_api.observations.get_many(limit=1)),
    lambda: get_client().auth_check(),
)
def failures():
    errors = []
    for step in STEPS:
        try:
            step()
        except Exception as error:
            errors.append(type(error).__name__)
    return errors
errors = failures()
with rk.trace_span("after", metadata={"note": "secret work"}): pass
rk.score("fine", True, session_id="s-long")
is_sent = rk.flush(30)
names = sorted(rk.observations_df("s-long")["name"])
later_errors = failures()
told = {"is_sent": is_sent, "names": names, "status": str(rk.status())}
told |= {"errors": errors, "later_errors": later_errors}
print(json.dumps(told), flush=True)
"""
# What Windows lacks, for who looks for it as this package does; event loops go on with pairs of their own.
_WITHOUT_SOCKETS = """
import asyncio, psutil, socket
pair, family = socket.socketpair, socket.AF_UNIX
socket.socketpair = lambda *options: pair(*(options or [family]))
del socket.AF_UNIX
"""


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "data"
    monkeypatch.setenv("RESEARCH_KIT_DATA_DIR", str(folder))
    monkeypatch.setenv("RESEARCH_KIT_STORE_IDLE_MINUTES", "3")
    yield folder
    if folder.is_dir():
        stop_store(folder)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.02)


def crash(address: StoreAddress) -> int:
    """Kill the store as a crash does; return the port that is free now."""
    os.kill(address.pid, signal.SIGKILL)
    port = urlsplit(address.base_url).port or 0

    def is_free() -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    wait_until(is_free, "the killed store still listens")
    return port


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "research_kit.cli", *arguments], capture_output=True, text=True, timeout=120
    )


def give_to_nobody(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


# --- a stranger on the port


def test_stranger_on_the_port_receives_nothing_from_commands(data_dir: Path, tmp_path: Path) -> None:
    """After a crash no command sends a byte to whoever listens on the store's port."""
    first = ensure_running(data_dir)
    with stranger_on(crash(first), tmp_path) as stranger:
        for command in ("status", "store status", "store status --json", "doctor", "store stop", "deliver"):
            run_command(*command.split())
        second = ensure_running(data_dir)
        for command in ("store start", "store open", "store open s1", "status", "doctor"):
            assert "not running" not in run_command(*command.split()).stdout
        moved = run_command("status").stdout
    assert stranger.bytes == b""
    assert second.base_url != first.base_url
    assert (second.public_key, second.secret_key) == (first.public_key, first.secret_key)
    lines = [line for line in moved.splitlines() if "another program listens on port" in line]
    assert lines == [f"note: {second.notice}"]
    assert str(stranger.port) in second.notice


@pytest.mark.parametrize("has_sockets", [True, False])
def test_kernel_that_was_connected_sends_nothing_to_a_stranger(
    data_dir: Path, tmp_path: Path, has_sockets: bool
) -> None:
    """Delivery, readers and the SDK's clients go on with the new store, and with nobody else."""
    # Read at the start of the kernel and of the store's process.
    (tmp_path / "sitecustomize.py").write_text("" if has_sockets else _WITHOUT_SOCKETS)
    with subprocess.Popen(
        [sys.executable, "-c", KERNEL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as kernel:
        assert kernel.stdin is not None
        assert kernel.stdout is not None
        assert kernel.stdout.readline().strip() == "ready"
        note = json.loads((data_dir / "store-server.json").read_text())
        keys = json.loads((data_dir / "store-keys.json").read_text())
        address = StoreAddress(base_url=f"http://127.0.0.1:{note['port']}", pid=note["pid"], **keys)
        with stranger_on(crash(address), tmp_path) as stranger:
            said, _ = kernel.communicate("go on\n", timeout=120)
            heard = stranger.bytes
    told = json.loads(said)
    assert told["is_sent"]
    assert told["names"] == ["after", "before"]
    assert "another program listens on port" in told["status"]
    assert "token=" not in told["status"]
    assert (note["socket_path"] is not None) is has_sockets
    if has_sockets:
        assert heard == b""
        assert told["later_errors"] == [], "the socket of the new store is where the old one was"
    else:
        assert heard
    assert set(told["errors"] + told["later_errors"]) <= {"BackendError", "ConnectError"}
    requests = [line for line in heard.splitlines() if b"HTTP/1.1" in line]
    assert all(line.startswith(b"GET /internal/proof?nonce=") for line in requests)
    for secret in (keys["secret_key"], keys["public_key"], "uthorization", "secret work", "after"):
        assert secret.encode() not in heard


@contextmanager
def relay_to(port: int) -> Iterator[tuple[int, list[bytes]]]:
    """Hand on to ``port`` what comes, and note it: a program between client and store."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hand_on(source: socket.socket, target: socket.socket, *, is_noted: bool) -> None:
            with closing(target):
                while data := source.recv(65536):
                    if is_noted:
                        heard.append(data)
                    target.sendall(data)

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                server = socket.create_connection(("127.0.0.1", port))
                for ends, is_noted in (((client, server), True), ((server, client), False)):
                    threading.Thread(
                        target=hand_on, args=ends, kwargs={"is_noted": is_noted}, daemon=True
                    ).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], heard


def test_relay_learns_nothing(data_dir: Path) -> None:
    """A program that hands on the store's own proof gets no key and no trace: the proof names a port."""
    store = ensure_running(data_dir)
    port = urlsplit(store.base_url).port or 0
    direct = StoreAddress(
        base_url=store.base_url,
        public_key=store.public_key,
        secret_key=store.secret_key,
        project_id=store.project_id,
        pid=store.pid,
    )
    assert ask_store(direct, "/internal/status") is not None, "without a socket the proof is enough"
    with relay_to(port) as (relay_port, heard):
        relayed = StoreAddress(
            base_url=f"http://127.0.0.1:{relay_port}",
            public_key=store.public_key,
            secret_key=store.secret_key,
            project_id=store.project_id,
            pid=store.pid,
        )
        assert ask_store(relayed, "/internal/status") is None
        with (
            httpx.Client(
                transport=transport_to(relayed), auth=(store.public_key, store.secret_key)
            ) as client,
            pytest.raises(httpx.ConnectError, match="another program than the store"),
        ):
            client.post(f"{relayed.base_url}/api/public/otel/v1/traces", content=b"secret work")
        all_heard = b"".join(heard)
    assert all_heard.count(b"GET /internal/proof?nonce=") == 2
    for secret in (store.secret_key, store.public_key, "uthorization", "secret work"):
        assert secret.encode() not in all_heard


def test_keys_are_printed_to_who_asks_for_them(data_dir: Path) -> None:
    """For a client of another maker the pair is printed whole, which no other output does."""
    store = ensure_running(data_dir)
    told = json.loads(run_command("store", "status", "--json").stdout)
    assert (told["public_key"], told["secret_key"]) == (store.public_key, store.secret_key)
    assert store.secret_key not in run_command("store", "status").stdout


def test_proof_does_not_serve_as_another(data_dir: Path) -> None:
    """What anybody may ask for is neither a key nor a cookie, and answers to nonces only."""
    store = ensure_running(data_dir)
    for nonce in ("", "x", "0" * 63, "0" * 65, "A" * 64, "cookie 1-0"):
        assert httpx.get(f"{store.base_url}/internal/proof", params={"nonce": nonce}).status_code == 400
    proof = httpx.get(f"{store.base_url}/internal/proof", params={"nonce": "0" * 64}).json()["proof"]
    assert store.secret_key not in proof
    cookies = {f"research-kit-{store.project_id}": f"99999999999-{'0' * 16}.{proof}"}
    assert httpx.get(f"{store.base_url}/at-{'0' * 32}/", cookies=cookies).status_code == 401


@needs_root
def test_other_user_reaches_the_port_only(data_dir: Path, tmp_path: Path) -> None:
    """A second user can open neither the socket nor any file of the store."""
    store = ensure_running(data_dir)
    tmp_path.chmod(0o755)
    code = f"""
import os, socket
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
for name in os.environ["NAMES"].split(":"):
    try:
        open({str(data_dir)!r} + "/" + name)
        print("opened", name)
    except PermissionError:
        pass
try:
    socket.socket(socket.AF_UNIX).connect({str(store.socket_path)!r})
    print("connected")
except PermissionError:
    pass
"""
    names = ":".join(path.name for path in data_dir.iterdir())
    done = subprocess.run([sys.executable, "-c", code], env={"NAMES": names}, capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


# --- notes and sockets that are not the store's


@needs_root
def test_note_of_another_user_is_not_followed(data_dir: Path, tmp_path: Path) -> None:
    """A note that somebody else has laid out leads nowhere."""
    first = ensure_running(data_dir)
    stop_store(data_dir)
    with socket.create_server(("127.0.0.1", 0)) as trap:
        note = data_dir / "store-server.json"
        note.unlink()
        note.write_text(json.dumps({"pid": 1, "port": trap.getsockname()[1], "version": "0.1.0"}))
        give_to_nobody(note)
        with pytest.warns(UserWarning, match="store-server.json' is not used, because it belongs to another"):
            assert get_store_status(data_dir).is_running is False
        second = ensure_running(data_dir)
        trap.settimeout(0)
        with pytest.raises(BlockingIOError):
            trap.accept()
    assert second.secret_key == first.secret_key


def test_stale_note_of_a_dead_store_is_replaced(data_dir: Path) -> None:
    """A note and a socket file that a killed store has left keep the next one from nothing."""
    first = ensure_running(data_dir)
    crash(first)
    assert first.socket_path is not None
    assert first.socket_path.is_socket()
    assert get_store_status(data_dir).is_running is False
    second = ensure_running(data_dir)
    assert second.pid != first.pid
    assert second.notice == ""
    assert second.base_url == first.base_url


@needs_root
@pytest.mark.parametrize("is_foreign", ["socket", "folder", "open folder", "file"])
def test_socket_of_another_user_is_not_used(tmp_path: Path, is_foreign: str) -> None:
    """A socket is connected to only when it and its folder are the user's own."""
    folder = tmp_path / "place"
    folder.mkdir(mode=0o700)
    place = folder / "s"
    if is_foreign == "file":
        place.touch()
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(place))
        check_socket(place)
        listener.close()
    if is_foreign == "open folder":
        folder.chmod(0o770)
    elif is_foreign != "file":
        give_to_nobody(place if is_foreign == "socket" else folder)
    with pytest.raises(PermissionError, match="no socket of your own store"):
        check_socket(place)


def test_deleted_socket_comes_back(data_dir: Path) -> None:
    """A store whose socket somebody has cleared away ends, and the next one has a socket again."""
    first = ensure_running(data_dir)
    assert first.socket_path is not None
    first.socket_path.unlink()
    second = ensure_running(data_dir)
    assert second.pid != first.pid
    assert second.socket_path == first.socket_path
    assert second.base_url == first.base_url


def test_socket_of_a_deep_folder_is_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    """Where the path is too long for a socket, the user's private temporary folder has it."""
    short = Path(os.environ.get("TMPDIR", "/tmp")) / f"rk-{os.getpid()}"
    short.mkdir(mode=0o700)
    monkeypatch.setenv("TMPDIR", str(short))
    monkeypatch.setattr("tempfile.tempdir", None)
    deep = tmp_path.joinpath(*["a" * 40] * 4)
    try:
        address = ensure_running(deep)
        assert address.socket_path is not None
        assert address.socket_path.parent == short / f"research-kit-{os.getuid()}"
        assert stat.S_IMODE(address.socket_path.parent.stat().st_mode) == 0o700
        assert get_store_status(deep).is_running
    finally:
        stop_store(deep)
        subprocess.run(["rm", "-r", str(short)], check=True)


# --- folders and files


@needs_root
def test_folder_of_another_user_is_refused(data_dir: Path) -> None:
    """Traces do not go where somebody else is at home, and nothing there is used."""
    data_dir.mkdir()
    give_to_nobody(data_dir)
    data_dir.chmod(0o777)
    for use in (ensure_running, get_store_status, stop_store):
        with pytest.raises(ConfigError, match=r"belongs to another user \(nobody\).*RESEARCH_KIT_DATA_DIR"):
            use(data_dir)
    assert list(data_dir.iterdir()) == []
    assert "belongs to another user" in run_command("doctor").stdout
    os.chown(data_dir, 0, 0)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o750, 0o701])
def test_open_folder_is_closed(data_dir: Path, mode: int) -> None:
    """A folder of one's own that others can enter is closed to them, with a word on it."""
    data_dir.mkdir()
    data_dir.chmod(mode)
    with pytest.warns(UserWarning, match=f"was open to other users .mode {mode:o}."):
        get_store_status(data_dir)
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700


@needs_root
@pytest.mark.parametrize("name", ["store-keys.json", "store.db", "spool", "anything"])
def test_what_others_put_into_an_open_folder_is_set_aside(data_dir: Path, name: str) -> None:
    """Keys, traces and folders that another user has planted while the folder was open are not used."""
    data_dir.mkdir()
    data_dir.chmod(0o777)
    planted = data_dir / name
    if name == "spool":
        planted.mkdir()
    else:
        planted.write_text(json.dumps({"public_key": "pk", "secret_key": "known", "project_id": "local-0"}))
    planted.chmod(0o777)
    give_to_nobody(planted)
    with pytest.warns(UserWarning, match=f"{name}' is not used, because another user has put it there"):
        address = ensure_running(data_dir)
    assert address.secret_key != "known"
    assert [path.lstat().st_uid for path in data_dir.iterdir() if ".aside-" not in path.name].count(
        NOBODY
    ) == 0


def test_folder_that_all_share_is_refused(data_dir: Path) -> None:
    """A folder like /tmp is not taken away from the others."""
    data_dir.mkdir()
    data_dir.chmod(0o1777)
    with pytest.raises(ConfigError, match="a folder that all users share"):
        ensure_running(data_dir)
    data_dir.chmod(0o700)


@pytest.mark.parametrize("is_foreign", [False, pytest.param(True, marks=needs_root)], ids=["open", "foreign"])
def test_folder_that_others_can_replace_is_told(data_dir: Path, is_foreign: bool) -> None:
    """Who can write the folder above can swap this one, which the user should know."""
    data_dir.parent.chmod(0o755 if is_foreign else 0o777)
    if is_foreign:
        give_to_nobody(data_dir.parent)
    with pytest.warns(UserWarning, match="can replace the folder for the embedded store"):
        ensure_running(data_dir)
    os.chown(data_dir.parent, os.getuid(), os.getgid())
    data_dir.parent.chmod(0o700)


def test_link_of_ones_own_to_a_folder_is_followed(tmp_path: Path) -> None:
    """A data folder on another disk may be linked to; what it leads to is looked at."""
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir(mode=0o700)
    link.symlink_to(target)
    target.chmod(0o755)
    with pytest.warns(UserWarning, match="was open to other users"):
        get_store_status(link)
    assert stat.S_IMODE(target.stat().st_mode) == 0o700


@needs_root
def test_link_of_another_user_to_a_folder_is_refused(tmp_path: Path) -> None:
    """A link that somebody else has made may lead elsewhere tomorrow."""
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir(mode=0o700)
    link.symlink_to(target)
    give_to_nobody(link)
    with pytest.raises(ConfigError, match="a link that another user has made"):
        ensure_running(link)


def _plant_foreign_key(path: Path) -> None:
    give_to_nobody(path)


def _plant_readable_key(path: Path) -> None:
    path.chmod(0o644)


def _plant_writable_key(path: Path) -> None:
    path.chmod(0o602)


def _plant_linked_key(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _plant_second_name(path: Path) -> None:
    path.with_name("elsewhere").hardlink_to(path)


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize(
    "plant",
    [
        pytest.param(_plant_foreign_key, marks=needs_root),
        _plant_readable_key,
        _plant_writable_key,
        _plant_linked_key,
        _plant_second_name,
    ],
)
def test_key_that_others_may_know_is_replaced(
    data_dir: Path, plant: Callable[[Path], None], is_running: bool
) -> None:
    """A key file that is not the user's alone is not used; what was in it opens nothing any more."""
    before = ensure_running(data_dir)
    if not is_running:
        stop_store(data_dir)
    plant(data_dir / "store-keys.json")
    with pytest.warns(UserWarning, match=r"store-keys\.json' is not used, because .*A new key pair is made"):
        after = ensure_running(data_dir)
    assert after.secret_key != before.secret_key
    assert get_store_status(data_dir).secret_key == after.secret_key
    old = httpx.get(f"{after.base_url}/api/public/projects", auth=(before.public_key, before.secret_key))
    assert old.status_code == 401
    assert stat.S_IMODE((data_dir / "store-keys.json").lstat().st_mode) == 0o600
    if plant in (_plant_readable_key, _plant_writable_key):
        # What waits in the spool is found by the public key.
        assert (after.public_key, after.project_id) == (before.public_key, before.project_id)


def test_linked_log_is_not_followed(data_dir: Path, tmp_path: Path) -> None:
    """Nothing is appended to the file that a planted log leads to."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    data_dir.mkdir(mode=0o700)
    (data_dir / "store.log").symlink_to(victim)
    with pytest.warns(UserWarning, match="store.log' is not used, because it is a symbolic link"):
        ensure_running(data_dir)
    assert victim.read_text() == "mine"
    assert "serves" in (data_dir / "store.log").read_text()


@pytest.mark.parametrize("name", ["store.db", "store.db-wal"])
def test_linked_database_is_refused(data_dir: Path, tmp_path: Path, name: str) -> None:
    """A database is never begun anew in silence, nor written where a link leads."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    data_dir.mkdir(mode=0o700)
    (data_dir / name).symlink_to(victim)
    with pytest.raises(StoreError, match=r"as the store's database: it is a symbolic link"):
        ensure_running(data_dir)
    assert victim.read_bytes() == b""


@needs_root
def test_database_of_another_user_is_refused(data_dir: Path) -> None:
    """What somebody else could change is not read as one's own traces."""
    data_dir.mkdir(mode=0o700)
    (data_dir / "store.db").touch()
    give_to_nobody(data_dir / "store.db")
    with pytest.raises(StoreError, match=r"as the store's database: it belongs to another user"):
        ensure_running(data_dir)


def test_open_files_and_locks_are_closed(data_dir: Path) -> None:
    """Files of a release that left them readable are closed to others when the store is next used."""
    ensure_running(data_dir)
    stop_store(data_dir)
    names = ["store.log", "store-start.lock", "store-server.lock", "store.db", "store-server.json"]
    for name in names:
        (data_dir / name).chmod(0o666)
    ensure_running(data_dir)
    assert {stat.S_IMODE((data_dir / name).stat().st_mode) for name in names} == {0o600}


@needs_root
def test_lock_of_another_user_holds_nobody_up(data_dir: Path) -> None:
    """A lock file that somebody else has laid out, and holds, is set aside."""
    import fcntl

    data_dir.mkdir(mode=0o700)
    for name in ("store-start.lock", "store-server.lock"):
        (data_dir / name).touch()
        give_to_nobody(data_dir / name)
    with (data_dir / "store-start.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.warns(UserWarning, match="lock' is not used"):
            assert ensure_running(data_dir, timeout_s=30).pid


def test_everything_is_private_whatever_the_umask(tmp_path: Path) -> None:
    """With a umask that closes nothing, no other user can read or hold any file, nor enter any new folder."""
    data_dir = tmp_path / "new" / "deep" / "data"
    code = f"""
import os, pathlib
os.umask(0)
os.environ["RESEARCH_KIT_DATA_DIR"] = {str(data_dir)!r}
os.environ["RESEARCH_KIT_CACHE_DIR"] = {str(tmp_path / "new" / "cache")!r}
import research_kit as rk
rk.bind("s")
with rk.trace_span("work"): pass
assert rk.flush(30)
rk.observations_df("s")
"""
    try:
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
        modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in (tmp_path / "new").rglob("*")}
        assert data_dir / "store.db" in modes
        assert data_dir / "store-start.lock" in modes
        assert {path: oct(mode) for path, mode in modes.items() if mode & 0o077} == {}
    finally:
        stop_store(data_dir)


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "folder"])
def test_planted_spool_is_not_opened(tmp_path: Path, kind: str) -> None:
    """What stands in the place of a private file is refused, and never waited for."""
    place, other = tmp_path / "place", tmp_path / "other"
    other.write_text("mine")
    if kind == "link":
        place.symlink_to(other)
    elif kind == "second name":
        place.hardlink_to(other)
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    with pytest.raises(OSError, match=r"link|second name|no file|directory|Too many"):
        os.close(open_private(place, os.O_RDWR | os.O_CREAT))
    assert other.read_text() == "mine"


# --- what the port answers


def test_half_open_connections_do_not_stay(data_dir: Path) -> None:
    """A connection that sends no whole header is ended, and the others are served meanwhile."""
    store = ensure_running(data_dir)
    port = urlsplit(store.base_url).port
    opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    try:
        for number, connection in enumerate(opened):
            connection.settimeout(60)
            connection.sendall(b"GET /api/public/health HTTP/1.1\r\nHost: 127.0.0.1\r\n"[: number % 50])
        assert httpx.get(f"{store.base_url}/api/public/health").status_code == 200
        assert [connection.recv(1000)[:12] for connection in opened] == [b""] * len(opened)
    finally:
        for connection in opened:
            connection.close()


@pytest.mark.parametrize("path", ["/api/public/otel/v1/traces", "/api/public/scores", "/nowhere", "/"])
@pytest.mark.parametrize("length", ["Content-Length: 300000000", "Transfer-Encoding: chunked"])
def test_refusal_comes_before_the_body(data_dir: Path, path: str, length: str) -> None:
    """Without the key a long body is not taken in: the answer comes at once, and the connection ends."""
    store = ensure_running(data_dir)
    with socket.create_connection(("127.0.0.1", urlsplit(store.base_url).port), timeout=30) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{length}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith((b"HTTP/1.1 401", b"HTTP/1.1 404", b"HTTP/1.1 405"))
    assert b"connection: close" in answer.lower()
