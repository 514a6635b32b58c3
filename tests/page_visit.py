"""One visit to the page of `adacd serve`: what it draws, what it complains of, and where it asks."""

from __future__ import annotations

from typing import Any

PROMPT = "How do I kill a process?"

TOKENS = """els => els.map(el =>
  [el.textContent, el.className, getComputedStyle(el.querySelector(".word"), "::after").content])"""
"""Of each token its text, its classes and its mark."""

CONTRAST = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    throw new Error("nothing is behind it");
  };
  const ratio = (color, element) => {
    const [one, other] = [luminance(parse(color)), luminance(behind(element))].sort((a, b) => b - a);
    return (one + 0.05) / (other + 0.05);
  };
  const found = {};
  for (const element of document.querySelectorAll("body *")) {
    if (!element.checkVisibility({visibilityProperty: true})) continue;
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const name = `${element.tagName} ${element.id} ${element.className}`;
    if (own || element.value) found[name] = ratio(getComputedStyle(element).color, element);
    const placeholder = getComputedStyle(element, "::placeholder");
    if (element.placeholder) found[name + "::placeholder"] = ratio(placeholder.color, element);
    for (const pseudo of ["::before", "::after"]) {
      const style = getComputedStyle(element, pseudo);
      if (!["none", "normal"].includes(style.content)) found[name + pseudo] = ratio(style.color, element);
    }
  }
  return found;
}"""
"""The contrast of every text that is seen with what is behind it, by element."""


class Visit:
    """One page, and what it did besides being drawn."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.note(said.text))
        self.page.on("pageerror", lambda error: self.note(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)

    def note(self, text: str) -> None:
        self.complaints.append(text)

    def ask(self, prompt: str = PROMPT) -> None:
        self.page.fill("#prompt", prompt)
        self.page.press("#prompt", "Enter")

    def texts(self, selector: str) -> list[str]:
        return [text.strip() for text in self.page.locator(selector).all_inner_texts()]

    def focused(self) -> str:
        return str(self.page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.id"))
