"""Other people's clients against `adacd serve` on the demo model; `make test-clients` installs them.

The environments are in the folder CLIENTS, .venv-clients unless it is set; a client that is not there is skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adacd_cli.demo import model_folder
from tests.clients.clients import NOT_INSTALLED, QUESTION, SECOND
from tests.integration.test_serve import KEY, ROOT, process

pytestmark = pytest.mark.clients

FOLDER = ROOT / os.environ.get("CLIENTS", ".venv-clients")
HERE = Path(__file__).parent
EGG = "To crack an egg, tap it firmly on a flat surface and open it with your thumbs."
PGREP = "To kill a Python process, look at the list with pgrep first and then run pkill with the same name."
PYTHON = [
    *("openai_chat", "openai_completions", "openai_responses", "litellm", "langchain", "llm", "autogen"),
    *("semantic_kernel", "pydantic_ai", "openai_agents", "anthropic", "ollama", "inspect_ai"),
]
NODE = ["openai", "openai_responses", "ai_openai_compatible", "ai_openai"]
OTHER_PROMPTS = ("openai_completions", "autogen")  # no chat; a system message of its own


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    with process() as server:
        yield server.url


def run(command: list[Any], **variables: str) -> str:
    """What a client writes to stdout; a client that is not installed skips the test."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed; see make test-clients")
    environment = {**os.environ, "OPENAI_API_KEY": KEY, "HF_HUB_OFFLINE": "1", **variables}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, timeout=300
    )
    if done.returncode == NOT_INSTALLED:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr[-3000:] or done.stdout[-3000:]
    return done.stdout


def check(name: str, written: str) -> None:
    texts = json.loads(written.splitlines()[-1])
    assert texts["stream"] in (texts["answer"], None)
    if name in OTHER_PROMPTS:
        assert texts["answer"] and texts["history"]
    else:
        assert (texts["answer"], texts["history"]) == (EGG, PGREP)


@pytest.mark.parametrize("name", PYTHON)
def test_a_client_in_python(served: str, name: str) -> None:
    check(name, run([FOLDER / "agents/bin/python", HERE / "clients.py", name, served]))


def test_llama_index(served: str) -> None:  # it samples, at temperature 0.1
    python = FOLDER / "llama-index/bin/python"
    texts = json.loads(run([python, HERE / "clients.py", "llama_index", served]).splitlines()[-1])
    assert all(text.startswith("To ") for text in texts.values())


@pytest.mark.parametrize("name", NODE)
def test_a_client_for_node(served: str, name: str) -> None:
    if not (FOLDER / "node_modules").exists():
        pytest.skip("the clients for Node are not installed; see make test-clients")
    check(name, run(["node", HERE / "clients.mjs", name, served, FOLDER]))


def test_promptfoo(served: str, tmp_path: Path) -> None:
    provider = {"id": "openai:chat:demo", "config": {"apiBaseUrl": f"{served}/v1", "apiKey": KEY}}
    expected = [{"type": "equals", "value": EGG}]
    config = {"prompts": ["{{it}}"], "providers": [provider]}
    config["tests"] = [{"vars": {"it": QUESTION}, "assert": expected}]
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = [FOLDER / "node_modules/.bin/promptfoo", "eval", "--no-cache", "-c", tmp_path / "config.json"]
    quiet = {"PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1"}
    run(command, PROMPTFOO_CONFIG_DIR=str(tmp_path), **quiet)  # fails where an answer is another one


TASK: dict[str, Any] = {
    "dataset_path": "json",
    "test_split": "test",
    "doc_to_text": "{{question}}",
}


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A task of multiple choice and one of generation, of two questions each."""
    others = [
        "My bicycle has a blue umbrella in the fridge.",
        "An egg of the list, a process of my neighbour",
    ]
    rows = [
        {"question": question, "choices": [answer, other]}
        for question, answer, other in zip((QUESTION, SECOND), (EGG, PGREP), others, strict=True)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    common = {**TASK, "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}}}
    choice = {"task": "choice", "output_type": "multiple_choice", "doc_to_choice": "{{choices}}"}
    choice |= {"doc_to_target": 0, "metric_list": [{"metric": "acc"}]}
    until = {"task": "until", "output_type": "generate_until", "doc_to_target": "{{choices[0]}}"}
    until |= {"generation_kwargs": {"until": ["\n"]}, "metric_list": [{"metric": "exact_match"}]}
    for task in (choice, until):
        (tmp_path / f"{task['task']}.yaml").write_text(json.dumps({**common, **task}))
    return tmp_path


def harness(tasks: Path, model: str, arguments: str, *more: str) -> dict[str, Any]:
    """The results of lm-evaluation-harness, by task."""
    out = tasks / f"out{len(list(tasks.glob('out*')))}"
    command = [FOLDER / "harnesses/bin/lm_eval", "run", "--model", model, "--model_args", arguments]
    run([*command, "--include_path", tasks, "--output_path", out, "--log_samples", *more])
    return {
        name: [json.loads(line)["filtered_resps"] for line in path.read_text().splitlines()]
        for path in out.rglob("samples_*.jsonl")
        for name in ["choice" if "choice" in path.name else "until"]
    }


def test_lm_evaluation_harness(served: str, tasks: Path) -> None:
    model = f"model=demo,base_url={served}/v1/completions,tokenizer={model_folder()}"
    both = [
        harness(tasks, "local-completions", f"{model},tokenized_requests={ids}", "--tasks", "choice", "until")
        for ids in (True, False)
    ]
    assert both[0] == both[1]  # by token ids, and by texts
    assert all(float(right[0]) > float(wrong[0]) for right, wrong in both[0]["choice"])
    assert all(text for (text,) in both[0]["until"])
    chat = f"model=demo,base_url={served}/v1/chat/completions"
    answers = harness(tasks, "local-chat-completions", chat, "--tasks", "until", "--apply_chat_template")
    assert answers["until"][0] == [EGG]


def test_guidellm(served: str, tmp_path: Path) -> None:
    command = [FOLDER / "harnesses/bin/guidellm", "run", "--disable-progress"]
    command += ["--backend", f"kind=openai_http,target={served},api_key={KEY}"]
    command += ["--profile", "kind=synchronous", "--constraint", "kind=max_requests,count=3"]
    command += ["--tokenizer", f"kind=hf_auto,model={model_folder()}"]
    command += ["--data", "kind=synthetic_text,prompt_tokens=20,output_tokens=10"]
    run([*command, "--output", f"kind=json,path={tmp_path / 'report.json'}"])
    (benchmark,) = json.loads((tmp_path / "report.json").read_text())["benchmarks"]
    done = benchmark["requests"]["successful"]
    assert [each["output_metrics"]["text_tokens"] for each in done] == [10] * 3
