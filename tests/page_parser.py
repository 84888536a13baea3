"""What a parser finds in a report page, and every breach of what the page promises."""

from __future__ import annotations

import re
import unicodedata
from html.parser import HTMLParser

ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "nav", "section", "h1", "h2", "h3",
    "p", "a", "b", "i", "strong", "span", "small", "code", "bdi", "ul", "ol", "li", "dl", "dt", "dd", "div", "figure",
    "figcaption", "img", "table", "caption", "thead", "tbody", "tr", "th", "td", "details", "summary",
    "svg", "g", "path", "rect", "defs", "use", "clippath", "text", "tspan", "image",
}  # fmt: skip
VOID = {"meta", "img"}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Page(HTMLParser):
    """What a parser finds in a page: elements, ids, text of each section, and every breach of the page's promises."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.problems: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.images: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.texts: dict[str, str] = {}
        self.links: list[str] = []
        self.section = ""
        self.feed(source)
        self.close()
        if self.open:
            self.problems.append(f"left open: {self.open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ALLOWED:
            self.problems.append(f"element {tag}")
        if tag not in VOID:
            self.open.append(tag)
        given = {name: value or "" for name, value in attrs}
        for name, value in given.items():
            if name.startswith("on") or name in ("srcdoc", "action", "formaction", "ping", "srcset", "background"):
                self.problems.append(f"attribute {name} of {tag}")
            if name in ("src", "href", "xlink:href"):
                embedded = re.fullmatch(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]*", value)
                picture = tag in ("img", "image") and embedded
                if not value.startswith("#") and not picture:
                    self.problems.append(f"{tag} {name}={value[:60]}")
            if name == "style" and re.search(r"url\((?!#)|@import|expression", value):
                self.problems.append(f"style {value[:60]}")
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "section":
            self.section = given.get("id", "?")
            self.texts[self.section] = ""
        if tag == "img":
            self.images.append((given.get("src", ""), given.get("alt", "")))
        if tag == "a":
            self.links.append(given.get("href", ""))
        if tag == "svg" and not given.get("aria-label"):
            self.problems.append("svg without a label")
        if tag == "meta" and given.get("http-equiv") and not given.get("content", "").startswith(POLICY):
            self.problems.append(f"meta {given}")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"unmatched </{tag}>")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_comment(self, data: str) -> None:
        self.problems.append(f"comment {data[:40]}")

    def handle_data(self, data: str) -> None:
        for character in data:
            if character != "\n" and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
                self.problems.append(f"control character U+{ord(character):04X}")
        if self.open and self.open[-1] == "style" and re.search(r"url\(|@import|expression", data):
            self.problems.append("the style loads something")
        self.texts[self.section] = self.texts.get(self.section, "") + data
