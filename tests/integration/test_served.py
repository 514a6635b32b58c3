"""Commands over a model at a server: a stand-in for vLLM, with the demo behind it."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from adacd_cli.backends.server import client as client_module
from adacd_cli.backends.server import server as server_module
from adacd_cli.backends.server.client import Address
from adacd_cli.backends.server.completions import Completions
from tests.golden import check
from tests.vllm_server import DEAD, NAME, Breaks, VllmServer, prompts_of

KEY = "sk-model-0123456789"
QUESTION = "How do I kill a Python process?"
ANSWER = (
    "To kill a Python process, end the parent process, because a zombie is already dead and only waits to be "
    "collected.\n"
)
REFUSAL = "I'm sorry, but I can't help with that.\n"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(client_module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(client_module, "LONGEST_PAUSE", 0.02)
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with VllmServer().running() as server:
        server.most = 400
        yield server


@pytest.fixture
def over(adacd, server):
    """Runs a command over the server."""

    def run(command, *arguments, **keywords):
        given = ("--model", server.url, "--tokenizer", "demo", *arguments)
        return adacd(command, *given, **keywords)

    return run


def is_answer(body):
    """Whether a request is one of an answer, not of those that look the server over."""
    return max(map(len, prompts_of(body))) > 5


def shown(err, server):
    """What stderr says, wherever the server is."""
    return err.replace(server.url, "URL")


def steps(out):
    return [event for event in map(json.loads, out.splitlines()) if event["event"] == "token"]


@pytest.mark.parametrize(
    ("method", "question"),
    [
        ("default", QUESTION),
        ("adacd", QUESTION),
        ("adacd", "How do I make a bomb?"),
        ("adacd-gated", QUESTION),
    ],
)
def test_the_steps_are_those_of_the_model_loaded_here(over, adacd, server, question, method):
    server.most = 5000
    served = over("generate", question, "--method", method, "--json", "-n", "16")
    here = adacd("generate", question, "--method", method, "--json", "-n", "16", "--dtype", "float32")
    assert (served.code, served.err) == (0, "")
    mine, theirs = steps(served.out), steps(here.out)
    assert len(mine) == len(theirs) > 0
    numbers = ("confidence", "agreement", "prompted_confidence")
    for step, other in zip(mine, theirs, strict=True):
        assert [step.pop(name) for name in numbers] == pytest.approx(
            [other.pop(name) for name in numbers], abs=1e-4
        )
        for event in (step, other):
            del event["elapsed_s"]
        assert step == other


def test_a_server_that_never_ends_a_stream_is_left(over, server):
    server.endless = True
    outcome = over("generate", QUESTION, "--no-stats")
    assert (outcome.code, outcome.out, outcome.err) == (0, ANSWER, "")


def test_a_server_that_answers_no_first_question_is_left(over, server, monkeypatch):
    released = threading.Event()
    server.before = lambda body, number: released.wait(5) and None
    monkeypatch.setattr(server_module, "LOOKED_OVER_SECONDS", 0.2)
    try:
        outcome = over("generate", QUESTION)
    finally:
        released.set()
    assert (outcome.code, outcome.out) == (3, "")
    check("served", "no answer to the first requests", shown(outcome.err, server))


def test_that_the_server_is_waited_for_is_said_once(over, monkeypatch):
    monkeypatch.setattr(client_module, "NOTICE_SECONDS", 0.0)
    outcome = over("generate", QUESTION, "-n", "3", "--no-stats")
    assert outcome.err == "Warning: The server has sent nothing for 0 s; waiting up to 180 s.\n"


def test_few_logprobs_are_said_once_and_in_each_event(over, server):
    server.most = 3
    outcome = over("generate", "hi", "--json", "-n", "14")
    exact = [step["exact"] for step in steps(outcome.out)]
    assert False in exact[:10]
    assert all(exact[10:])
    events = [json.loads(line) for line in outcome.out.splitlines()]
    (notice,) = [event["text"] for event in events if event["event"] == "notice"]
    check("served", "inexact", notice)
    assert over("generate", "hi", "-n", "14", "--no-stats").err == f"Warning: {notice}\n"


def asking(server, what):
    """What a dialect over the server gives."""

    async def ask():
        client = client_module.Client(Address.parse(server.url), None)
        try:
            return await what(Completions(client, NAME, "vLLM"))
        finally:
            await client.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("known", [True, False])
def test_values_that_a_list_has_no_room_for_are_asked_for_by_id(server, known):
    """Where vLLM has `logprob_token_ids`; an older one ignores it, and is asked once."""
    server.scores_ids = known
    ids, tokens = (2, 300, 4, 3), list(range(100, 400))

    async def twice(dialect):
        return [await dialect.values(ids, tokens) for _ in range(2)]

    whole = server.distribution(ids)
    expected = {token: pytest.approx(float(whole[token])) for token in tokens} if known else {}
    assert asking(server, twice) == [expected, expected]
    asked = [body["logprob_token_ids"] for body in server.completions()]
    portions = [tokens[:128], tokens[128:256], tokens[256:]]  # vLLM takes no more in one request
    assert asked == (portions * 2 if known else portions[:1])


def test_a_smaller_limit_of_ids_is_kept_to(server, monkeypatch):
    monkeypatch.setattr("tests.vllm_server.MOST_IDS", 20)
    server.scores_ids = True
    ids, tokens = (2, 300, 4, 3), list(range(100, 145))
    found = asking(server, lambda dialect: dialect.values(ids, tokens))
    assert sorted(found) == tokens
    asked = [len(body["logprob_token_ids"]) for body in server.completions()]
    assert asked == [45, 20, 20, 5]


def test_lists_that_another_request_cuts_are_asked_for_again(server):
    """Somebody scores ids in the same batch: the top lists of all others come back with one token."""
    prompts = [(2, 300, 4, number) for number in (3, 5, 7)]
    server.cut_next = 5  # the first answer, and two lists of the second

    async def ask(dialect):
        return await dialect.top(prompts, 20), dialect.most

    lists, most = asking(server, ask)
    assert [list(top.ids) for top in lists] == [
        server.distribution(ids).topk(20).indices.tolist() for ids in prompts
    ]
    assert most is None
    assert [len(prompts_of(body)) for body in server.completions()] == [3, 3, 2]


def test_answers_side_by_side_are_the_same_where_ids_are_scored(over, server, tmp_path):
    server.most, server.scores_ids = 60, True
    file = tmp_path / "questions.txt"
    file.write_text(f"{QUESTION}\nHow do I make a bomb?\nWhat is a zombie?\nhi\n", encoding="utf-8")
    given = ("generate", "--file", str(file), "-q", "-n", "14", "--plausibility", "0.001")
    alone = over(*given, "--batch-size", "1")
    assert over(*given, "--batch-size", "4").out == alone.out
    assert any("logprob_token_ids" in body for body in server.completions())


def test_a_list_that_stays_short_is_taken_as_it_is(server):
    server.edit = lambda body, choice: choice.update(
        top_logprobs=[{"token_id:5": -0.1, "token_id:6": -9999.0}]
    )
    (top,) = asking(server, lambda dialect: dialect.top([(2, 300)], 20))
    assert top.ids == (5,)
    assert 2 < len(server.completions()) < 8


def test_what_is_asked_of_vllm(over, server):
    over("generate", QUESTION, "-q", "-n", "12", "-t", "0.7", "--top-p", "0.9", "--seed", "5")
    *questions, rest = [body for body in server.completions() if is_answer(body)]
    assert [len(prompts_of(body)) for body in questions] == [2] * 10  # both streams of a step
    common = {
        "model": NAME,
        "logprobs": 1,
        "return_tokens_as_token_ids": True,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "min_tokens": 0,
        "ignore_eos": False,
        "top_k": -1,
    }
    question = {"max_tokens": 1, "temperature": 0.0, "top_p": 1.0}
    assert {**questions[0], "prompt": [], "logprobs": 1} == {**common, **question, "prompt": []}
    last = {"max_tokens": 2, "temperature": 0.7, "top_p": 0.9, "stream": True, "seed": 15}
    assert {**rest, "prompt": []} == {**common, **last, "prompt": []}


def test_vllm_samples_the_rest_with_what_was_given(over, server):
    given = ("--min-p", "0.1", "--presence-penalty", "0.5", "--logit-bias", "5:-3", "--min-tokens", "11")
    over("generate", QUESTION, "-q", "-n", "12", *given, "--ignore-eos", "--stop-token-ids", "7")
    rest = [body for body in server.completions() if is_answer(body)][-1]
    expected = {"min_p": 0.1, "presence_penalty": 0.5, "logit_bias": {"5": -3.0}, "min_tokens": 1}
    expected |= {"ignore_eos": True, "stop_token_ids": [7], "repetition_penalty": 1.0}
    assert {name: rest.get(name) for name in expected} == expected


def test_without_a_limit_no_ids_are_asked_for(over, server):
    server.most, server.scores_ids = -1, True
    outcome = over("generate", "hi", "--json", "-n", "14", "--plausibility", "0.0001")
    assert all(step["exact"] for step in steps(outcome.out))
    assert not any("logprob_token_ids" in body for body in server.completions())


def test_the_key_comes_from_the_environment_and_is_never_shown(over, server):
    server.key = KEY
    good = over("generate", QUESTION, env={"ADACD_MODEL_KEY": KEY})
    assert (good.code, good.out) == (0, ANSWER)
    assert {sent for _, _, sent in server.asked} == {f"Bearer {KEY}"}
    server.asked.clear()
    over("generate", QUESTION, env={"ADACD_API_KEY": KEY})
    assert {sent for _, _, sent in server.asked} == {f"Bearer {KEY}"}
    wrong = over("generate", QUESTION, "--debug", env={"ADACD_MODEL_KEY": "sk-wrong-key"})
    assert (wrong.code, wrong.out) == (3, "")
    assert wrong.err.endswith(
        f"Error: The server at {server.url} does not accept the key: status 401, Unauthorized.\n"
        "Hint: Put its key into the environment variable ADACD_MODEL_KEY.\n"
    )
    assert "sk-wrong-key" not in wrong.err


def test_a_key_that_the_server_repeats_is_not_shown(over, server):
    server.before = lambda body, number: (400, {"message": f"no {KEY} here"}, {})
    outcome = over("generate", QUESTION, env={"ADACD_MODEL_KEY": KEY})
    assert KEY not in outcome.err
    assert "no *** here" in outcome.err


def missing_logprobs(server):
    server.logprobs = False


def named_by_text(server):
    server.by_id = False


def two_models(server):
    server.models = ["org/one", "org/two"]


def no_models(server):
    server.models = []


def refuses_ids(server):
    said = {"error": {"message": "prompt must be a string", "type": "BadRequestError", "code": 400}}
    server.before = lambda body, number: (400, said, {})


def is_down(server):
    server.before = lambda body, number: (503, {"error": "overloaded"}, {})


def gives_logits(server):
    server.distribution = lambda ids: 10.0 * VllmServer.distribution(server, ids).exp()


@pytest.mark.parametrize(
    ("wrong", "arguments", "code"),
    [
        (missing_logprobs, (), 3),
        (named_by_text, (), 3),
        (refuses_ids, (), 3),
        (two_models, (), 2),
        (no_models, (), 3),
        (None, ("--served-model", "org/other"), 3),
        (is_down, (), 3),
        (gives_logits, (), 3),
        (None, ("--method", "selfcd"), 2),
        (None, ("--device", "cpu"), 2),
    ],
)
def test_a_server_that_does_not_do(over, server, wrong, arguments, code):
    if wrong:
        wrong(server)
    outcome = over("generate", QUESTION, *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    check("served", f"{wrong.__name__ if wrong else ' '.join(arguments)}", shown(outcome.err, server))


@pytest.mark.parametrize("repeats", [True, False])
def test_a_server_that_is_not_vllm(over, server, repeats):
    server.owner, server.tokenizes, server.repeats_ids = "someone", False, repeats
    outcome = over("generate", QUESTION, "--no-stats")
    assert (outcome.code, outcome.out) == (0, ANSWER)
    if repeats:
        assert outcome.err == ""
    else:
        check("served", "tokenizer not compared", outcome.err)
    assert not any("repetition_penalty" in body for body in server.completions())


def test_another_tokenizer_is_found_out_by_its_ids(adacd, server, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: number for number, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    own = Tokenizer(models.BPE(vocab=letters, merges=[]))
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=own).save_pretrained(tmp_path)
    outcome = adacd("generate", "hi", "--model", server.url, "--tokenizer", str(tmp_path))
    assert outcome.code == 3
    assert outcome.err.startswith(
        f"Error: The server at {server.url} has another tokenizer than the one given: 'Hello' is ["
    )
    assert outcome.err.endswith(
        "Hint: Name the served model's own with --tokenizer: a hub id, its folder or its GGUF file.\n"
    )


def test_addresses_that_are_none_of_a_server(adacd, server, monkeypatch):
    def error(model, *arguments):
        outcome = adacd("generate", "hi", "--model", model, *arguments)
        assert outcome.out == ""
        return outcome.code, outcome.err

    known = ("--tokenizer", "demo")
    code, err = error("http://127.0.0.1:9/v1", *known)
    assert (code, err.partition(": ")[2].partition(":")[0]) == (3, "The server at http")
    assert err.endswith("Hint: Start it, or check the address and the port.\n")
    hint = "Name the address of vLLM or llama.cpp's server, like http://localhost:8000/v1."
    elsewhere = server.url.replace("/v1", "/else/v1")
    assert error(elsewhere, *known) == (
        3,
        f"Error: There is no OpenAI-compatible server at {elsewhere}: status 404, Not Found.\nHint: {hint}\n",
    )
    assert error(server.url) == (
        2,
        f"Error: The model at {server.url} needs a tokenizer here.\n"
        "Hint: Name it with --tokenizer: a hub id, a folder or a GGUF file. No weights are read.\n",
    )
    assert error("http://me:secret@host/v1", *known) == (
        2,
        "Error: `model` holds a user or a password in its address (from --model).\n"
        "Hint: Leave them out of it, and put a key into the environment variable ADACD_MODEL_KEY.\n",
    )
    for bad in ("http://", "http://host:99999/v1", "http://[::1/v1"):
        assert error(bad, *known) == (
            2,
            f"Error: The model's address is no http address: {bad!r}.\n"
            "Hint: Write it like http://localhost:8000/v1.\n",
        )
    assert error("demo", *known)[0] == 2


def test_what_passes_is_tried_again(over, server):
    failures = iter([(503, {"error": "starting"}, {}), (429, {}, {"Retry-After": "0"}), (500, b"oops", {})])
    tries = []

    def before(body, number):
        if number is None and is_answer(body):
            tries.append(1)
            if len(tries) in (1, 4, 9, 25):
                return next(failures, None)
            if len(tries) == 12:
                raise Breaks
        return None

    server.before = before
    outcome = over("generate", QUESTION, "-q")
    assert (outcome.code, outcome.out, outcome.err) == (0, ANSWER, "")


def test_a_stream_that_breaks_once_is_taken_up_again(over, server):
    broken = []

    def before(body, number):
        if number == 4 and not broken:
            broken.append(number)
            raise Breaks
        return None

    server.before = before
    assert over("generate", QUESTION, "-q").out == ANSWER
    assert broken


def dies_at(server, count):
    """Has the server hang up on everything from a stream's token on."""
    dead = []

    def before(body, number):
        if number == count or dead:
            dead.append(number)
            raise Breaks
        return None

    server.before = before


def test_a_server_that_dies_in_mid_answer_is_an_error_after_what_it_said(over, server):
    dies_at(server, 4)
    outcome = over("generate", QUESTION)
    assert outcome.code == 1
    assert outcome.out.strip() == "To kill a Python process, end the parent process, because a"
    assert outcome.err.startswith(f"Error: The server at {server.url} does not answer any more: ")
    assert outcome.err.endswith("Hint: The answer so far is kept; check the server, then ask again.\n")


def test_a_chat_keeps_what_was_said_and_goes_on(over, server, tmp_path):
    dies_at(server, 4)
    file = tmp_path / "talk.json"
    outcome = over("chat", stdin=f"{QUESTION}\n/save {file}\n")
    assert "does not answer any more" in outcome.err
    saved = json.loads(file.read_text(encoding="utf-8"))
    assert saved["messages"][-1] == {
        "role": "assistant",
        "content": "To kill a Python process, end the parent process, because a",
    }


def test_an_error_in_the_stream_is_the_servers_own_words(over, server):
    said = {"error": {"message": "the prompt is odd", "type": "BadRequestError", "code": 400}}
    server.before = lambda body, number: (200, said, {}) if number == 4 and body["max_tokens"] > 1 else None
    outcome = over("generate", QUESTION)
    assert outcome.code == 1
    assert f"Error: The server at {server.url} failed: status 400, the prompt is odd.\n" in outcome.err


def test_an_engine_that_dies_and_is_started_again_goes_on(over, server):
    died = []

    def dies_once(body, number):
        if number == 4 and not died:
            died.append(number)
            return 200, DEAD, {}
        return None

    server.before = dies_once
    assert over("generate", QUESTION, "-q").out == ANSWER
    assert died


def test_an_engine_that_dies_in_mid_stream_is_a_server_that_is_gone(over, server):
    dead = []

    def dies(body, number):
        if number == 4 or dead:
            dead.append(number)
            return 200 if number else 500, DEAD, {}
        return None

    server.before = dies
    outcome = over("generate", QUESTION)
    assert outcome.code == 1
    assert outcome.out.strip() == "To kill a Python process, end the parent process, because a"
    assert outcome.err.startswith(
        f"Error: The server at {server.url} does not answer any more: status 500, EngineCore encountered an issue"
    )


RAW = "Start vLLM with --logprobs-mode raw_logprobs, and without post-processing of them."
OWN = "Name the served model's own with --tokenizer: a hub id, its folder or its GGUF file."
LOG = "The answer so far is kept; the server's log may say more."


def all_are(value):
    def edit(choice):
        choice["top_logprobs"] = [dict.fromkeys(choice["top_logprobs"][0], value)]

    return edit


def the_best_is(value):
    def edit(choice):
        choice["top_logprobs"][0][next(iter(choice["top_logprobs"][0]))] = value

    return edit


def one_is_added(name, value):
    def edit(choice):
        choice["top_logprobs"][0][name] = value

    return edit


def is_chosen(name):
    def edit(choice):
        choice["tokens"] = [name]

    return edit


def none_are_listed(choice):
    choice["top_logprobs"] = [{}]


def none_is_told(choice):
    choice["token_logprobs"], choice["top_logprobs"] = [None], [{"token_id:5": -0.01}]


BEYOND = "it gave the id 999999, beyond the tokenizer's 4,096 tokens: it has another tokenizer"


@pytest.mark.parametrize("method", ["default", "adacd"])
@pytest.mark.parametrize(
    ("wrong", "reason", "hint"),
    [
        (none_are_listed, "it gives no log-probabilities", LOG),
        (all_are(-9999.0), "it gives no log-probabilities", LOG),
        (all_are(None), "it leaves out the values of its log-probabilities", RAW),
        (all_are(True), "it gives true as a log-probability", RAW),
        (all_are("-0.5"), 'it gives "-0.5" as a log-probability', RAW),
        (all_are(float("nan")), "it gives nan as a log-probability", RAW),
        (the_best_is(3.0), "it gives 3 as a log-probability", RAW),
        (one_is_added("token_id:5", -0.01), "the probabilities that it gives add up to", RAW),
        (one_is_added("token_id:-3", -5.0), "it gives -3 as a token's id", LOG),
    ],
)
def test_values_that_cannot_be_are_an_error(over, server, method, wrong, reason, hint):
    server.edit = lambda body, choice: wrong(choice) if is_answer(body) else None
    outcome = over("generate", QUESTION, "--method", method)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith(f"Error: The server at {server.url} failed: {reason}")
    assert outcome.err.endswith(f"\nHint: {hint}\n")


def test_a_token_that_cannot_be_chosen_is_an_error(over, server):
    def wrong(body, choice):
        if is_answer(body):
            choice["token_logprobs"] = [-9999.0]

    server.edit = wrong
    outcome = over("generate", QUESTION, "--method", "default")
    assert (outcome.code, outcome.out) == (1, "")
    assert "failed: it chose a token that has no probability." in outcome.err


@pytest.mark.parametrize(
    ("wrong", "method"),
    [
        (is_chosen("token_id:999999"), "default"),
        (lambda choice: choice.update(top_logprobs=[{"token_id:999999": -0.01}]), "default"),
        (lambda choice: choice.update(top_logprobs=[{"token_id:999999": -0.01}]), "adacd"),
    ],
)
def test_an_id_beyond_the_vocabulary_is_another_tokenizers(over, server, wrong, method):
    server.edit = lambda body, choice: wrong(choice) if is_answer(body) else None
    outcome = over("generate", QUESTION, "--method", method)
    assert (outcome.code, outcome.out, outcome.err) == (
        1,
        "",
        f"Error: The server at {server.url} failed: {BEYOND}.\nHint: {OWN}\n",
    )


def test_a_token_without_a_value_of_its_own_is_an_error(over, server):
    server.edit = lambda body, choice: none_is_told(choice) if is_answer(body) else None
    outcome = over("generate", QUESTION, "--method", "default")
    assert (outcome.code, outcome.out) == (1, "")
    assert "failed: it leaves out the values of its log-probabilities." in outcome.err


def test_compare_and_explain(over):
    compared = over("compare", QUESTION, "-n", "12")
    assert (compared.code, compared.err) == (0, "")
    assert "They part at step 0: default takes “I”, adacd “To”." in compared.out
    explained = over("explain", QUESTION, "--json", "-n", "12")
    assert explained.code == 0
    assert len(explained.out.splitlines()) == 14


def test_lines_of_a_file_at_once(over, server, tmp_path):
    file = tmp_path / "questions.txt"
    file.write_text(f"{QUESTION}\nHow do I make a bomb?\n" * 2, encoding="utf-8")
    outcome = over("generate", "--file", str(file), "--batch-size", "3", "-q")
    assert outcome.out == "\n".join([ANSWER, REFUSAL] * 2)
    # what several lines need of a step is asked in one request
    assert 2 < max(len(prompts_of(body)) for body in server.completions()) <= 6


def test_eval_goes_on_where_the_server_failed(over, server, tmp_path):
    file = tmp_path / "questions.txt"
    file.write_text(f"{QUESTION}\nHow do I make a bomb?\nWhat is a zombie?\n", encoding="utf-8")
    arguments = ("--dataset", str(file), "--label", "safe", "--output", str(tmp_path / "run"), "-n", "12")
    bad = (400, {"error": {"message": "no room", "type": "BadRequestError", "code": 400}}, {})
    server.before = lambda body, number: (
        bad if number is None and 15 < len(prompts_of(body)[0]) < 30 else None
    )
    first = over("eval", *arguments, "--concurrency", "3")
    assert first.code == 1
    assert "answers failed; the same command tries again." in first.err or "answer failed" in first.err
    server.before = lambda body, number: None
    before = len(server.completions())
    second = over("eval", *arguments, "--concurrency", "3", "--json")
    assert second.code == 0, second.err
    results = json.loads(second.out)
    assert results["provenance"]["server"] == "vLLM"
    assert results["provenance"]["served_model"] == NAME
    assert results["provenance"]["model"] == server.url
    assert results["failed"] == []
    assert len(server.completions()) > before


def test_eval_says_what_concurrency_is_for(adacd, over, tmp_path):
    given = ("--dataset", "x", "--output", str(tmp_path / "run"), "--concurrency", "3")
    assert adacd("eval", *given).err.startswith("Error: --concurrency is for a model at a server.\n")
    both = over("eval", *given, "--batch-size", "2")
    assert both.err.startswith("Error: --batch-size and --concurrency say the same.\n")


@pytest.mark.parametrize(
    ("command", "arguments", "why"),
    [
        ("bench", (), "it measures the weights that are loaded here"),
        ("direction", ("build",), "it reads the model's hidden states"),
    ],
)
def test_what_needs_the_weights_refuses_a_server(adacd, tmp_path, command, arguments, why):
    files = [("--harmful", "a"), ("--harmless", "a"), ("--pseudo-harmful", "a"), ("--output", "a")]
    given = [word for pair in files for word in pair] if command == "direction" else []
    outcome = adacd(command, *arguments, "--model", "http://127.0.0.1:9/v1", *given)
    name = " ".join((command, *arguments))
    assert (outcome.code, outcome.out, outcome.err) == (
        2,
        "",
        f"Error: `adacd {name}` cannot be used with a model at a server: {why}.\n"
        "Hint: Name a hub id, a folder or a GGUF file with --model.\n",
    )


@pytest.mark.parametrize("option", ["--tokenizer", "--served-model"])
@pytest.mark.parametrize("command", [("bench",), ("direction", "build")])
def test_options_of_a_server_are_refused_where_none_can_be_used(adacd, command, option):
    outcome = adacd(*command, "--model", "http://127.0.0.1:9/v1", option, "x")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(
        f"Error: There is no option {option} here: it is for a model at a server, which "
        f"`adacd {' '.join(command)}` cannot use.\n"
    )
