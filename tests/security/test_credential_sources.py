"""A key goes only to an address from the same source: user, file, trusted file, parent process or cell."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from listening import Listener, listening

from research_kit.agent.lm import resolve_lm
from research_kit.config import DEFAULT_LANGFUSE_URL, load_settings
from research_kit.errors import ConfigError
from research_kit.regression.working_folder import working_folder
from research_kit.session.backend import fetch_project_id, resolve_backend
from research_kit.session.environment_file import read_environment_file
from research_kit.sources import NOTE_VARIABLE
from research_kit.store import stop_store
from research_kit.transfer import pull, push
from research_kit.trust import trust_file

MINE = "sk-lf-my-own-secret"
THEIRS = "sk-lf-known-to-the-file"
PLACES = ("none", "environment", "cell", "file", "trusted", "inherited")
# Who has said what stands there, as far as using things together goes.
SPEAKER = {"environment": "user", "cell": "user", "trusted": "user", "file": "file", "inherited": "parent"}


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a file sets is taken back, and the list of trusted files is the test's own."""
    before = dict(os.environ)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def evil() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


def write(folder: Path, text: str) -> Path:
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = folder / ".env"
    path.write_text(text)
    path.chmod(0o600)
    return path


def lines(values: dict[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in values.items())


class World:
    """Puts values where they come from, in the order in which it happens."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.monkeypatch = tmp_path, monkeypatch
        self.said: dict[str, dict[str, str]] = {place: {} for place in PLACES}

    def say(self, place: str, values: dict[str, str]) -> None:
        self.said[place] |= values

    def happen(self) -> None:
        """Environment, the file of a parent process, the folder's own file, a cell."""
        os.environ.update(self.said["environment"])
        if self.said["inherited"]:
            write(self.root / "parent", lines(self.said["inherited"]))
            self.monkeypatch.chdir(self.root / "parent")
            read_environment_file()
        file = {**self.said["file"], **self.said["trusted"]}
        folder = self.root / "project"
        path = write(folder, lines(file))
        if self.said["trusted"]:
            trust_file(path, path.read_bytes())
        self.monkeypatch.chdir(folder)
        read_environment_file()
        os.environ.update(self.said["cell"])


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def secret_of(place: str) -> str:
    return THEIRS if place in ("file", "inherited") else MINE


COMBINATIONS = [
    pytest.param(keys, address, id=f"keys {keys}, address {address}")
    for keys in PLACES
    for address in PLACES
    if {keys, address} != {"file", "trusted"}
]


def said_together(keys: str, address: str) -> bool:
    return address == "none" or SPEAKER[keys] == SPEAKER[address]


@pytest.mark.parametrize(("keys", "address"), COMBINATIONS)
def test_langfuse_keys_and_address(world: World, evil: Listener, keys: str, address: str) -> None:
    """Keys reach an address of their own source; of two sources nothing is sent, and the error names both."""
    pair = {"LANGFUSE_PUBLIC_KEY": f"pk-{keys}", "LANGFUSE_SECRET_KEY": secret_of(keys)}
    world.say(keys, pair if keys != "none" else {})
    world.say(address, {"LANGFUSE_BASE_URL": evil.base_url} if address != "none" else {})
    world.happen()
    if keys == "none":
        assert (load_settings().public_key, load_settings().mixture) == (None, "")
    elif not said_together(keys, address):
        with pytest.raises(
            ConfigError, match=r"LANGFUSE_BASE_URL from .*LANGFUSE_SECRET_KEY from .*trust .*\.env"
        ):
            resolve_backend()
        # What others would use together, Langfuse's own client first, is not left together.
        user_has_keys = os.environ.get("LANGFUSE_SECRET_KEY") == MINE
        assert not (user_has_keys and os.environ.get("LANGFUSE_BASE_URL") == evil.base_url)
        assert evil.requests == []
    elif address == "none":
        assert resolve_backend().base_url == DEFAULT_LANGFUSE_URL
    else:
        assert fetch_project_id(resolve_backend()) == "project"
        assert evil.heard(f"pk-{keys}:{secret_of(keys)}")
    assert not evil.heard(MINE) or SPEAKER[keys] == SPEAKER[address] == "user"


@pytest.mark.parametrize("name", ["LANGFUSE_BASE_URL", "LANGFUSE_HOST"])
@pytest.mark.parametrize(
    ("own", "file"),
    [
        ({"PUBLIC_KEY": "pk-lf-mine", "SECRET_KEY": MINE}, {"PUBLIC_KEY": "pk-x", "SECRET_KEY": THEIRS}),
        (
            {"PUBLIC_KEY": "pk-lf-mine", "SECRET_KEY": MINE},
            {"PUBLIC_KEY": "pk-lf-mine", "SECRET_KEY": THEIRS},
        ),
        ({"SECRET_KEY": MINE}, {"PUBLIC_KEY": "pk-x"}),
        ({"SECRET_KEY": MINE}, {"PUBLIC_KEY": "pk-x", "SECRET_KEY": THEIRS}),
        ({"PUBLIC_KEY": "pk-lf-mine"}, {"SECRET_KEY": "${LANGFUSE_SECRET_KEY}"}),
    ],
    ids=["both have keys", "same public key", "half each", "half here", "reference"],
)
def test_halves_and_aliases_of_two_sources(
    world: World, evil: Listener, name: str, own: dict[str, str], file: dict[str, str]
) -> None:
    """However a group is divided between user and file, whatever the address is called, nothing is sent."""
    world.say("environment", {f"LANGFUSE_{key}": value for key, value in own.items()})
    world.say("file", {**{f"LANGFUSE_{key}": value for key, value in file.items()}, name: evil.base_url})
    world.happen()
    with pytest.raises(ConfigError):
        fetch_project_id(resolve_backend())
    assert evil.requests == []


def test_complete_settings_of_the_user_win(world: World, evil: Listener) -> None:
    """A file changes nothing about keys and an address that the user has set, under either name."""
    with listening() as mine:
        own = {"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": MINE, "LANGFUSE_HOST": mine.base_url}
        world.say("environment", own)
        world.say("file", {"LANGFUSE_BASE_URL": evil.base_url, "LANGFUSE_SECRET_KEY": THEIRS})
        world.happen()
        fetch_project_id(resolve_backend())
    assert mine.heard(MINE)
    assert evil.requests == []


@pytest.mark.parametrize("changed", ["LANGFUSE_SECRET_KEY", "LANGFUSE_PUBLIC_KEY", "LANGFUSE_BASE_URL"])
def test_value_changed_after_the_file_is_the_users(world: World, evil: Listener, changed: str) -> None:
    """Whoever sets one of the three anew in a cell has mixed them, and the others are taken away."""
    pair = {"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": THEIRS}
    world.say("file", {**pair, "LANGFUSE_BASE_URL": evil.base_url})
    world.say("cell", {changed: "https://mine.example" if changed.endswith("URL") else MINE})
    world.happen()
    for _ in range(2):
        with pytest.raises(ConfigError, match=rf"{changed}.* from your environment"):
            resolve_backend()
    assert [name for name in (*pair, "LANGFUSE_BASE_URL") if name in os.environ] == [changed]


@pytest.mark.parametrize(
    "value", ["${MY_TOKEN}", "${MY_TOKEN:-x}", "a${MY_TOKEN}b", "'${MY_TOKEN}'", "${LANGFUSE_SECRET_KEY}"]
)
@pytest.mark.parametrize("name", ["LANGFUSE_USER_ID", "LANGFUSE_SECRET_KEY", "RESEARCH_KIT_LM_API_KEY"])
def test_file_takes_in_nothing_of_the_environment(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A value with a variable of the environment in it is not expanded, unless the file is trusted."""
    monkeypatch.setenv("MY_TOKEN", MINE)
    monkeypatch.setenv("HOME_OF", "x")
    world.say("file", {"OWN": "here", "LANGFUSE_RELEASE": "${OWN}-1", name: value})
    world.happen()
    assert MINE not in os.environ.get(name, "")
    assert os.environ["LANGFUSE_RELEASE"] == "here-1"


def test_trusted_file_takes_in_the_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user has trusted is expanded as every reader of such files does."""
    monkeypatch.setenv("MY_NAME", "ann")
    world.say("trusted", {"LANGFUSE_USER_ID": "${MY_NAME}"})
    world.happen()
    assert os.environ["LANGFUSE_USER_ID"] == "ann"


ONLY_THE_USER = {
    "RESEARCH_KIT_TRUST": "/",
    "RESEARCH_KIT_PLAIN_HTTP": "evil.example",
    "RESEARCH_KIT_DATA_DIR": "/tmp/theirs",
    "RESEARCH_KIT_CACHE_DIR": "/tmp/theirs",
    "RESEARCH_KIT_REPLAYING": "true",
    "RESEARCH_KIT_SESSION_ID": "theirs",
    "RESEARCH_KIT_STRICT_TELEMETRY": "true",
    "RESEARCH_KIT_STORE_MAX_AGE_DAYS": "0.0001",
    "RESEARCH_KIT_STORE_MAX_MB": "0.1",
    "RESEARCH_KIT_STORE_IDLE_MINUTES": "0.1",
    "RESEARCH_KIT_SPOOL_MAX_MB": "0.001",
    NOTE_VARIABLE: "{}",
    "RESEARCH_KIT_SOMETHING_NEW": "1",
    "LANGFUSE_OTEL_TRACES_EXPORT_PATH": "x",
    "LANGFUSE_DEBUG": "true",
    "LANGFUSE_SAMPLE_RATE": "0",
    "LANGFUSE_MEDIA_UPLOAD_ENABLED": "true",
    "LANGFUSE_FLUSH_AT": "1",
}


@pytest.mark.parametrize("name", ONLY_THE_USER)
@pytest.mark.parametrize("is_trusted", [False, True], ids=["a file", "a trusted file"])
def test_what_only_the_user_may_set(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, is_trusted: bool
) -> None:
    """What moves data or takes a protection away is ignored and named; the user's trust makes it count."""
    monkeypatch.delenv(name, raising=False)
    world.say("trusted" if is_trusted else "file", {name: ONLY_THE_USER[name]})
    world.happen()
    problems = read_environment_file().problems
    if is_trusted:
        assert problems == ()
        # To trust a file is not to trust what it would trust.
        is_never_set = name in (NOTE_VARIABLE, "RESEARCH_KIT_TRUST")
        assert os.environ.get(name) == (None if is_never_set else ONLY_THE_USER[name])
    else:
        assert name not in os.environ
        [problem] = problems
        assert f"{name} of " in problem
        assert "research-kit trust " in problem


def test_file_that_changed_is_not_trusted_any_more(world: World) -> None:
    """Trust is for a content: one more line, and it is a stranger's file again."""
    world.say("trusted", {"LANGFUSE_USER_ID": "ann"})
    world.happen()
    path = Path.cwd() / ".env"
    path.write_text(path.read_text() + "RESEARCH_KIT_PLAIN_HTTP=evil.example\n")
    assert read_environment_file().problems
    assert "RESEARCH_KIT_PLAIN_HTTP" not in os.environ


def test_trust_makes_a_file_that_was_read_before_the_users_own(world: World, evil: Listener) -> None:
    """After `research-kit trust`, a new binding uses the file's address with the user's keys."""
    world.say("environment", {"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": MINE})
    world.say("file", {"LANGFUSE_BASE_URL": evil.base_url})
    world.happen()
    with pytest.raises(ConfigError):
        resolve_backend()
    path = Path.cwd() / ".env"
    trust_file(path, path.read_bytes())
    read_environment_file()
    assert resolve_backend().base_url == evil.base_url


@pytest.mark.parametrize("pattern", ["(a+)+$", "(?:a|aa)*b", "x;;(\\w*){2,}y"])
def test_mask_of_a_file_cannot_hold_up_every_cell(world: World, pattern: str) -> None:
    """An expression that may never end is refused; going on without it would record what it hides."""
    world.say("file", {"RESEARCH_KIT_MASK": f"'{pattern}'"})
    with pytest.raises(ConfigError, match=r"RESEARCH_KIT_MASK of .*repeats a group.*research-kit trust"):
        world.happen()


@pytest.mark.parametrize("pattern", [r"patient-\d+", r"(?:\d{4}-){3}\d{4}", r"\bann\b;;bob"])
def test_mask_of_a_file_counts(world: World, pattern: str) -> None:
    """Ordinary expressions of a project's own are used."""
    world.say("file", {"RESEARCH_KIT_MASK": f"'{pattern}'"})
    world.happen()
    assert os.environ["RESEARCH_KIT_MASK"] == pattern


LM_COMBINATIONS = [
    pytest.param(key, variable, address, id=f"{variable} {key}, address {address}")
    for key in PLACES
    for variable in ("RESEARCH_KIT_LM_API_KEY", "OPENAI_API_KEY")
    for address in ("environment", "cell", "file", "trusted", "inherited")
    if {key, address} != {"file", "trusted"} and (key != "none" or variable == "OPENAI_API_KEY")
    # Of a file, the key of another program counts beside the address only.
    if variable != "OPENAI_API_KEY" or key in ("none", "environment", "cell", address)
]


@pytest.mark.parametrize(("key", "variable", "address"), LM_COMBINATIONS)
def test_model_key_and_address(world: World, evil: Listener, key: str, variable: str, address: str) -> None:
    """A model's server gets a key of its own source, or none when there is none anywhere."""
    world.say(key, {variable: secret_of(key)} if key != "none" else {})
    world.say(address, {"RESEARCH_KIT_LM_BASE_URL": f"{evil.base_url}/v1", "RESEARCH_KIT_LM": "m"})
    world.happen()
    is_together = key == "none" or SPEAKER[key] == SPEAKER[address]
    if not is_together:
        with pytest.raises(ConfigError, match=r"_KEY.*not used together.*RESEARCH_KIT_LM_API_KEY=not-needed"):
            resolve_lm()
        assert evil.requests == []
        return
    choice = resolve_lm()
    assert choice.lm("hi", cache=False) == ["hello"]
    assert evil.heard("not-needed" if key == "none" else secret_of(key))
    assert not evil.heard(MINE) or SPEAKER[address] == "user"
    if SPEAKER[address] != "user":
        assert f"RESEARCH_KIT_LM_BASE_URL in {world.root}" in choice.reason


def test_key_of_the_file_is_used_although_the_user_has_another(world: World, evil: Listener) -> None:
    """With a key beside its address, a project's server never sees the user's OpenAI key."""
    world.say("environment", {"OPENAI_API_KEY": MINE})
    named = {"RESEARCH_KIT_LM_BASE_URL": f"{evil.base_url}/v1", "RESEARCH_KIT_LM": "m"}
    world.say("file", {**named, "RESEARCH_KIT_LM_API_KEY": THEIRS})
    world.happen()
    resolve_lm().lm("hi", cache=False)
    assert evil.heard(f"Bearer {THEIRS}")
    assert not evil.heard(MINE)


@pytest.mark.parametrize(
    ("key", "name"), [("environment", "file"), ("file", "environment"), ("cell", "file")]
)
def test_key_of_one_source_is_not_for_the_model_of_another(world: World, key: str, name: str) -> None:
    """A file does not choose which provider gets the user's key, nor gives a key for the user's model."""
    world.say(key, {"RESEARCH_KIT_LM_API_KEY": secret_of(key)})
    world.say(name, {"RESEARCH_KIT_LM": "openrouter/theirs"})
    world.happen()
    with pytest.raises(ConfigError, match=r"RESEARCH_KIT_LM.*not used together"):
        resolve_lm()


def test_key_beside_the_model_is_used_with_its_provider(world: World) -> None:
    """In one file, model and key belong together; the reason names the file that may cost money."""
    world.say("file", {"RESEARCH_KIT_LM": "openai/m", "RESEARCH_KIT_LM_API_KEY": THEIRS})
    world.happen()
    choice = resolve_lm()
    assert choice.lm.kwargs["api_key"] == THEIRS
    assert choice.reason == f"named by RESEARCH_KIT_LM in {Path.cwd() / '.env'}"
    # A model that an argument names may be another provider's.
    os.environ["OPENAI_API_KEY"] = MINE
    assert THEIRS not in str(resolve_lm("openai/other").lm.kwargs)


PAIR = {"LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"}
ADDRESS = {"LANGFUSE_BASE_URL"}


@pytest.fixture
def no_store_left() -> Iterator[None]:
    folder = Path(os.environ["RESEARCH_KIT_DATA_DIR"])
    yield
    stop_store(folder)


@pytest.mark.usefixtures("no_store_left")
@pytest.mark.parametrize(
    ("arguments", "in_file"),
    [
        ({"public_key": "pk", "secret_key": MINE}, ADDRESS),
        ({"to": "EVIL"}, PAIR),
        ({"secret_key": MINE}, ADDRESS | PAIR),
    ],
)
@pytest.mark.parametrize("move", [push, pull])
def test_arguments_are_not_mixed_with_a_file(
    world: World, evil: Listener, move: Callable[..., Any], arguments: dict[str, str], in_file: set[str]
) -> None:
    """Arguments of push and pull count as the user's own word, which is not completed by a file's."""
    with pytest.raises(ConfigError, match="not used together"):
        call_with(world, evil, move, arguments, in_file)
    assert evil.requests == []


@pytest.mark.usefixtures("no_store_left")
@pytest.mark.parametrize(
    ("arguments", "in_file"),
    [
        ({"to": "EVIL", "public_key": "pk", "secret_key": MINE}, ADDRESS),
        ({"to": "EVIL"}, ADDRESS | PAIR),
        ({}, ADDRESS | PAIR),
    ],
)
def test_complete_arguments_or_a_complete_file_move(
    world: World, evil: Listener, arguments: dict[str, str], in_file: set[str]
) -> None:
    """What one source says in full is used, also when an argument repeats it."""
    assert call_with(world, evil, push, arguments, in_file).observation_count == 0
    assert evil.heard(MINE if arguments.get("secret_key") else THEIRS)


def call_with(
    world: World, evil: Listener, move: Callable[..., Any], arguments: dict[str, str], in_file: set[str]
) -> Any:
    values = dict(zip(sorted(ADDRESS | PAIR), (evil.base_url, "pk-theirs", THEIRS), strict=True))
    world.say("file", {name: value for name, value in values.items() if name in in_file})
    world.happen()
    given = {name: evil.base_url if value == "EVIL" else value for name, value in arguments.items()}
    if move is push:
        return push(**given)
    if "to" in given:
        given["from_url"] = given.pop("to")
    return pull("session", **given)


STRANGE_NAMES = "'LANGFUSE_A=B'=x\n'RESEARCH_KIT_\x1b[2J'=x\n'LANGFUSE_\n::error::x'=x\nLANGFUSE_=x\n"
HOSTILE = {
    "blanks": "LANGFUSE_USER_ID=a" + " " * 200_000 + "x\n",
    "open references": "LANGFUSE_USER_ID=" + "${" * 100_000 + "\n",
    "open defaults": "LANGFUSE_USER_ID=" + "${A:-" * 40_000 + "\n",
    "doubling": "A0=" + "x" * 9_000 + "\n" + "".join(f"A{n + 1}=${{A{n}}}${{A{n}}}\n" for n in range(40)),
    "huge": "LANGFUSE_USER_ID=x\n" * 40_000,
    "names that are none": STRANGE_NAMES,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_file_is_read_within_bounds(
    world: World, capfd: pytest.CaptureFixture[str], case: str
) -> None:
    """Reading ends soon, grows nothing, and prints nothing, whatever stands in the file."""
    path = write(world.root / "project", HOSTILE[case])
    world.monkeypatch.chdir(path.parent)
    problems = read_environment_file().problems
    assert sum(map(len, os.environ.values())) < 1_000_000
    assert bool(problems) is (case == "huge")
    assert capfd.readouterr() == ("", "")


def test_names_that_no_variable_has_are_passed_over(world: World) -> None:
    """What is quoted where a name stands sets nothing, in a trusted file either."""
    path = write(world.root / "project", STRANGE_NAMES)
    trust_file(path, path.read_bytes())
    world.monkeypatch.chdir(path.parent)
    before = dict(os.environ)
    assert read_environment_file().is_trusted
    assert dict(os.environ) == before


def test_model_chosen_in_a_replay_has_no_key(world: World, evil: Listener) -> None:
    """A model that outlives a replay, in which nothing is checked, does not take the user's key with it."""
    world.say("environment", {"OPENAI_API_KEY": MINE, "RESEARCH_KIT_REPLAYING": "true"})
    world.say("file", {"RESEARCH_KIT_LM_BASE_URL": f"{evil.base_url}/v1", "RESEARCH_KIT_LM": "m"})
    world.happen()
    choice = resolve_lm()
    del os.environ["RESEARCH_KIT_REPLAYING"]
    choice.lm("hi", cache=False)
    assert evil.heard("not-needed")
    assert not evil.heard(MINE)


@pytest.mark.parametrize("name", [".env", "mcp.json", ".mcp.json"])
def test_copy_of_a_folder_does_not_make_a_foreign_file_ones_own(tmp_path: Path, name: str) -> None:
    """Notebooks that run in a copy of their folder find there only settings that would be read in it."""
    path = write(tmp_path / "project", "LANGFUSE_USER_ID=ann\n").rename(tmp_path / "project" / name)
    for mode, is_there in ((0o600, True), (0o666, False)):
        path.chmod(mode)
        with working_folder(path.parent, is_temporary=True) as copy:
            assert (copy / name).exists() is is_there
