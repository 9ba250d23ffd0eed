"""jsonschema's slow formats are there, but are not paid for before they are used."""

from __future__ import annotations

import subprocess
import sys

DEFERRED = "import sys; from research_kit._slow_formats import defer_slow_formats; defer_slow_formats()\n"


def printed(code: str) -> list[str]:
    command = [sys.executable, "-c", DEFERRED + code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_formats_are_checked_as_without_us() -> None:
    """The grammar is compiled when the first address is checked, and judges as ever; it is deferred once."""
    code = (
        "before = sys.modules['rfc3987_syntax']; defer_slow_formats()\n"
        "print(sys.modules['rfc3987_syntax'] is before)\n"
        "from jsonschema import Draft202012Validator, FormatChecker; print('lark' in sys.modules)\n"
        "is_good = Draft202012Validator({'format': 'iri'}, format_checker=FormatChecker()).is_valid\n"
        "print(is_good('https://example.org/ü'), 'lark' in sys.modules, is_good('no address'))\n"
        "defer_slow_formats(); print(sys.modules['rfc3987_syntax'] is before, is_good('a:b'), is_good('a b'))"
    )
    assert printed(code) == ["True", "False", "True True False", "True True False"]


def test_who_asks_for_the_package_gets_it() -> None:
    """Its modules, and each of its names, are what the package has; a name that it has not is refused."""
    code = (
        "import rfc3987_syntax.utils as utils; print(utils.load_grammar.__module__, 'lark' in sys.modules)\n"
        "from rfc3987_syntax import parse; print(parse.__module__, 'lark' in sys.modules)\n"
        "import rfc3987_syntax\n"
        "print(rfc3987_syntax.is_valid_syntax.__module__)\n"
        "try: rfc3987_syntax.no\n"
        "except AttributeError as error: print(error)"
    )
    assert printed(code) == [
        "rfc3987_syntax.utils False",
        "rfc3987_syntax.syntax_helpers True",
        "rfc3987_syntax.syntax_helpers",
        "module 'rfc3987_syntax' has no attribute 'no'",
    ]
