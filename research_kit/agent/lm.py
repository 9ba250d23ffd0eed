"""Which language model answers.

Owns the order in which a model is looked for, and the errors of a name that cannot work; does not call it.
Invariant: a model that costs money is used only when somebody named it, never because a key is set.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from research_kit._optional import installation
from research_kit.agent.local_lm import LOCAL_LM_NAME, LocalLM, is_local_lm_installed, load_local_lm
from research_kit.config import Settings, is_replaying, keep_loopback_direct, load_settings
from research_kit.errors import ConfigError, LMNotFoundError
from research_kit.sources import LM, Part, find_mixture
from research_kit.trust import check_transport

if TYPE_CHECKING:
    import dspy

__all__ = ["LMChoice", "resolve_lm"]

# Prefixes that DSPy's own engine serves, with the provider's name there; all others need litellm.
_NATIVE_PROVIDERS = {
    "anthropic": "anthropic",
    "deepseek": "deepseek",
    "gemini": "gemini",
    "groq": "groq",
    "hosted_vllm": "vllm",
    "moonshot": "moonshotai",
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "openai": "openai-chat",
    "openrouter": "openrouter",
    "xai": "xai",
}
_PROVIDER_KEY = "OPENAI_API_KEY"
# What servers that need no key get as one.
_NO_KEY = "not-needed"
_LOCAL_NAMES = frozenset({"local", LOCAL_LM_NAME, LOCAL_LM_NAME.rpartition("/")[2]})


@dataclass(frozen=True, slots=True, kw_only=True)
class LMChoice:
    """The language model that was chosen.

    Attributes:
        lm: The model itself.
        name: Its name, as traces show it.
        reason: Where the choice came from, in words for the user.
        is_local: True for the small local model, which costs nothing and needs the constrained assistant.
    """

    lm: dspy.BaseLM
    name: str
    reason: str
    is_local: bool


def resolve_lm(lm: dspy.BaseLM | str | None = None, *, settings: Settings | None = None) -> LMChoice:
    """Choose the language model: the first of argument, DSPy setting, environment, local model.

    Args:
        lm: A DSPy language model, a name such as ``openai/gpt-4o-mini``, or ``local`` for the small model.
        settings: Where the environment's choice is taken from; by default read now.

    Raises:
        LMNotFoundError: When nothing was named and the local model is not installed, or a name cannot work.
        MissingExtraError: When the local model was named and is not installed.
        ConfigError: When ``lm`` is neither a model nor a name.
    """
    # As `bind` does, which may not have been called.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    keep_loopback_direct()
    import dspy

    chosen_settings = load_settings() if settings is None else settings
    if lm is not None:
        return _choice(lm, "passed as an argument", chosen_settings)
    if dspy.settings.lm is not None:
        return _choice(dspy.settings.lm, "configured in DSPy", chosen_settings)
    if chosen_settings.lm is not None:
        reason = f"named by {_place('RESEARCH_KIT_LM', chosen_settings)}"
        key = _own_key(chosen_settings) if chosen_settings.sources.part(LM.address) is None else None
        return _choice(chosen_settings.lm, reason, chosen_settings, key)
    if is_local_lm_installed() or is_replaying():
        return _choice("local", "the small local model, because no other was named", chosen_settings)
    raise LMNotFoundError(
        "No language model was named, and the small local model is not installed. Pass lm= (a dspy.LM or a "
        "name such as 'openai/gpt-4o-mini'), call dspy.configure(lm=...), set RESEARCH_KIT_LM (with "
        "RESEARCH_KIT_LM_BASE_URL for any OpenAI-compatible server), or install the local model with: "
        + installation("local-lm")
    )


def _place(name: str, settings: Settings) -> str:
    """Return where a setting stands: its variable, and the file that has set it."""
    part = settings.sources.part((name,))
    return name if part is None or part.file is None else f"{name} in {part.file}"


def _own_key(settings: Settings) -> str | None:
    """Return the key that was given together with the name of the model.

    Raises:
        ConfigError: When a file names the model and somebody else the key, or the other way round.
    """
    if settings.lm_api_key in (None, _NO_KEY) or is_replaying():
        return None
    if mixture := find_mixture(map(settings.sources.part, (("RESEARCH_KIT_LM",), *LM.keys))):
        raise ConfigError(mixture)
    return settings.lm_api_key


def _choice(lm: object, reason: str, settings: Settings, api_key: str | None = None) -> LMChoice:
    import dspy

    if isinstance(lm, str):
        lm = _lm_from_name(lm.strip(), settings, api_key)
        if settings.lm_base_url is not None and not isinstance(lm, LocalLM):
            reason += f", on the server named by {_place('RESEARCH_KIT_LM_BASE_URL', settings)}"
    if not isinstance(lm, dspy.BaseLM):
        raise ConfigError(
            f"The language model {reason} is a {type(lm).__name__}. Give a dspy.LM or a name such as "
            "'openai/gpt-4o-mini'."
        )
    return LMChoice(lm=lm, name=lm.model, reason=reason, is_local=isinstance(lm, LocalLM))


def _lm_from_name(name: str, settings: Settings, api_key: str | None) -> dspy.BaseLM:
    if name in _LOCAL_NAMES:
        return load_local_lm(settings=settings)
    if settings.sources.part(LM.address) is not None and not is_replaying():
        _check_server(settings)
    if settings.lm_base_url is not None:
        return _build(
            _compatible_name(name), api_base=settings.lm_base_url, api_key=_server_key(settings).value
        )
    prefix, _, model = name.partition("/")
    if not model:
        raise LMNotFoundError(_without_prefix(name))
    if is_replaying():
        return _build(name)  # nobody is called, so no key is needed
    if prefix not in _NATIVE_PROVIDERS:
        _check_litellm(name, prefix, has_key=api_key is not None)
    elif api_key is None:
        _check_native(name, _NATIVE_PROVIDERS[prefix], model)
    return _build(name) if api_key is None else _build(name, api_key=api_key)


def _build(name: str, **options: str) -> dspy.BaseLM:
    import dspy

    try:
        return dspy.LM(name, **options)
    except (ValueError, TypeError, dspy.LMError) as error:
        raise LMNotFoundError(f"The language model {name!r} cannot be used: {error}.") from error


class _Key(NamedTuple):
    """What a server gets as a key, and the variable that it stands in; None when it is no key."""

    value: str
    variable: str | None


def _server_key(settings: Settings) -> _Key:
    # A model that is chosen while answers are replayed may be called afterwards, and nobody has checked then.
    if is_replaying():
        return _Key(_NO_KEY, None)
    if settings.lm_api_key is not None:
        return _Key(settings.lm_api_key, None if settings.lm_api_key == _NO_KEY else LM.keys[0][0])
    key = os.environ.get(_PROVIDER_KEY, "").strip()
    # Servers that need no key refuse an absent one less often than an arbitrary one.
    return _Key(key, _PROVIDER_KEY) if key else _Key(_NO_KEY, None)


def _check_server(settings: Settings) -> None:
    """Refuse to send a key to a server that somebody else has named, or unencrypted to another machine."""
    base_url, variable = settings.lm_base_url, _server_key(settings).variable
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise ConfigError(
            f"RESEARCH_KIT_LM_BASE_URL is {base_url!r}, which is not a web address. Give it with its scheme, "
            "for instance http://localhost:8000/v1."
        )
    parts = [settings.sources.part(role) for role in LM.roles]
    if variable == _PROVIDER_KEY:
        parts.append(Part(_PROVIDER_KEY))
    advice = f". For a server that needs no key, set {LM.keys[0][0]}={_NO_KEY} beside its address"
    if mixture := find_mixture(parts, advice=advice):
        raise ConfigError(mixture)
    if base_url is not None and variable is not None:
        check_transport(base_url, secret=variable)


def _compatible_name(name: str) -> str:
    """Return the name under which DSPy calls any server that speaks as OpenAI's does."""
    return "openai/" + name.removeprefix("openai/")


def _check_native(name: str, provider: str, model: str) -> None:
    from dspy.lm15 import LMRouter, MissingCredentialError, RouterConfig

    try:
        LMRouter(RouterConfig()).lm(f"{provider}:{model}")
    except MissingCredentialError as error:
        # The first line names the variable; what follows is advice about another library's own settings.
        cause = str(error).partition("\n")[0].partition(", or pass")[0].rstrip(".")
        cause = cause.replace(repr(provider), repr(name.partition("/")[0]))
        raise LMNotFoundError(f"The language model {name!r} cannot be called: {cause}.") from error


def _check_litellm(name: str, prefix: str, *, has_key: bool) -> None:
    near = difflib.get_close_matches(prefix, _NATIVE_PROVIDERS, n=1, cutoff=0.8)
    hint = f" Did you mean {near[0] + name[len(prefix) :]!r}?" if near else ""
    # An obvious slip is answered at once: importing litellm takes seconds.
    if near or importlib.util.find_spec("litellm") is None:
        raise LMNotFoundError(_unknown_provider(name, prefix, hint))
    import litellm

    if prefix not in {str(getattr(known, "value", known)) for known in litellm.provider_list}:
        raise LMNotFoundError(_unknown_provider(name, prefix, hint))
    missing = litellm.validate_environment(name)["missing_keys"]
    if missing and not has_key:
        raise LMNotFoundError(
            f"The language model {name!r} cannot be called: {' and '.join(missing)} is not set. Set it "
            "in the environment."
        )


def _unknown_provider(name: str, prefix: str, hint: str) -> str:
    return (
        f"The language model {name!r} names the provider {prefix!r}, which is unknown.{hint} Known without "
        f"further packages: {', '.join(sorted(_NATIVE_PROVIDERS))}."
    )


def _without_prefix(name: str) -> str:
    return (
        f"The language model {name!r} does not say who serves it. Write provider/model, for instance "
        "'openai/gpt-4o-mini' or 'ollama_chat/llama3.2', or set RESEARCH_KIT_LM_BASE_URL to the address of "
        "an OpenAI-compatible server."
    )
