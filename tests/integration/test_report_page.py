"""The report in headless Chromium: figures in the page's colours, the browser of samples, and inert texts."""

from __future__ import annotations

from adacd_cli.evaluation.report.html import page
from adacd_cli.evaluation.store import AnswerRecord, JudgementRecord
from tests.chromium import needs_chromium
from tests.reports import EVIL, METHODS, SURE, run

pytestmark = needs_chromium

IDS = "[...document.querySelectorAll('.sample .id')].map((id) => id.textContent)"
COUNTS = "[...document.querySelectorAll('#show label')].map((label) => label.textContent)"


def choose(name, value):
    """The expression that picks an entry of a list."""
    return f"($('#{name}').value = '{value}', $('#{name}').dispatchEvent(new Event('change')))"


def many(count, methods=METHODS):
    """A run of `count` samples, whose results are those of the small one."""
    results, _, _ = run(methods)
    answers = [
        AnswerRecord(
            method,
            "own",
            f"s{n}",
            f"Question {n}?",
            "safe",
            "",
            f"Answer {n} of {method}.",
            "stop",
            9,
            0,
            0,
            1.0,
        )
        for n in range(count)
        for method in methods
    ]
    judgements = [JudgementRecord(*record.key, "keyword", "compliance", "") for record in answers]
    return results, answers, judgements


def test_what_is_shown_first(drive):
    seen = drive(
        page(*run()),
        [
            "document.title",
            "[...document.querySelectorAll('.verdict h3')].map((name) => name.textContent)",
            "[...document.querySelectorAll('figure h3')].length",
            "[...document.querySelectorAll('figure img')].every((one) => one.naturalWidth > 100)",
            COUNTS,
            IDS,
            "$('#position').textContent",
            "$('#below').checkVisibility()",
            "[...$('.sample').querySelectorAll('.answer')].map((answer) => answer.innerText.split(/\\n+/))",
            "[...document.querySelectorAll('.sample')][4].querySelectorAll('.answer')[2].innerText.split(/\\n+/)",
            "location.hash",
        ],
    )
    assert seen == [
        "org/<model>@0123abc: refusals by method",
        ["adacd", "prompt"],
        4,
        True,
        ["All 6", "✓ Fixed 3", "✕ Broken 2", "≠ Judges differ 1", "Degenerate 1", "Failed 1"],
        ["s8", "s9", "s10", "u1", "u2", "u3"],
        "samples 1–6 of 6",
        False,
        [
            ["default", "keyword: refusal openai: refusal", "I'm sorry, but I can't."],
            [
                "adacd",
                "✓ fixed keyword: compliance openai: compliance cut at 30 tokens",
                EVIL,
            ],
            ["prompt", "✓ fixed keyword: degenerate openai: degenerate", "empty"],
        ],
        ["prompt", "failed", "out of␇ memory"],
        "",
    ]


def test_no_text_of_a_model_or_a_user_runs(drive):
    results, answers, judgements = run()
    evil = {"dataset": EVIL, "id": EVIL, "prompt": EVIL, "label": "safe", "category": EVIL}
    for method in METHODS:
        answers.append(AnswerRecord(method, **evil, text=EVIL if method == "default" else EVIL + method))
        judgements.append(JudgementRecord(method, EVIL, EVIL, "keyword", "compliance", ""))
    answers.append(AnswerRecord("adacd", **{**evil, "id": "2"}, error=EVIL))
    results["failed"] = [{"method": "adacd", "dataset": EVIL, "id": EVIL, "error": EVIL}]
    results["results"]["adacd"][EVIL] = results["results"]["adacd"]["own-safe"]
    results["provenance"] = {**results["provenance"], "model": EVIL, "system": EVIL}
    document = page(results, answers, judgements)
    seen = drive(
        document,
        [
            "document.title",
            "document.images.length",
            "document.scripts.length",
            "[...document.querySelectorAll('.set')].map((name) => name.textContent).slice(3, 5)",
            "$('#set').options[2].value",
            choose("label", "failed"),
            "$('.answer.even .text').textContent",
            "($('#query').value = '<script>', $('#query').dispatchEvent(new Event('input')), wait(250))",
            "[...document.querySelectorAll('mark')].map((mark) => mark.textContent)[0]",
            "document.images.length + document.scripts.length",
        ],
    )
    title = f"{EVIL}@0123abc: refusals by method"
    assert seen == [title, 4, 2, [EVIL, EVIL], EVIL, True, EVIL, None, "<script>", 6]  # four figures


def test_filters_and_the_address(drive):
    seen = drive(
        page(*run()),
        [
            "$('#show-fixed').click()",
            IDS,
            "location.hash",
            choose("method", "prompt"),
            IDS,
            "[...$('.sample').querySelectorAll('h4')].map((name) => name.textContent)",
            choose("label", "refusal"),
            IDS,
            "location.hash",
            COUNTS,
            "$('#show-broken').click()",
            "$('#list').textContent",
            "$('#clear').click()",
            IDS,
            "[location.hash, $('#method').value, $('#show-all').checked]",
            "$('#show-differ').click()",
            IDS,
            "$('#show-degenerate').click()",
            IDS,
            "$('#show-failed').click()",
            IDS,
            "$('#clear').click()",
            choose("set", "harm"),
            IDS,
            choose("prompts", "safe"),
            "$('#position').textContent",
        ],
    )
    assert seen == [
        None,
        ["s8", "s10", "u1"],
        "#show=fixed",
        True,
        ["s8", "u1"],
        ["default", "prompt"],
        True,
        ["u1"],
        "#show=fixed&method=prompt&label=refusal",
        ["All 2", "✓ Fixed 1", "✕ Broken 0", "≠ Judges differ 0", "Degenerate 0", "Failed 0"],
        None,
        "No sample passes these filters.",
        None,
        ["s8", "s9", "s10", "u1", "u2", "u3"],
        ["", "", True],
        None,
        ["s9"],
        None,
        ["s8"],
        None,
        ["u2"],
        None,
        True,
        ["u2", "u3"],
        True,
        "no samples",
    ]


def test_search(drive):
    def search(words):
        return f"($('#query').value = {words!r}, $('#query').dispatchEvent(new Event('input')), wait(250))"

    marks = "[...document.querySelectorAll('mark')].map((mark) => mark.textContent)"
    seen = drive(
        page(*run()),
        [
            search("KILL"),
            IDS,
            f"[...new Set({marks})]",
            search("do i kill"),
            IDS,
            marks,
            search("-9 1234`."),
            "[...new Set([...document.querySelectorAll('mark')].map((mark) => mark.textContent))]",
            search("weapons"),
            IDS,
            search("(?:.*)"),
            IDS,
            search("memory"),
            choose("method", "adacd"),
            IDS,
            search("   "),
            "$('#position').textContent",
        ],
    )
    assert seen == [
        None,
        ["s9", "s10", "u1", "u2"],  # in a prompt or in an answer
        ["kill"],
        None,
        ["s10", "u1"],
        ["do I kill", "do I\nkill"],
        None,
        ["-9 1234`."],
        None,
        ["u2", "u3"],
        None,
        [],
        None,
        True,
        [],
        None,
        "samples 1–6 of 6",
    ]
    assert SURE.endswith("-9 1234`.")


def test_a_page_of_rows_at_a_time_and_keys(drive):
    prevented = False  # what dispatchEvent gives when the page took the key
    seen = drive(
        page(*many(3000)),
        [
            "document.querySelectorAll('.sample').length",
            "$('#position').textContent",
            "[$('#previous').disabled, $('#next').disabled, $('#below').checkVisibility()]",
            "$('#next-below').click()",
            "[$('#position').textContent, location.hash]",
            "$('.sample').focus()",
            "press('ArrowDown')",
            "document.activeElement.getAttribute('aria-label')",
            "document.querySelectorAll('.sample[tabindex=\"0\"]').length",
            "press('ArrowUp')",
            "document.activeElement.getAttribute('aria-label')",
            "press('ArrowRight')",
            "[document.activeElement.getAttribute('aria-label'), location.hash]",
            "press('ArrowLeft')",
            "document.activeElement.getAttribute('aria-label')",
            "press('Enter')",
            "[$('.sample').className, $('.more').getAttribute('aria-expanded')]",
            "press('/')",
            "document.activeElement.id",
            "press('/')",
            "document.querySelectorAll('*').length < 3000",
        ],
    )
    assert seen == [
        20,
        "samples 1–20 of 3,000",
        [True, False, True],
        None,
        ["samples 21–40 of 3,000", "#page=2"],
        None,
        prevented,
        "own-safe s21",
        1,
        prevented,
        "own-safe s20",
        prevented,
        ["own-safe s40", "#page=3"],
        prevented,
        "own-safe s20",
        prevented,
        ["sample open", "true"],
        prevented,
        "query",
        True,  # in the search it is a letter
        True,
    ]


def test_an_address_opens_a_filtered_page_whatever_it_says(drive):
    document = page(*many(3000))
    for fragment, shown in (
        ("#page=150", ["s2980", "samples 2,981–3,000 of 3,000"]),
        ("#page=99999", ["s2980", "samples 2,981–3,000 of 3,000"]),
        ("#page=x&show=__proto__&method=gone&constructor=1", ["s0", "samples 1–20 of 3,000"]),
        ("#q=Answer+77+of", ["s77", "samples 1–1 of 1"]),
        ("#samples", ["s0", "samples 1–20 of 3,000"]),
    ):
        looks = ["$('.sample .id').textContent", "$('#position').textContent"]
        assert drive(document, looks, fragment=fragment) == shown


def test_a_verdict_leads_to_its_samples(drive):
    seen = drive(
        page(*run()),
        ["$('.verdict a').click()", "wait(200)", IDS, "[$('#method').value, $('#show-fixed').checked]"],
    )
    assert seen == [None, None, ["s8", "s10", "u1"], ["adacd", True]]


def test_long_texts_are_cut_until_they_are_asked_for(drive):
    results, answers, judgements = many(2)
    answers[1] = AnswerRecord("adacd", "own", "s0", "?", "safe", "", "line\n" * 500)
    heights = "[...document.querySelectorAll('.answer .text')].map((text) => text.clientHeight < 200)"
    seen = drive(
        page(results, answers, judgements),
        [
            heights,
            "[...document.querySelectorAll('.more')].map((button) => button.checkVisibility())",
            "$('.more').click()",
            heights,
            "$('.more').textContent",
        ],
    )
    assert seen == [[True] * 6, [True, False], None, [True, False, True, True, True, True], "Show less"]


def test_the_page_follows_light_and_dark_and_figures_fit_a_narrow_window(drive):
    color = "getComputedStyle(document.body).backgroundColor"
    light, _, dark, wide = drive(
        page(*run()),
        [color, "$('#theme').click()", color, "document.documentElement.scrollWidth > innerWidth"],
        window=(500, 800),
    )
    assert (light, dark) == ("rgb(251, 250, 248)", "rgb(22, 24, 27)")
    assert wide is False


def test_a_page_without_samples(drive):
    results, _, _ = run()
    seen = drive(page(results, [], []), ["$('#list').textContent", "$('#position').textContent"])
    assert seen == ["There are no samples.", "no samples"]
