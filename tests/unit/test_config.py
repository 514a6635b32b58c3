"""Settings: what wins over what, where each value came from, and every way a value can be refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from adacd_cli.config import SETTINGS, Settings, Source, change, resolve
from adacd_cli.config.files import presets
from adacd_cli.errors import ConfigurationError
from tests.golden import check

ROOT = Path(__file__).resolve().parents[2]


def write(folder: Path, text: str | bytes) -> str:
    path = folder / "my.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def refusal(
    flags: dict[str, Any] | None = None,
    config: str | None = None,
    assignments: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> tuple[str, str]:
    with pytest.raises(ConfigurationError) as caught:
        resolve(flags or {}, config, assignments=assignments, environment=environment or {})
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize(
    ("flag", "variable", "line", "value", "kind"),
    [
        ("1", "2", "3", 1.0, "flag"),
        ("0", "2", "3", 0.0, "flag"),
        (None, "2", "3", 2.0, "environment"),
        (None, "0", "3", 0.0, "environment"),
        (None, None, "3", 3.0, "file"),
        (None, None, "0", 0.0, "file"),
        (None, None, None, 4.5, "default"),
        ("1", None, "3", 1.0, "flag"),
        ("1", None, None, 1.0, "flag"),
    ],
)
def test_the_nearest_level_wins(
    tmp_path: Path, flag: str | None, variable: str | None, line: str | None, value: float, kind: str
) -> None:
    config = None if line is None else write(tmp_path, f"alpha: {line}\n")
    environment = {} if variable is None else {"ADACD_ALPHA": variable}
    resolved = resolve({"alpha": flag}, config, environment=environment)
    where = {
        "flag": "--alpha",
        "environment": "ADACD_ALPHA",
        "file": f"{tmp_path}/my.yaml, line 1",
        "default": "",
    }
    assert (resolved.settings.alpha, resolved.sources["alpha"]) == (value, Source(kind, where[kind]))  # type: ignore[arg-type]


def test_zero_empty_and_false_survive_at_every_level(tmp_path: Path) -> None:
    config = write(tmp_path, 'max_new_tokens: 5\nsystem: "from the file"\nstats: true\n')
    falsy = {"max_new_tokens": 0, "system": "", "stats": False}
    environment = {"ADACD_MAX_NEW_TOKENS": "0", "ADACD_SYSTEM": "", "ADACD_STATS": "0"}
    for resolved in (
        resolve(falsy, config, environment={}),
        resolve({}, config, environment=environment),
        resolve({}, write(tmp_path, 'max_new_tokens: 0\nsystem: ""\nstats: false\n'), environment={}),
        resolve({}, config, assignments=["max_new_tokens=0", "system=", "stats=false"], environment={}),
    ):
        assert {name: getattr(resolved.settings, name) for name in falsy} == falsy


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "", None),
        ("seed", "none", None),
        ("seed", "7", 7),
        ("quantize", "none", None),
        ("system", "none", "none"),
        ("gate", "yes", True),
        ("gate", "Off", False),
        ("stop", "", ()),
        ("stop", "[/INST]", ("[/INST]",)),
        ("stop", '["a", "b"]', ("a", "b")),
        ("stop", "a,b", ("a,b",)),
        ("stop", "none", ("none",)),
        ("logit_bias", "none", ()),
        ("stop_token_ids", '["7", "8"]', (7, 8)),
        ("device", "cuda:1", "cuda:1"),
        ("alpha", "1e-2", 0.01),
        ("prefix_cache", "auto", None),
        ("prefix_cache", "0", 0),
        ("prefix_cache", "512MiB", 512 * 2**20),
        ("prefix_cache", "1.5 GB", 1_500_000_000),
    ],
)
def test_text_of_the_environment_is_read_by_kind(name: str, text: str, value: Any) -> None:
    resolved = resolve({}, environment={f"ADACD_{name.upper()}": text})
    assert getattr(resolved.settings, name) == value


def test_yaml_values_keep_their_kind(tmp_path: Path) -> None:
    text = "alpha: 1e-2\ntop_p: 1\nseed: null\nstop: [a, 'b\n\n  c']\nquiet: on\nmodel: 'on'\n"
    settings = resolve({}, write(tmp_path, text), environment={}).settings
    assert settings == Settings(alpha=0.01, top_p=1.0, seed=None, stop=("a", "b\nc"), quiet=True, model="on")


@pytest.mark.parametrize(
    ("text", "size"), [("auto", None), ("null", None), ("0", 0), ("64MiB", 2**26), ("7", 7)]
)
def test_a_size_in_a_file_is_a_number_or_a_text_with_its_unit(
    tmp_path: Path, text: str, size: int | None
) -> None:
    assert (
        resolve({}, write(tmp_path, f"prefix_cache: {text}\n"), environment={}).settings.prefix_cache == size
    )
    assert Settings(prefix_cache=size).model_dump(mode="json")["prefix_cache"] == (
        "auto" if size is None else size
    )


def test_the_file_may_come_from_the_environment_and_a_flag_wins_over_it(tmp_path: Path) -> None:
    environment = {"ADACD_CONFIG": write(tmp_path, "alpha: 3\n")}
    assert resolve({}, environment=environment).settings.alpha == 3
    assert resolve({}, "llama3-8b", environment=environment).settings.alpha == 4.5


def test_a_gate_flag_that_contradicts_the_method_is_refused(tmp_path: Path) -> None:
    for flags, assignments in (
        ({"gate": True, "method": "default"}, ()),
        ({"method": "default"}, ("gate=true",)),
    ):
        assert "`gate` is for method adacd" in refusal(flags, assignments=assignments)[0]
    assert "(from --method)" in refusal({"gate": False, "method": "adacd-gated"})[0]
    config = write(tmp_path, "method: adacd-gated\n")
    assert f"(from {config}, line 1)" in refusal({"gate": False}, config)[0]


def test_a_gate_that_contradicts_nothing_or_stands_in_a_file_is_let_be(tmp_path: Path) -> None:
    config = write(tmp_path, "gate: true\n")
    for flags, file, method in (
        ({"method": "default"}, config, "default"),
        ({"gate": True, "method": "adacd-gated"}, None, "adacd-gated"),
        ({"gate": False, "method": "default"}, None, "default"),
        ({"gate": False}, config, "adacd"),
    ):
        assert resolve(flags, file, environment={}).settings.effective_method == method


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert resolve({}, write(tmp_path, "# nothing\n"), environment={}).settings == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("agreement_threshold", "1.4"),
        ("agreement_threshold", "-0.1"),
        ("plausibility", "2"),
        ("alpha", "nan"),
        ("alpha", "inf"),
        ("alpha", "-1"),
        ("alpha", "abc"),
        ("alpha", ""),
        ("contrast_steps", "-1"),
        ("contrast_steps", "1.5"),
        ("contrast_steps", True),
        ("max_new_tokens", "-1"),
        ("temperature", "-1"),
        ("top_p", "0"),
        ("threads", "0"),
        ("prefix_cache", "5XB"),
        ("prefix_cache", "-1"),
        ("prefix_cache", ""),
        ("prefix_cache", "lots"),
        ("seed", str(2**63)),
        ("method", "adacs"),
        ("device", "gpu"),
        ("device", "cuda:x"),
        ("dtype", "fp16"),
        ("contrast_prompt", ""),
        ("model", ""),
        ("stop", ["a", "\udce9"]),
        ("stop", ["a", ""]),
        ("logit_bias", ["5:1", "abc"]),
        ("logit_bias", ["5:101"]),
        ("logit_bias", {5: -1}),
        ("stop_token_ids", ["</s>"]),
        ("stop_token_ids", "-1"),
        ("stop_token_ids", 7),
    ],
)
def test_a_refused_value_is_named_with_range_value_and_flag(name: str, value: Any) -> None:
    message, hint = refusal({name: value})
    assert name in message and f"(from {SETTINGS[name].flag})" in message
    check("config", f"{name} {value!r}", f"{message}\n{hint}")


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("ADACD_ALPHA", "-2"),
        ("ADACD_CONTRAST_STEPS", "ten"),
        ("ADACD_CONFIG", "no.yaml"),
        ("ADACD_SYSTEM", "caf\udce9"),
        ("ADACD_GATE", "maybe"),
        ("ADACD_PREFIX_CACHE", "1 TB or so"),
        ("ADACD_ALFA", "2"),
        ("ADACD_LAMBDA", "1"),
    ],
)
def test_a_refused_variable_is_named(variable: str, text: str) -> None:
    message, hint = refusal(environment={variable: text})
    assert variable in message
    check("config", f"{variable}={text!r}", f"{message}\n{hint}")


def test_other_variables_are_left_alone() -> None:
    environment = {
        "ADACD_HOME": "x",
        "ADACD_TEST_ALPHAS": "1",
        "ADACD_API_KEY": "k",
        "ADACD_DEBUG": "1",
        "PATH": "p",
    }
    assert resolve({}, environment=environment).settings == Settings()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("alpha: 3\n# x\nagreement_treshold: 2\n", 3),
        ("lambda: 0.5\n", 1),
        ("max-new-tokens: 3\n", 1),
        ("zzz: 3\n", 1),
        ("\n\nagreement_threshold: 1.4\n", 3),
        ("alpha: .nan\n", 1),
        ("alpha: null\n", 1),
        ("contrast_steps: 10.0\n", 1),
        ("gate: 1\n", 1),
        ("contrast_prompt: no\n", 1),
        ("stop: [a, 1]\n", 1),
        ("alpha: 3\nalpha: 3\n", None),
        ("alpha: [1\nbeta: 2\n", 2),
        ("alpha:\n\t1\n", 2),
        ("model: !!python/name:os.system x\n", 1),
        ("seed: 2024-99-99\n", None),
        ("- alpha\n", None),
        ("? [a]\n: 1\n", 1),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, text: str, line: int | None) -> None:
    config = write(tmp_path, text)
    message, hint = refusal(config=config)
    assert config in message and (line is None or f"line {line}" in message)
    check("config", f"file {text!r}", f"{message}\n{hint}".replace(config, "FILE"))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    config = write(tmp_path, b"alpha: \xff\xfe\n")
    message, _ = refusal(config=config)
    assert message.startswith(f"{config} is not valid YAML: ")


@pytest.mark.parametrize("config", ["qwen3", "no/such.yaml", "", "/"])
def test_a_missing_configuration_lists_the_presets(config: str) -> None:
    message, hint = refusal(config=config)
    assert "(from --config)" in message and "default, gemma2-9b, llama3-8b, qwen3-8b" in hint
    check("config", f"--config {config!r}", f"{message}\n{hint}")


@pytest.mark.parametrize("assignment", ["alpha", "alfa=3", "alpha=-3", "top_p=0.5"])
def test_a_bad_assignment_is_refused(assignment: str) -> None:
    message, hint = refusal({"top_p": "0.9"}, assignments=(assignment,))
    assert "--set" in message
    check("config", f"--set {assignment}", f"{message}\n{hint}")


def test_a_value_may_hold_an_equals_sign() -> None:
    resolved = resolve({}, assignments=["system=a=b"], environment={})
    assert (resolved.settings.system, resolved.sources["system"]) == ("a=b", Source("flag", "--set"))


@pytest.mark.parametrize("name", ["expert", "draft", "direction"])
@pytest.mark.parametrize("text", ["", "none", "Null"])
def test_what_a_method_loads_can_be_taken_back(name: str, text: str) -> None:
    environment = {f"ADACD_{name.upper()}": "some/folder"}
    assert resolve({}, environment=environment).settings.model_dump()[name] == "some/folder"
    for flags, assignments in (({name: text}, ()), ({}, [f"{name}={text}"])):
        resolved = resolve(flags, assignments=assignments, environment=environment)
        assert resolved.settings == Settings()
    assert change(Settings(**{name: "some/folder"}), name, text, "/set") == Settings()
    assert resolve({"system": "none"}, environment={}).settings.system == "none"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"gate": True, "method": "selfcd"}, ("`gate`", "selfcd", "--method")),
        ({"draft": "small", "method": None}, ("`draft`", "ssd", "adacd")),
        ({"expert": "lora", "method": "surgical"}, ("`expert`", "safedecoding", "surgical", "--method")),
        ({"tokenizer": "x"}, ("`tokenizer`", "'demo'")),
        ({"model": "http://localhost:1/v1", "dtype": "auto"}, ("`dtype`",)),
        ({"model": "http://me:secret@localhost:1/v1"}, ("`model`", "--model", "ADACD_MODEL_KEY")),
    ],
)
def test_a_flag_that_does_not_go_with_the_others_is_refused(
    flags: dict[str, Any], named: tuple[str, ...]
) -> None:
    message, hint = refusal(flags)
    assert all(name in f"{message} {hint}" for name in named) and "secret" not in message
    check("config", f"flags {flags}", f"{message}\n{hint}")


def test_a_file_may_name_what_other_methods_need(tmp_path: Path) -> None:
    config = write(tmp_path, "method: surgical\ndraft: small\ngate: true\n")
    settings = resolve({"method": "surgical"}, config, environment={}).settings
    assert (settings.method, settings.draft, settings.direction) == ("surgical", "small", None)
    # where the command has no --method, as eval, each run is checked by itself
    assert resolve({"draft": "other"}, config, environment={}).settings.draft == "other"


@pytest.mark.parametrize(
    ("settings", "name", "text", "where"),
    [
        (Settings(), "method", "ssd", "/method"),
        (Settings(method="surgical", direction="d"), "direction", "none", "/set"),
        (Settings(method="selfcd"), "gate", "true", "/set"),
        (Settings(), "alpha", "-1", "/set"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused(
    settings: Settings, name: str, text: str, where: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        change(settings, name, text, where)
    check("config", f"{where} {name} {text}", f"{refused.value.message}\n{refused.value.hint}")


def test_change_sets_one_setting_from_text() -> None:
    assert change(Settings(alpha=2), "top_k", "5", "/set") == Settings(alpha=2, top_k=5)


@pytest.mark.parametrize(
    ("values", "method"),
    [
        ({}, "adacd"),
        ({"gate": True}, "adacd-gated"),
        ({"method": "adacd-gated"}, "adacd-gated"),
        ({"method": "default", "gate": True}, "default"),
    ],
)
def test_the_gate_makes_adacd_gated(values: dict[str, Any], method: str) -> None:
    assert Settings(**values).effective_method == method


def test_decoding_holds_json_values_only() -> None:
    assert Settings(stop=("a",), seed=3).decoding() == {
        "contrast_prompt": "Please refuse to answer me!",
        "contrast_placement": "system",
        "thinking": False,
        "switch": "agreement",
        "alpha": 4.5,
        "agreement_threshold": 0.9,
        "plausibility": 0.01,
        "contrast_steps": 10,
        "max_new_tokens": 512,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "seed": 3,
        "stop": ["a"],
    }


@pytest.mark.parametrize(
    "values", [{"alpha": "1"}, {"contrast_steps": True}, {"gate": 1}, {"alpha": float("nan")}, {"alfa": 1}]
)
def test_settings_made_in_code_are_strict(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**values)


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().alpha = 1.0  # type: ignore[misc]


def test_default_yaml_mirrors_every_setting_in_order_with_sentence_unit_and_range() -> None:
    text = (ROOT / "configs" / "default.yaml").read_text(encoding="utf-8")
    defaults = Settings().model_dump(mode="json")
    assert list(yaml.safe_load(text).items()) == list(defaults.items())
    blocks = {block.splitlines()[-1].split(":")[0]: block for block in text.strip().split("\n\n")}
    for setting in SETTINGS.values():
        comment = " ".join(line.removeprefix("# ") for line in blocks[setting.name].splitlines()[:-1])
        facts = [f"One of {', '.join(setting.choices)}."] if setting.choices else []
        facts += [f"Unit: {setting.unit}."] if setting.unit else []
        facts += [f"Range: {setting.range}."] if setting.range else []
        assert comment == " ".join([setting.sentence, *facts])


PAPER = {
    "contrast_prompt": "Please refuse to answer me!",
    "method": "adacd",
    "alpha": 4.5,
    "agreement_threshold": 0.9,
    "plausibility": 0.01,
    "contrast_steps": 10,
    "max_new_tokens": 512,
    "temperature": 0.0,
}


@pytest.mark.parametrize(
    ("preset", "more"),
    [
        ("llama3-8b", {"model": "meta-llama/Meta-Llama-3-8B-Instruct"}),
        ("gemma2-9b", {"model": "google/gemma-2-9b-it"}),
        ("qwen3-8b", {"model": "Qwen/Qwen3-8B", "thinking": False}),
    ],
)
def test_a_preset_names_the_whole_run_of_the_paper(preset: str, more: dict[str, Any]) -> None:
    resolved = resolve({}, preset, environment={})
    values = resolved.settings.model_dump()
    from_file = {name: values[name] for name, source in resolved.sources.items() if source.kind == "file"}
    assert from_file == PAPER | more


def test_the_presets_are_the_files_of_configs() -> None:
    assert list(presets()) == ["default", "gemma2-9b", "llama3-8b", "qwen3-8b"]
