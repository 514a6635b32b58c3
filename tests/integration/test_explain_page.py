"""The HTML page in headless Chromium: it draws, it is driven by keys, and no text of the model runs."""

from __future__ import annotations

from adacd_cli.render.reasons import collect
from adacd_cli.render.screen import View
from adacd_cli.render.trace import page
from tests.chromium import needs_chromium
from tests.traces import (
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

EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"

pytestmark = needs_chromium


def test_what_a_switch_saw(drive):
    first = switched(contrasted("To", SUBTRACT, 0.6, 0.9, top="I", instead_of="I"), -1.3, -0.4, 1.2)
    run = collect(events(fitted(), [first, contrasted(" kill", SUBTRACT, 0.6, 0.9)]))
    facts = "[...document.querySelectorAll('#detail dt')].map((name) => name.textContent)"
    seen = drive(
        page(run, View("How do I kill a process?")),
        [
            "$('.run').textContent",
            "$('.why').textContent",
            "$('.switch').textContent",
            "[...document.querySelectorAll('.scale *')].map((mark) => Math.round(parseFloat(mark.style.left)))",
            facts,
            "$('#next').click()",
            "document.querySelectorAll('.switch').length",
            facts,
        ],
    )
    names = ["Default would take", "prompted top token", "its rank in the plain stream", "agr(n) = 1 / rank"]
    names.append("plausible tokens")
    assert seen == [
        "demo · fitted · profile qwen · α 2 · learned switch · β 0.01 · k 10 · greedy",
        "The first token's distribution looks like that of a harmless question (q = −1.3 < τ_low = −0.4), so the "
        "refusal was pushed away.",
        "harmlessharmfulq = −1.3, τ_low = −0.4, τ_high = 1.2",
        [35, 65, 18],
        names,
        None,
        0,
        names,
    ]


def test_tokens_panel_and_keys(drive):
    document = page(collect(turned(REFUSAL_CANDIDATES)), View("How do I kill a process?"))
    seen = drive(
        document,
        [
            "document.querySelectorAll('#answer .token').length",
            "document.querySelector('#answer').textContent",
            "[...document.querySelectorAll('.token')].slice(0, 5).map((token) => token.className)",
            "$('#detail h3').textContent",
            "$('.why').textContent",
            "[...document.querySelectorAll('.candidates .name')].map((name) => name.textContent)",
            "[...document.querySelectorAll('.candidates .unprompted i')]"
            ".map((bar) => Math.round(parseFloat(bar.style.width)))",
            "press('ArrowRight')",
            "document.activeElement.textContent",
            "[...document.querySelectorAll('[tabindex=\"0\"]')].length",
            "document.activeElement.getAttribute('aria-selected')",
            "document.activeElement.getAttribute('aria-label')",
            "$('#position').textContent",
            "location.hash",
            "press('ArrowDown')",
            "document.activeElement.getAttribute('aria-label')",
            "press('End')",
            "document.activeElement.textContent",
            "$('#next').disabled",
            "$('#turn').click()",
            "$('#detail h3').textContent",
            "$('#thinking-section').hidden",
        ],
    )
    prevented = False  # what dispatchEvent gives when the page took the key
    assert seen == [
        13,
        "Sure, run\n kill [/INST] [bold] ␛[31m 終了 </script>|`x`.\n<|end|>",
        [
            "token subtract changed",
            "token subtract",
            "token add",
            "token subtract changed break",
            "token outside",
        ],
        "Sure− subtract",
        "Both streams have the same top token, “I”, but the plain one is less sure of its own "
        "(0.66 < 0.9×0.99). Agreement that weak does not count, so the refusal direction was subtracted.",
        ["Sure", "I", "No"],
        [33, 66, 0],
        prevented,
        ",",
        1,
        "true",
        "step 1 · , · − subtract, agr 0.333 (rank 3 for ␣cannot), c 0.910 · c* 0.500",
        "step 1 of 12",
        "#step-1",
        prevented,
        "step 3 · ⏎ · − subtract, agr 1.000 (rank 1 for ⏎), c 0.894 · c* 0.995, Default: ␣`kill|stop`",
        prevented,
        "<|end|>",
        True,
        None,
        "Sure− subtract",
        True,
    ]


def test_no_text_of_the_model_runs(drive):
    run = events(
        started(), [contrasted(EVIL, SUBTRACT, 0.5, 0.9, instead_of=EVIL), plain(EVIL, thinking=True)]
    )
    seen = drive(
        page(collect(run), View(EVIL)),
        ["document.title", "document.images.length", "$('#answer').textContent", "document.scripts.length"],
    )
    assert seen == [f"adacd: {EVIL[:80]}", 0, EVIL, 2]


def test_thousands_of_tokens_and_a_link_to_one(drive):
    run = events(started(), [plain(f" {number}") for number in range(5000)])
    seen = drive(
        page(collect(run), View("count")),
        ["document.querySelectorAll('.token').length", "$('[aria-selected=\"true\"]').textContent"],
        fragment="#step-4321",
    )
    assert seen == [5000, " 4321"]


def test_light_and_dark(drive):
    color = "getComputedStyle(document.body).backgroundColor"
    light, _, dark, _, again = drive(
        page(collect(turned()), View("hi")),
        [color, "$('#theme').click()", color, "$('#theme').click()", color],
    )
    assert (light, dark, again) == ("rgb(251, 250, 248)", "rgb(22, 24, 27)", "rgb(251, 250, 248)")


def test_a_page_without_tokens(drive):
    document = page(collect(events(started(max_new_tokens=0), [])), View("hi"))
    assert drive(document, ["$('#panel').hidden", "press('ArrowRight')"]) == [True, True]
