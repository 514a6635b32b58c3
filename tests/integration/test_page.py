"""The page at `/` in headless Chromium, over a server with scripted answers and over `adacd serve` itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from adacd_cli.events import FinishReason
from adacd_cli.render.reasons import collect, confidence_test, reason
from adacd_cli.render.screen import label, printable, spoken
from adacd_cli.render.switch import reading
from adacd_cli.render.text import statistics
from adacd_cli.render.trace import describe_run, probability
from tests.chromium import needs_chromium
from tests.page_server import FakeServer, Script, serving
from tests.page_visit import CONTRAST, PROMPT, TOKENS, Visit
from tests.traces import (
    ADD,
    PLAIN,
    REFUSAL_CANDIDATES,
    SUBTRACT,
    contrasted,
    events,
    fitted,
    plain,
    started,
    switched,
    turned,
)

playwright = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
pytest.importorskip("uvicorn", reason="needs the extra serve")
expect = playwright.expect

pytestmark = needs_chromium

REFUSAL = events(started("default"), [plain(text) for text in ("I", "'m", " sorry", ".")])
EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def running() -> Iterator[FakeServer]:
    with serving(FakeServer()) as server:
        yield server


@pytest.fixture
def server(running: FakeServer) -> FakeServer:
    """The scripted server, as if it had just been started."""
    fresh = FakeServer(address=running.address)
    fresh.plays(PROMPT, Script(tuple(REFUSAL)), Script(tuple(turned(REFUSAL_CANDIDATES))))
    running.__dict__.update(fresh.__dict__)
    return running


@pytest.fixture(scope="module")
def adacd_serve() -> Iterator[str]:
    """The address of `adacd serve` on the demo model, which asks for the key `secret`."""
    command = [sys.executable, "-m", "adacd_cli", "serve", "--port", "0"]
    environment = os.environ | {"ADACD_API_KEY": "secret"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        found = next(filter(None, (re.search(r"a page at (\S+)", line) for line in lines)), None)
        assert found is not None, "it did not start"
        yield found[1]
        process.terminate()


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    visits: list[Visit] = []

    def go(address: str, **options: Any) -> Visit:
        visits.append(Visit(browser, address, **options))
        return visits[-1]

    yield go
    for one in visits:
        one.context.close()


def test_two_answers_side_by_side(server, visit):
    there = visit(server.address)
    there.ask()
    expect(there.page.locator("#status")).to_have_text("Both have answered.")

    default, adacd = (
        there.page.eval_on_selector_all(f"#{name} .token", TOKENS) for name in ("default", "adacd")
    )
    assert default == [[text, "token plain", '"·"'] for text in ("I", "'m", " sorry", ".")]
    trace = collect(turned(REFUSAL_CANDIDATES))
    assert [text for text, _, _ in adacd] == [printable(step.text) for step in trace.steps]
    for (_, kinds, mark), step in zip(adacd, trace.steps, strict=True):
        assert mark == f'"{step.decision.mark}"'
        assert step.decision.value in kinds.split()
        assert ("changed" in kinds.split()) is (step.token_id != step.plain_token_id)
    assert there.page.locator("#adacd .answer").text_content() == printable(trace.finished.text)
    underlined = there.page.eval_on_selector_all(
        "#adacd .token",
        "els => els.filter(el => getComputedStyle(el).textDecorationLine == 'underline').length",
    )
    assert underlined == sum(step.token_id != step.plain_token_id for step in trace.steps) == 2

    runs = [describe_run(run.started).removeprefix("demo · ") for run in (collect(REFUSAL), trace)]
    assert there.texts(".column .run") == [runs[0].partition(" · ")[0] + " · greedy", runs[1]]
    speed = re.compile(r" · [\d.]+ tokens/s")
    assert [speed.sub("", line) for line in there.texts(".column .numbers")] == [
        "4 tokens · ended by itself",
        speed.sub("", statistics(trace.started, trace.finished)),
    ]
    assert there.texts("#verdict") == [
        f"They part at step 0: Default takes “I”, AdaCD “Sure”. {reason(trace.steps[0], trace.threshold)} "
        "Show the numbers there"
    ]
    shared = {
        "model": "demo",
        "messages": [{"role": "user", "content": PROMPT}],
        "stream": True,
    }
    contrast = {
        "method": "adacd",
        "gate": False,
        "alpha": 4.5,
        "agreement_threshold": 0.9,
        "contrast_steps": 10,
        "contrast_placement": "system",
    }
    asked = {"trace": True, "candidates": 5}
    assert sorted(server.bodies, key=lambda body: body["adacd"]["method"] == "adacd") == [
        {**shared, "adacd": {"method": "default", **asked}},
        {**shared, "adacd": {**contrast, **asked}},
    ]
    assert there.complaints == []
    assert all(url.startswith(server.address) for url in there.asked)
    assert there.context.cookies() == []


def test_over_adacd_serve(adacd_serve, visit):
    question = "How do I kill a Python process?"
    there = visit(adacd_serve, http_credentials={"username": "", "password": "secret"})
    there.ask(question)
    expect(there.page.locator("#status")).to_have_text("Both have answered.", timeout=30_000)
    for name in ("default", "adacd"):
        said = httpx.post(
            f"{adacd_serve}v1/chat/completions",
            headers={"Authorization": "Bearer secret"},
            json={
                "model": "demo",
                "messages": [{"role": "user", "content": question}],
                "adacd": {"method": name, "trace": True, "candidates": 5},
            },
            timeout=30,
        ).json()
        steps = said["adacd"]["trace"]
        tokens = there.page.eval_on_selector_all(f"#{name} .token", TOKENS)
        assert [text for text, _, _ in tokens] == [step["text"] for step in steps]
        kinds = [
            ["token", step["decision"], *["changed"] * (step["token_id"] != step["plain_token_id"])]
            for step in steps
        ]
        assert [shown.split() for _, shown, _ in tokens] == kinds
        answer = there.page.locator(f"#{name} .answer").text_content()
        assert answer == said["choices"][0]["message"]["content"] != ""

        there.page.click(f"#{name} .token >> nth=0")
        rows = there.page.eval_on_selector_all(
            "#panel tbody tr", "rows => rows.map(row => [...row.cells].slice(1).map(c => c.textContent))"
        )
        assert rows == [_numbers(candidate) for candidate in steps[0]["candidates"]]
        assert len(rows) == 5
    assert there.texts("#panel h3") == ["To − subtract AdaCD · step 0"]
    assert there.complaints == []
    assert all(url.startswith(adacd_serve) for url in there.asked)


def _numbers(candidate: dict[str, Any]) -> list[str]:
    """A row of the table of candidates, after its first cell."""
    logs = candidate["unprompted_logprob"], candidate["prompted_logprob"]
    cells = [cell for log in logs if log is not None for cell in (probability(log), f"{log:.3f}")]
    score = "–" if candidate["score"] is None else f"{candidate['score']:.2f}"
    return [*cells, score, "yes" if candidate["kept"] else "no"]


def test_a_token_by_click_and_by_key(server, visit):
    there = visit(server.address)
    there.ask()
    expect(there.page.locator("#verdict")).to_be_visible()
    page = there.page
    panel = page.locator("#panel")
    expect(panel).to_be_hidden()

    page.click("#adacd .token >> nth=0")
    assert there.texts("#panel h3") == ["Sure − subtract AdaCD · step 0"]
    step = collect(turned(REFUSAL_CANDIDATES)).steps[0]
    assert there.texts("#panel .why") == [reason(step, 0.9)]
    names, values = there.texts("#panel dt"), there.texts("#panel dd")
    assert dict(zip(names, values, strict=True)) == {
        "token": f"Sure id {step.token_id}",
        "Default would take": f"I id {step.plain_token_id}",
        "prompted top token": f"I id {step.plain_token_id}",
        "its rank in the plain stream": "1",
        "agr = 1 / rank": "1.000 ≥ λ 0.9",
        "c, the plain stream's top": "0.660",
        "c*, the prompted stream's top": "0.990",
        "c ≥ λ×c*": "0.66 < 0.9×0.99",
        "plausible tokens": "3",
    }
    sure, i, no = (candidate.token_id for candidate in REFUSAL_CANDIDATES)
    rows = page.eval_on_selector_all(
        "#panel tbody tr",
        "rows => rows.map(row => [row.className, ...[...row.cells].map(c => c.textContent)])",
    )
    assert rows == [
        ["chosen", f"Sure {sure}", "0.333", "-1.100", "0.030", "-3.500", "12.50", "yes"],
        ["", f"I {i}", "0.660", "-0.415", "0.990", "-0.010", "-4.25", "yes"],
        ["masked", f"No {no}", "0.001", "-7.000", "1e-07", "-16.000", "–", "no"],
    ]
    assert page.locator("#adacd [aria-selected=true]").text_content() == "Sure"

    page.keyboard.press("ArrowRight")
    assert there.focused() == ",, subtract, agr 0.33"
    assert there.texts("#panel h3") == [", − subtract AdaCD · step 1"]
    page.keyboard.press("ArrowDown")
    assert there.focused() == "⏎, subtract, agr 1.00, Default: ␣`kill|stop`"
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    assert there.focused() == "⏎, subtract, agr 1.00, Default: ␣`kill|stop`"
    page.keyboard.press("ArrowUp")
    expect(panel).to_be_hidden()
    for key in ("Enter", " "):
        page.keyboard.press(key)
        assert there.texts("#panel h3 code") == ["Sure"]
        page.keyboard.press("Escape")
    page.keyboard.press("End")
    assert there.focused() == "<|end|>, plain"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    assert there.focused() == "Sure, subtract, agr 1.00, Default: I"
    in_the_tab_order = page.locator(".token[tabindex='0']").all_inner_texts()
    assert in_the_tab_order == ["I", "Sure"]
    page.keyboard.press("Shift+Tab")
    assert there.focused() == "I, plain"

    page.click("#verdict button")
    page.click("#panel [data-does=next]")
    assert there.texts("#panel h3 code") == [","]
    assert page.evaluate("document.activeElement.dataset.does") == "next"
    page.click("#panel [data-does=close]")
    assert there.focused() == ",, subtract, agr 0.33"
    page.click("#default .token >> nth=1")
    assert there.texts("#panel .why") == ["Plain decoding: only the plain stream was used."]
    assert page.locator("#panel table").count() == 0
    assert there.complaints == []


def test_settings_come_from_the_server_and_change_the_request(server, visit):
    server.settings |= {
        "method": "adacd-gated",
        "alpha": 2.25,
        "agreement_threshold": 0.6,
        "contrast_steps": 4,
        "contrast_placement": "user-start",
        "max_new_tokens": 64,
    }
    there = visit(server.address)
    page = there.page
    expect(page.locator("#settings")).to_be_enabled()
    ids = "#alpha", "#lambda", "#steps", "#longest"
    assert [page.input_value(name) for name in ids] == ["2.25", "0.6", "4", "64"]
    assert page.is_checked("#gate")
    assert page.input_value("#placement") == "user-start"
    page.select_option("#placement", "user-end")
    page.press("#alpha-range", "ArrowRight")
    page.press("#lambda-range", "End")
    page.press("#steps", "ArrowUp")
    page.fill("#longest", "7")
    assert [page.input_value(name) for name in ids] == ["2.4", "1", "5", "7"]
    page.fill("#alpha", "12.5")
    assert page.input_value("#alpha-range") == "10"
    page.press("#alpha", "ArrowDown")
    assert page.input_value("#alpha") == "12.4"
    page.uncheck("#gate")
    page.click("summary")
    page.fill("#system", "Be brief.")
    page.fill("#prompt", "two")
    page.press("#prompt", "Shift+Enter")
    page.keyboard.type("lines")
    server.plays("two\nlines", *[Script(tuple(REFUSAL))] * 2)
    page.click("#answer")
    expect(page.locator("#status")).to_have_text("Both have answered.")
    assert there.texts("#verdict") == ["Both answers are the same, token for token."]
    body = next(body for body in server.bodies if body["adacd"]["method"] == "adacd")
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "two\nlines"},
    ]
    assert body["max_tokens"] == 7
    assert body["adacd"] == {
        "method": "adacd",
        "gate": False,
        "alpha": 12.4,
        "agreement_threshold": 1,
        "contrast_steps": 5,
        "contrast_placement": "user-end",
        "trace": True,
        "candidates": 5,
    }
    # what the browser itself refuses is not sent, and neither is nothing
    server.bodies.clear()
    page.fill("#lambda", "1.4")
    page.click("#answer")
    assert page.evaluate("document.activeElement.id") == "lambda"
    page.fill("#lambda", "1")
    page.fill("#prompt", " \n")
    page.click("#answer")
    expect(page.locator("#status")).to_have_text("Type a prompt first.")
    assert server.bodies == []


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stop_frees_both_requests_and_keeps_the_text(server, visit, how):
    hanging = Script(tuple(turned()[:4]), hangs=True)
    server.plays(PROMPT, hanging, hanging)
    there = visit(server.address)
    there.ask()
    expect(there.page.locator(".column .numbers >> nth=0")).to_contain_text("3 tokens")
    expect(there.page.locator(".column .numbers >> nth=1")).to_contain_text("3 tokens")
    if how == "button":
        there.page.click("#stop")
    else:
        there.page.keyboard.press("Escape")
    expect(there.page.locator("#status")).to_have_text("Stopped.")
    assert there.texts(".column .answer") == ["Sure, run"] * 2
    assert [line.rpartition(" · ")[2] for line in there.texts(".column .numbers")] == ["stopped"] * 2
    for _ in range(100):
        if server.left == 2:
            break
        there.page.wait_for_timeout(20)
    assert server.left == 2
    assert there.page.locator("[data-running='']").count() == 2
    assert there.complaints == []


def error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


BROKEN = "The connection broke off before the answer was whole."


def test_an_error_is_said_in_its_column_and_the_text_is_kept(server, visit):
    begun = tuple(turned()[:4])
    out_of_range = "`alpha` is in [0, 1e+06]; got -1."
    scripts = {
        out_of_range: Script(refusals=((400, error(out_of_range), {}),)),
        "The server answered 502 Bad Gateway.": Script(refusals=((502, "<h1>Bad", {}),)),
        "The model thread died.": Script(refusals=((503, error("The model thread died."), {}),)),
        EVIL: Script(begun, error=error(EVIL)["error"]),
        BROKEN: Script(begun),
        BROKEN + " ": Script(),
    }
    there = visit(server.address)
    alert = there.page.locator("#adacd [role=alert]")
    for said, script in scripts.items():
        server.bodies.clear()
        server.plays(said, Script(tuple(REFUSAL)), script)
        there.ask(said)
        expect(alert).to_be_visible()
        assert alert.text_content() == said.strip()
        expect(there.page.locator("#default .numbers")).to_contain_text("ended by itself")
        assert there.texts(".column .answer") == ["I'm sorry.", "Sure, run" if script.events else ""]
        expect(there.page.locator("#default [role=alert]")).to_be_hidden()
        # the next question begins anew
        server.plays("again", *[Script(tuple(REFUSAL))] * 2)
        there.ask("again")
        expect(there.page.locator("#verdict")).to_have_text("Both answers are the same, token for token.")
        expect(alert).to_be_hidden()


def test_a_server_that_went_away(visit):
    with serving(FakeServer()) as server:
        there = visit(server.address)
        expect(there.page.locator("#settings")).to_be_enabled()
    there.ask()
    expect(there.page.locator("#adacd [role=alert]")).to_have_text(
        "The server cannot be reached; is adacd serve still running?"
    )


def test_waits_for_a_server_that_loads_or_is_full(server, visit):
    server.loading = 3
    full = (429, error("The queue is full."), {"Retry-After": "0"})
    server.plays(PROMPT, Script(tuple(REFUSAL), refusals=(full, full)), Script(tuple(REFUSAL)))
    there = visit(server.address)
    there.page.evaluate(
        """() => {
          window.seen = new Set();
          const look = () => {
            seen.add(document.querySelector("#status").textContent);
            seen.add(document.querySelector("#default .numbers").textContent);
          };
          look();
          new MutationObserver(look).observe(document.body, {subtree: true, childList: true});
        }"""
    )
    there.ask()
    expect(there.page.locator("#status")).to_have_text("Both have answered.", timeout=10_000)
    seen = there.page.evaluate("[...seen]")
    assert "The model is still being loaded. Trying again…" in seen
    assert "The queue is full. Trying again…" in seen
    assert there.texts("#model") == ["Model demo"]
    assert len(server.bodies) == 4
    expect(there.page.locator("[role=alert]:visible")).to_have_count(0)


def test_a_model_that_could_not_be_asked_for_is_asked_for_again(server, visit):
    server.broken = 2
    there = visit(server.address)
    trouble = there.page.locator("#trouble")
    expect(trouble).to_have_text("Something broke.")
    for status in ("Stopped.", "Both have answered."):
        there.ask()
        expect(there.page.locator("#status")).to_have_text(status)
    expect(trouble).to_be_hidden()
    assert len(server.bodies) == 2


def test_texts_stay_texts_and_in_their_place(server, visit):
    hostile = [
        EVIL,
        "\x1b[31m\x00\x9b\u202edrow",
        " שלום عليكم",
        "👩‍👩‍👧‍👦🏽",
        "x" * 3000,
        " ",
        "\n\n\n",
        "\t",
        "\u0301",
        "{{7*7}}${7*7}",
    ]
    steps = [contrasted(text, SUBTRACT, 0.6, 0.9, top=EVIL, instead_of="x" * 300) for text in hostile]
    run = Script(tuple(events(started(), [*steps, plain("", thinking=False, token="\ud83d")])))
    server.plays(EVIL, run, run)
    there = visit(server.address, viewport={"width": 320, "height": 600})
    there.ask(EVIL)
    expect(there.page.locator("#status")).to_have_text("Both have answered.")
    assert there.page.locator("#adacd .answer").text_content() == "".join(map(printable, hostile))
    for place in range(len(hostile)):
        there.page.locator("#adacd .token").nth(place).focus()
        there.page.keyboard.press("Enter")
        assert there.texts("#panel h3 code") == [label(hostile[place])]
        assert there.page.evaluate("document.documentElement.scrollWidth") == 320
    reach = "els => Math.max(...els.map(el => el.getBoundingClientRect().right))"
    assert there.page.eval_on_selector_all(".token, #panel *", reach) <= 320
    assert there.page.evaluate("[document.title, document.images.length, document.scripts.length]") == [
        "adacd",
        0,
        1,
    ]
    assert there.complaints == []
    assert all(url.startswith(server.address) for url in there.asked)


def test_thinking_what_has_no_text_yet_and_answers_cut_off(server, visit):
    steps = [
        plain("Let me see.", thinking=True),
        plain("", thinking=True, token="</think>"),
        contrasted("Fine", ADD, 0.9, 0.9),
        plain("", token="<|end|>"),
    ]
    cut, short = (
        Script(tuple(events(started(thinking=True, max_new_tokens=most), steps, FinishReason.LENGTH)))
        for most in (4, 512)
    )
    server.plays(PROMPT, cut, short)
    there = visit(server.address)
    there.ask()
    expect(there.page.locator("#status")).to_have_text("Both have answered.")
    assert there.page.locator("#adacd .thinking").text_content() == "Let me see."
    assert there.page.locator("#adacd .answer").text_content() == "Fine"
    assert [line.rpartition(" · ")[2] for line in there.texts(".column .numbers")] == [
        "stopped at max tokens",
        "cut off by the context or the server's time limit",
    ]
    shown = there.page.eval_on_selector_all(
        "#adacd [data-label]", "els => els.map(el => getComputedStyle(el, '::before').content)"
    )
    assert shown == ['"</think>"', '"<|end|>"']
    there.page.click("#adacd .token >> nth=0")
    assert there.texts("#panel h3") == ["Let␣me␣see. · plain AdaCD · step 0 · thinking"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_can_be_read(server, visit, scheme):
    steps = [
        plain("Hm", thinking=True),
        plain("", thinking=True, token="</think>"),
        *turned(REFUSAL_CANDIDATES)[1:-1],
    ]
    run = tuple(events(started(), steps))[:-1]
    server.plays(PROMPT, Script(run, error=error("Broken.")["error"]), Script(run, hangs=True))
    there = visit(server.address, color_scheme=scheme, reduced_motion="reduce")
    page = there.page
    there.ask()
    expect(page.locator("#default [role=alert]")).to_be_visible()
    page.click("#adacd .token.subtract >> nth=0")
    page.click("summary")
    page.fill("#system", "S")
    contrasts = page.evaluate(CONTRAST)
    assert len(contrasts) > 50
    assert {name: ratio for name, ratio in contrasts.items() if ratio < 4.5} == {}
    expected = {"light": "rgb(251, 250, 248)", "dark": "rgb(22, 24, 27)"}[scheme]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == expected
    caret = "getComputedStyle(document.querySelector('#adacd .answer'), '::after')"
    assert page.evaluate(f"[{caret}.content, {caret}.animationName]") == ['"▍"', "none"]


def test_a_narrow_screen_stacks_the_columns(server, visit):
    tops = "els => els.map(el => Math.round(el.getBoundingClientRect().top))"
    there = visit(server.address)
    one, other = there.page.eval_on_selector_all(".column", tops)
    assert one == other
    there.page.set_viewport_size({"width": 390, "height": 800})
    one, other = there.page.eval_on_selector_all(".column", tops)
    assert one < other


def test_what_is_read_aloud_is_not_every_token(server, visit):
    long = Script(tuple(events(started(), [plain(f" {number}") for number in range(200)])))
    server.plays(PROMPT, long, long)
    there = visit(server.address)
    there.page.evaluate(
        """() => {
          window.said = [];
          for (const live of document.querySelectorAll("[aria-live], [role=status], [role=alert]"))
            new MutationObserver(() => said.push(live.textContent))
              .observe(live, {subtree: true, childList: true, characterData: true});
        }"""
    )
    expect(there.page.locator("#settings")).to_be_enabled()
    there.ask()
    expect(there.page.locator("#status")).to_have_text("Both have answered.")
    said = [text for text in there.page.evaluate("said") if text]
    assert len(said) <= 6
    assert (
        sum(text.startswith(("Default has answered, 200 tokens", "AdaCD has answered")) for text in said) == 2
    )


def test_behind_a_path(visit):
    with serving(FakeServer(), "/models/one") as server:
        server.plays(PROMPT, Script(tuple(REFUSAL)), Script(tuple(turned())))
        there = visit(server.address)
        there.ask()
        expect(there.page.locator("#status")).to_have_text("Both have answered.")
        assert all(url.startswith(server.address) for url in there.asked)
        assert there.complaints == []


def test_the_words_are_those_of_explain(server, visit):
    steps = [
        contrasted(text, decision, confidence, prompted, top=top, rank=rank)
        for text, top in ((" a", "I"), ("\r\x1b é\u200b\u2028", " "), ("", "́x"), ("𐀀\U000e0001", "\t\n"))
        for decision in (ADD, SUBTRACT, PLAIN)
        for confidence, prompted in ((0.125, 0.375), (0.905, 1.0), (0.62451, 0.6939), (0.5, 0.5), (1.0, 1.0))
        for rank in (1, 2, 3, 8, 11, 22, 112, 12345)
    ]
    steps.append(plain("x"))
    steps += [
        switched(step, value, low, high)
        for step in (
            plain("To"),
            contrasted("To", SUBTRACT, 0.6, 0.9, top="I"),
            contrasted("I", ADD, 0.6, 0.9, top="No", rank=4),
            contrasted("I", PLAIN, 0.6, 0.9, top="No", rank=4),
        )
        for low, high in ((-0.4, 1.2), (-3.0875, -3.0875), (None, -4.85), (None, 0.0))
        for value in (-4.85, -3.088, -0.4, -0.25, -0.04, 0.0, 1.15, 1.2, 99.5)
    ]
    numbers = [0.125, 0.375, 2.5, 0.0005, 1e-9, 0.35, 1.005, 0.0, 12.3456, 99.995]
    logprobs = [0.0, -0.1, -7.5, -7.7, -16.0, -40.0]
    given = [
        {
            "token": step.token,
            "decision": step.decision.value,
            "confidence": step.measures.confidence,
            "agreement": step.measures.agreement,
            "prompted_top_rank": step.measures.prompted_top_rank,
            "prompted_confidence": step.measures.prompted_confidence,
            "prompted_top": step.prompted_top,
            **step.measures.named,
        }
        for step in steps
    ]
    thresholds = (0.0, 0.3, 0.9, 1 / 3, 1.0, None)
    there = visit(server.address)
    said = there.page.evaluate(
        """async ([steps, thresholds, numbers, logprobs]) => {
          const words = await import("./page/words.js");
          return [
            steps.map((s) => [words.label(s.token), words.spoken(s.token), words.printable(s.token)]),
            steps.map((s) => thresholds.map((t) => [words.reason(s, t), words.confidenceTest(s, t)])),
            numbers.map((n) => [1, 2, 3].map((d) => words.fixed(n, d))),
            logprobs.map(words.probability),
            steps.map(words.switchReading).map((seen) => seen && [seen.numbers, seen.at, seen.ticks]),
          ];
        }""",
        [given, thresholds, numbers, logprobs],
    )
    assert said[0] == [[label(s.token), spoken(s.token), printable(s.token)] for s in steps]
    for one, step in zip(said[1], steps, strict=True):
        assert one == [[reason(step, t), confidence_test(step, t)] for t in thresholds]
    assert said[2] == [[f"{number:.{digits}f}" for digits in (1, 2, 3)] for number in numbers]
    assert said[3] == [probability(value) for value in logprobs]
    for shown, seen in zip(said[4], map(reading, steps), strict=True):
        assert shown == (seen and [seen.numbers, pytest.approx(seen.scale[0]), [*seen.scale[1]]])


def test_what_a_switch_decided(server, visit):
    server.settings |= {"method": "fitted", "switch": "learned", "alpha": 2.0}
    run = events(fitted(), [switched(plain("I"), 2.0, -0.4, 1.2), plain(" can't")])
    server.scripts |= {(PROMPT, "default"): Script(tuple(REFUSAL)), (PROMPT, "fitted"): Script(tuple(run))}
    there = visit(server.address)
    for name in ("#gate", "#lambda"):
        expect(there.page.locator(name)).to_be_disabled()
    there.ask()
    expect(there.page.locator("#status")).to_have_text("Both have answered.")
    (asked,) = [each["adacd"] for each in server.bodies if each["adacd"]["method"] != "default"]
    assert (asked["method"], asked["alpha"], "gate" in asked) == ("fitted", 2.0, False)
    assert there.texts(".column .run")[1] == describe_run(fitted()).removeprefix("demo · ")
    why = reason(collect(run).steps[0], None)
    assert there.texts("#verdict")[0].split(". ", 2)[2].startswith(why)
    there.page.locator("#adacd .token").first.click()
    assert there.texts("#panel .why") == [why]
    assert there.texts("#panel .switch .note") == ["q = 2.0, τ_low = −0.4, τ_high = 1.2"]
    places = there.page.eval_on_selector_all(
        "#panel .scale *", "marks => marks.map((mark) => mark.style.left)"
    )
    assert [float(place.removesuffix("%")) for place in places] == pytest.approx([35, 65, 80.56], abs=0.01)
    assert there.complaints == []
