"""The same rule where people work: kernels, what they start, commands and notebook tests, on real servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from kernels import Kernel, end_kernel, start_kernel
from listening import Listener, listening

from research_kit.store import stop_store

MINE = "sk-lf-my-own-secret"
MY_MODEL_KEY = "sk-proj-my-own-model-key"
THEIRS = "sk-lf-known-to-the-file"
MY_KEYS = {"LANGFUSE_PUBLIC_KEY": "pk-lf-mine", "LANGFUSE_SECRET_KEY": MINE}
LOAD = "%load_ext research_kit\nimport research_kit as rk"
WORK = "with rk.trace_span('work-of-mine'):\n    pass\nprint(rk.flush(5))"
NOBODY = 65534


@pytest.fixture
def evil() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture
def mine() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder with a ``.env`` of these values."""

    def make(name: str = "project", **values: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(mode=0o755)
        path = folder / ".env"
        path.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
        path.chmod(0o600)
        return folder

    return make


@pytest.fixture
def new_kernel(tmp_path: Path) -> Iterator[Callable[..., Kernel]]:
    kernels: list[Kernel] = []

    def start(folder: Path, **environment: str) -> Kernel:
        kernels.append(start_kernel(environment, folder))
        return kernels[-1]

    yield start
    for kernel in kernels:
        end_kernel(kernel)
    stop_store(tmp_path / "data")


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "research_kit.cli", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_cloned_folder_gets_neither_keys_nor_traces(
    project: Callable[..., Path], new_kernel: Callable[..., Kernel], evil: Listener, mine: Listener
) -> None:
    """Keys of the environment and addresses of a cloned folder: one warning, nothing sent, nothing lost."""
    address = {"LANGFUSE_BASE_URL": evil.base_url, "RESEARCH_KIT_LM_BASE_URL": f"{evil.base_url}/v1"}
    folder = project(**address, RESEARCH_KIT_LM="openai/gpt-4o-mini")
    kernel = new_kernel(folder, **MY_KEYS, OPENAI_API_KEY=MY_MODEL_KEY)
    said = kernel.run(LOAD)
    assert said.count("UserWarning") == 1
    assert f"LANGFUSE_BASE_URL from '{folder / '.env'}'" in said
    assert "LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY from your environment" in said
    assert kernel.run(WORK) == "False\n"
    assert kernel.run("print(rk.status().state, '::', rk.status().reason)").startswith("buffering ::")
    refused = kernel.run(
        "from research_kit.agent import resolve_lm\n"
        "try:\n    resolve_lm().lm('hi')\nexcept ValueError as error:\n    print(error)"
    )
    assert "OPENAI_API_KEY from your environment are not used together" in refused
    # Langfuse's own functions have the client that was made here, which has no key.
    kernel.run("import langfuse\ntry:\n    langfuse.get_client().auth_check()\nexcept Exception:\n    pass")
    assert evil.requests == []
    assert kernel.run(f"import os\nos.environ['LANGFUSE_BASE_URL'] = {mine.base_url!r}\n{WORK}") == "True\n"
    assert mine.heard(f"pk-lf-mine:{MINE}")
    assert evil.requests == []


def test_keys_given_in_a_cell_do_not_go_to_the_files_address(
    project: Callable[..., Path], new_kernel: Callable[..., Kernel], evil: Listener
) -> None:
    """An address without keys waits for nobody's: keys from a cell go neither there nor to the cloud."""
    kernel = new_kernel(project(LANGFUSE_BASE_URL=evil.base_url))
    assert kernel.run(LOAD) == ""
    assert (
        kernel.run(f"import os\nos.environ.update({MY_KEYS!r})\nfrom langfuse import get_client\n{WORK}")
        == "False\n"
    )
    kernel.run("try:\n    get_client().auth_check()\nexcept Exception:\n    pass")
    assert kernel.run("print(rk.status().state)").strip() == "buffering"
    assert "not used together" in kernel.run("print(rk.status().reason)")
    assert "cloud.langfuse.com" not in kernel.run("print(os.environ)")
    assert evil.requests == []


def test_keys_changed_in_a_cell_do_not_follow_the_file(
    project: Callable[..., Path], new_kernel: Callable[..., Kernel], evil: Listener
) -> None:
    """Where a file has given keys and address, other keys from a cell do not reach its server."""
    folder = project(
        LANGFUSE_BASE_URL=evil.base_url, LANGFUSE_PUBLIC_KEY="pk-theirs", LANGFUSE_SECRET_KEY=THEIRS
    )
    kernel = new_kernel(folder)
    assert kernel.run(LOAD) == ""
    kernel.run(f"import os\nos.environ.update({MY_KEYS!r})\n{WORK}")
    kernel.run(
        "from langfuse import Langfuse\ntry:\n    Langfuse().auth_check()\nexcept Exception:\n    pass"
    )
    assert kernel.run("print(os.environ.get('LANGFUSE_BASE_URL'))") == "None\n"
    assert not evil.heard(MINE)


def test_keys_and_address_of_one_file_work_without_a_word(
    project: Callable[..., Path], new_kernel: Callable[..., Kernel], mine: Listener, evil: Listener
) -> None:
    """The documented way: two kernels, each with the file of its own folder, each reach their own server."""
    for name, server, secret in (("one", mine, "sk-lf-one"), ("two", evil, "sk-lf-two")):
        folder = project(
            name,
            LANGFUSE_PUBLIC_KEY=f"pk-lf-{name}",
            LANGFUSE_SECRET_KEY=secret,
            LANGFUSE_BASE_URL=server.base_url,
            RESEARCH_KIT_LM="served",
            RESEARCH_KIT_LM_BASE_URL=f"{server.base_url}/v1",
            RESEARCH_KIT_LM_API_KEY=f"key-{name}",
        )
        kernel = new_kernel(folder, OPENAI_API_KEY=MY_MODEL_KEY)
        assert kernel.run(LOAD) == ""
        assert kernel.run(WORK) == "True\n"
        kernel.run("from research_kit.agent import resolve_lm\nresolve_lm().lm('hi', cache=False)")
    assert mine.heard("pk-lf-one:sk-lf-one")
    assert mine.heard("Bearer key-one")
    assert not mine.heard("sk-lf-two")
    assert evil.heard("pk-lf-two:sk-lf-two")
    assert not evil.heard("one")
    assert not evil.heard(MY_MODEL_KEY)


_CHILD = f"""
import os, subprocess, sys
code = "import research_kit as rk; rk.bind()\\n" + {WORK!r}
subprocess.run([sys.executable, "-W", "ignore", "-c", code], env={{**os.environ, **OWN}}, cwd=CWD, check=True)
"""


@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["same folder", "another folder"])
@pytest.mark.parametrize("own", [MY_KEYS, {"LANGFUSE_SECRET_KEY": MINE}], ids=["both keys", "secret key"])
def test_child_process_does_not_mix(
    project: Callable[..., Path],
    evil: Listener,
    tmp_path: Path,
    is_elsewhere: bool,
    own: dict[str, str],
) -> None:
    """A child that inherits what a file has set, and gets the user's keys, sends nothing."""
    values = {"LANGFUSE_PUBLIC_KEY": "pk-theirs", "LANGFUSE_SECRET_KEY": THEIRS}
    folder = project(**values, LANGFUSE_BASE_URL=evil.base_url)
    child = _CHILD.replace("OWN", repr(own)).replace("CWD", repr(str(tmp_path if is_elsewhere else folder)))
    run = subprocess.run(
        [sys.executable, "-c", f"import research_kit as rk; rk.bind()\n{child}"],
        cwd=folder,
        # With half of the keys the child cannot trace at all, which would be an error otherwise.
        env={**os.environ, "RESEARCH_KIT_STRICT_TELEMETRY": "false"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert evil.requests == []


def test_notebook_run_does_not_mix(project: Callable[..., Path], evil: Listener) -> None:
    """The kernel of a notebook run knows what the command has from the folder's file."""
    folder = project(LANGFUSE_BASE_URL=evil.base_url)
    cells = [nbformat.v4.new_code_cell(code) for code in (LOAD, WORK)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "a.ipynb")
    run = command(folder, "run", "a.ipynb", **MY_KEYS)
    assert "passed" in run.stdout, run.stdout + run.stderr
    assert evil.requests == []


def test_secret_of_an_environment_table_is_not_redirected(
    project: Callable[..., Path], evil: Listener
) -> None:
    """The configuration of notebook tests may not say where a kernel's keys go, nor which folders it uses."""
    folder = project()
    for name in (
        "LANGFUSE_BASE_URL",
        "RESEARCH_KIT_DATA_DIR",
        "RESEARCH_KIT_FROM_FILE",
        "_RESEARCH_KIT_PARENT",
    ):
        (folder / "pyproject.toml").write_text(
            "[tool.research_kit.regression]\nnotebooks = ['a.ipynb']\n"
            f"[tool.research_kit.regression.per_notebook.a]\nenvironment = {{ {name} = '{evil.base_url}' }}\n"
        )
        nbformat.write(nbformat.v4.new_notebook(), folder / "a.ipynb")
        run = command(folder, "test", **MY_KEYS)
        assert run.returncode == 2
        assert f"{name}, which only you can set" in run.stderr
    assert evil.requests == []


@pytest.mark.parametrize("arguments", [["deliver"], ["deliver", "--other-keys"], ["status"], ["doctor"]])
def test_what_waits_for_the_user_does_not_go_to_who_knows_the_public_key(
    project: Callable[..., Path], evil: Listener, tmp_path: Path, arguments: list[str]
) -> None:
    """A file with the user's public key, which is no secret, does not get the traces that wait under it."""
    program = f"import research_kit as rk; rk.bind()\n{WORK}"
    away = {**MY_KEYS, "LANGFUSE_BASE_URL": "http://127.0.0.1:9"}
    subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, **away}, check=True, timeout=120
    )
    folder = project(
        LANGFUSE_BASE_URL=evil.base_url, LANGFUSE_PUBLIC_KEY="pk-lf-mine", LANGFUSE_SECRET_KEY=THEIRS
    )
    run = command(folder, *arguments)
    assert not evil.heard("work-of-mine")
    if "--other-keys" in arguments:
        assert run.returncode == 2
        assert "research-kit trust" in run.stderr
    if arguments == ["deliver"]:
        assert re.search(r"[1-9] wait for other keys", run.stdout)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: os.chown(path, NOBODY, NOBODY), id="somebody else's"),
        pytest.param(lambda path: path.chmod(0o666), id="writable by all"),
        pytest.param(lambda path: path.parent.chmod(0o777), id="in a folder writable by all"),
    ],
)
def test_file_that_others_can_write_is_ignored_with_one_warning(
    project: Callable[..., Path], mine: Listener, spoil: Callable[[Path], None]
) -> None:
    """Even complete settings are not taken from a file that somebody else can have written."""
    if os.getuid() != 0:
        spoil = lambda path: path.chmod(0o666)  # noqa: E731 -- only root can give files away
    values = {"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": THEIRS, "LANGFUSE_USER_ID": "them"}
    folder = project(**values, LANGFUSE_BASE_URL=mine.base_url)
    spoil(folder / ".env")
    run = subprocess.run(
        [sys.executable, "-c", "import research_kit as rk; print(rk.bind().state, rk.current_user_id())"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.stdout.startswith("local ")
    assert "them" not in run.stdout
    assert run.stderr.count("UserWarning") == 1
    assert ".env' is not read, because" in run.stderr
    assert mine.requests == []


def test_plain_http_keeps_traces_until_the_user_allows_it(
    new_kernel: Callable[..., Kernel], project: Callable[..., Path], mine: Listener
) -> None:
    """A server elsewhere over http: a warning at once, and traces wait until the address is right."""
    kernel = new_kernel(project(), **MY_KEYS, LANGFUSE_BASE_URL="http://langfuse.invalid:3000")
    assert "RESEARCH_KIT_PLAIN_HTTP=langfuse.invalid" in kernel.run(LOAD)
    assert kernel.run(WORK) == "False\n"
    assert "unencrypted" in kernel.run("print(rk.status().reason)")
    assert (
        kernel.run(f"import os\nos.environ['LANGFUSE_BASE_URL'] = {mine.base_url!r}\nprint(rk.flush(10))")
        == "True\n"
    )
    assert mine.heard("work-of-mine")


def test_delivery_follows_no_redirect(
    new_kernel: Callable[..., Kernel], project: Callable[..., Path], mine: Listener, evil: Listener
) -> None:
    """A server that sends deliveries elsewhere has not taken them, and the other server hears nothing."""
    mine.redirects_to = evil.base_url
    kernel = new_kernel(project(), **MY_KEYS, LANGFUSE_BASE_URL=mine.base_url)
    kernel.run(LOAD)
    assert kernel.run(WORK) == "False\n"
    assert mine.requests
    assert evil.requests == []


def test_doctor_says_where_settings_come_from_and_shows_no_value(project: Callable[..., Path]) -> None:
    """Each group with its place, what is ignored with its reason, and never a value."""
    folder = project(
        LANGFUSE_BASE_URL="http://evil.example", RESEARCH_KIT_SPOOL_MAX_MB="0.077", RESEARCH_KIT_LM="openai/m"
    )
    run = command(folder, "doctor", **MY_KEYS, OPENAI_API_KEY=MY_MODEL_KEY)
    path = folder / ".env"
    assert "LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY from your environment" in run.stdout
    assert f"RESEARCH_KIT_LM from {path}" in run.stdout
    assert f"LANGFUSE_BASE_URL of {path} is not used" in run.stdout
    assert f"RESEARCH_KIT_SPOOL_MAX_MB of '{path}' is ignored" in run.stdout
    assert f"openai/m: named by RESEARCH_KIT_LM in {path}" in run.stdout
    for value in (MINE, MY_MODEL_KEY, "0.077"):
        assert value not in run.stdout + run.stderr


def test_binding_lets_dspy_fetch_no_price_list(project: Callable[..., Path]) -> None:
    """After binding, DSPy's own models look prices up in the file that comes with it."""
    environ = {name: value for name, value in os.environ.items() if name != "LITELLM_LOCAL_MODEL_COST_MAP"}
    code = "import os, research_kit as rk; rk.bind(); print(os.environ['LITELLM_LOCAL_MODEL_COST_MAP'])"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=project(), env=environ, capture_output=True, text=True
    )
    assert run.stdout == "True\n", run.stderr


_OWN_CLIENT = """
import os, sys
import research_kit as rk
rk.bind()
if sys.argv[1] == "while tracing":
    with rk.trace_span("before"):
        pass
from langfuse import Langfuse
{make}
for use in (client.auth_check, lambda: client.get_prompt("p"), client.flush):
    try:
        use()
    except Exception as error:
        print(type(error).__name__)
"""
OWN_CLIENTS = {
    "keys in the environment": f"os.environ.update({MY_KEYS!r})\nclient = Langfuse()",
    "keys as arguments": f"client = Langfuse(public_key='pk-lf-mine', secret_key={MINE!r})",
    "all as arguments, the address by its old name": (
        f"client = Langfuse(public_key='pk-lf-mine', secret_key={MINE!r}, host='https://mine.invalid')"
    ),
    "secret as an argument": f"client = Langfuse(secret_key={MINE!r})",
    "the file's public key, own secret": f"client = Langfuse(public_key='pk-theirs', secret_key={MINE!r})",
}


@pytest.mark.parametrize("case", OWN_CLIENTS)
@pytest.mark.parametrize("when", ["while tracing", "at once", "without tracing"])
def test_own_langfuse_client_does_not_complete_itself_from_a_file(
    project: Callable[..., Path], evil: Listener, when: str, case: str
) -> None:
    """A client that user code makes with keys of its own does not take the address from a folder's file."""
    values = {"LANGFUSE_PUBLIC_KEY": "pk-theirs", "LANGFUSE_SECRET_KEY": THEIRS}
    folder = project(**values, LANGFUSE_BASE_URL=evil.base_url)
    is_enabled = {"LANGFUSE_TRACING_ENABLED": "false" if when == "without tracing" else "true"}
    run = subprocess.run(
        [sys.executable, "-c", _OWN_CLIENT.replace("{make}", OWN_CLIENTS[case]), when],
        cwd=folder,
        env={**os.environ, **is_enabled},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert not evil.heard(MINE)
