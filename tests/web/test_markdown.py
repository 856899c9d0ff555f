"""The page's markdown: what a text becomes, however it is cut, and how long it may take."""

from __future__ import annotations

import pathlib
import random
import re
from typing import Any, Iterator, List, Tuple

import pytest

import agentstream.web.page
from tests.kit.browser import Browser, browser  # noqa: F401

pytestmark = pytest.mark.browser

PAGE = pathlib.Path(agentstream.web.page.__file__).parent
#: The renderer without the page around it.
SCRIPTS = "".join((PAGE / f"{name}.js").read_text("utf-8") for name in ("base", "plain")) + "".join(
    (PAGE / f"{name}.js").read_text("utf-8") for name in ("inline", "markdown")
)
RENDER = """
const render = (...texts) => {
  const node = document.createElement('div'), markdown = new Markdown(node);
  for (const text of texts) { markdown.add(text); while (!markdown.step(0)); }
  return node;
};
"""


@pytest.fixture
def renderer(browser: Browser) -> Iterator[Any]:  # noqa: F811
    """Runs JavaScript that knows `render(text, ...)` and the renderer's own names."""
    browser.leave()
    yield lambda script, *given: browser.run(
        f"'use strict';\n{SCRIPTS}\n{RENDER}\n{script}", *given
    )
    browser.leave()


def plainly(html: str) -> str:
    """Without what is the same everywhere: empty attributes, the parts of code and links."""
    html = re.sub(r' (?:class=""|target="_blank" rel="noopener noreferrer nofollow")', "", html)
    html = re.sub(r'<bdi class="target" title="[^"]*">(.*?)</bdi>', r"\1", html)
    html = re.sub(r"</?bdi>", "", html)
    html = re.sub(
        r'<div class="code"><div class="title">(.*?)<button.*?</button></div>'
        r"<pre><code>(.*?)</code></pre></div>",
        lambda found: f"[{found[1]}:{re.sub('</?div[^>]*>', '|', found[2])}]",
        html,
        flags=re.DOTALL,
    )
    html = re.sub(r'<div class="table( on)?" ?[^>]*><table>', r"<table>", html)
    html = re.sub(r"<div class=\"table ?\"[^>]*>", "", html).replace("</table></div>", "</table>")
    return html


#: (markdown, what it becomes).
BLOCKS: List[Tuple[str, str]] = [
    ("a\nb\n\nc", "<p>a\nb</p><p>c</p>"),
    ("# a #\nb", '<h4 class="level-1">a</h4><p>b</p>'),
    ("###### a\n####### b", '<h6 class="level-6">a</h6><p>####### b</p>'),
    ("#no heading", "<p>#no heading</p>"),
    ("a\n===\nb\n---\n", '<h4 class="level-1">a</h4><h5 class="level-2">b</h5>'),
    ("a\n\n---\n* * *\nb", "<p>a</p><hr><hr><p>b</p>"),
    ("- a\n- b\n\n- c", "<ul><li><p>a</p></li><li><p>b</p></li><li><p>c</p></li></ul>"),
    ("- a\n+ b", "<ul><li><p>a</p></li></ul><ul><li><p>b</p></li></ul>"),
    ("7. a\n8. b", '<ol start="7"><li><p>a</p></li><li><p>b</p></li></ol>'),
    ("1. a\n  - b", '<ol start="1"><li><p>a</p><ul><li><p>b</p></li></ul></li></ol>'),
    ("- a\n\n  b\n\nc", "<ul><li><p>a</p><p>b</p></li></ul><p>c</p>"),
    ("- a\nb", "<ul><li><p>a\nb</p></li></ul>"),
    ("- a\n\nb", "<ul><li><p>a</p></li></ul><p>b</p>"),
    ("-\n- a", "<ul><li></li><li><p>a</p></li></ul>"),
    ("a\n2. b", "<p>a\n2. b</p>"),
    ("a\n1. b", '<p>a</p><ol start="1"><li><p>b</p></li></ol>'),
    (
        "- [ ] a\n- [x] b",
        '<ul><li class="task"><p>☐ a</p></li><li class="task"><p>☑ b</p></li></ul>',
    ),
    (
        "> a\nb\n>\n> - c\n\nd",
        "<blockquote><p>a\nb</p><ul><li><p>c</p></li></ul></blockquote><p>d</p>",
    ),
    ("> > a", "<blockquote><blockquote><p>a</p></blockquote></blockquote>"),
    ("```py x\na\n\n  b\n```\nc", "[py:|a\n\n  b|]<p>c</p>"),
    ("~~~\n```\n~~~", "[code:|```|]"),
    ("````\n```\n````", "[code:|```|]"),
    ("```a`b```", "<p><code>a`b</code></p>"),
    ("```\nopen", "[code:|open|]"),
    ("    a\n\n    b\nc", "[code:|a\n\nb|]<p>c</p>"),
    ("- a\n  ```\n  b\n   c\n  ```", "<ul><li><p>a</p>[code:|b\n c|]</li></ul>"),
    (
        "a | b\n:-- | --:\n1 | `x\\|y` | 3\n2\n",
        '<table><thead><tr><th>a</th><th class="right">b</th></tr></thead><tbody><tr><td>1</td>'
        '<td class="right"><code>x|y</code></td></tr></tbody></table><p>2</p>',
    ),
    ("t\n| a |\n|---|", "<p>t</p><table><thead><tr><th>a</th></tr></thead><tbody></tbody></table>"),
    ("a | b\n--- | --- | ---", "<p>a | b\n--- | --- | ---</p>"),
    ("a\r\nb\rc", "<p>a\nb\nc</p>"),
    ("\t a", "[code:| a|]"),
    ('{"a": "*b*"}\n\n# c\n', '[json:|{"a": "*b*"}\n\n# c|]'),
    ("[\n{\n", "[json:|[\n{|]"),
    ("{a}", "<p>{a}</p>"),
    ("[a] {", "<p>[a] {</p>"),
    ("a\n\n{", "<p>a</p><p>{</p>"),
    ("```\na\u202eb\n```", "[code:|a\\u202eb|]"),
]
SPANS: List[Tuple[str, str]] = [
    ("*a* _b_ **c** __d__ ***e***", "<em>a</em> <em>b</em> <strong>c</strong> <strong>d</strong> <em><strong>e</strong></em>"),
    ("**a *b* c**", "<strong>a <em>b</em> c</strong>"),
    ("*a **b* c**", "<em>a <em><em>b</em> c</em></em>"),
    ("*a**b*", "<em>a**b</em>"),
    ("snake_case_name 2*3*4", "snake_case_name 2<em>3</em>4"),
    ("a * b * c", "a * b * c"),
    ("**open", "**open"),
    ("~~a~~ ~b~", "<del>a</del> ~b~"),
    (r"\*a\* \\ \q", r"*a* \ \q"),
    ("`a*b*` ``c`d`` `open", "<code>a*b*</code> <code>c`d</code> `open"),
    ("<b>&amp;</b>", "&lt;b&gt;&amp;amp;&lt;/b&gt;"),
    ("[a](https://x.org)", '<a href="https://x.org/">a (https://x.org/)</a>'),
    ("[*a*](<https://x.org/b c> 't')", '<a href="https://x.org/b%20c"><em>a</em> (https://x.org/b%20c)</a>'),
    ("[https://good.org](https://bad.org)", '<a href="https://bad.org/">https://good.org (https://bad.org/)</a>'),
    ("[a [b](https://x.org) c](https://y.org)", '[a <a href="https://x.org/">b (https://x.org/)</a> c](<a href="https://y.org/">https://y.org</a>)'),
    ("![a](https://x.org/i.png)", '<a href="https://x.org/i.png">a (https://x.org/i.png)</a>'),
    ("![](https://x.org/i.png)", '<a href="https://x.org/i.png">image (https://x.org/i.png)</a>'),
    ("https://x.org/a_b_(c). And (https://x.org/d)", '<a href="https://x.org/a_b_(c)">https://x.org/a_b_(c)</a>. And (<a href="https://x.org/d">https://x.org/d</a>)'),
    ("<mailto:a@x.org> [m](mailto:b@x.org)", '<a href="mailto:a@x.org">mailto:a@x.org</a> <a href="mailto:b@x.org">m (mailto:b@x.org)</a>'),
    ("https://ex\u0430mple.org", '<a href="https://xn--exmple-4nf.org/">https://ex\u0430mple.org (https://xn--exmple-4nf.org/)</a>'),
    *(
        (f"[a]({target})", f"[a]({target})")
        for target in ("javascript:alert(1)", "JaVaScRiPt:x", "data:text/html,x", "vbscript:x", "file:///etc", "/a", "#a", "a.b", "ftp:x", "blob:x", "//")
    ),
    ("[a](//x.org)", "[a](//x.org)"),
    ("[a](java\tscript:x)", "[a](java\tscript:x)"),
    ("[a](http:)", "[a](http:)"),
]  # fmt: skip
EXTRA = "[a](https://good.org@bad.org) **[b]**"


def test_what_a_text_becomes(renderer: Any) -> None:
    cases = [*BLOCKS, *((text, f"<p>{html}</p>") for text, html in SPANS)]
    script = "return arguments[0].map((text) => render(text).innerHTML)"
    found = renderer(script, [text for text, _ in cases])
    wrong = [
        (text, plainly(got), html)
        for (text, html), got in zip(cases, found)
        if plainly(got) != html.replace("</table></div>", "</table>")
    ]
    assert wrong == []
    (got,) = renderer(script, [EXTRA])
    assert 'href="https://good.org' not in got, "a name before the host misleads"


def scraps(seed: int, count: int) -> List[str]:
    """Texts of all that means something, in any order."""
    signs = [
        *("a", "b c", "*", "**", "_", "~~", "`", "```", "\n", "\n\n", "- ", "1. ", "> ", "# ", "    "),
        *("[", "](https://x.org)", "![", "|", "|-|\n", "---\n", "\\", "<", "&", "===", "  ", "\r\n", "\t"),
    ]  # fmt: skip
    dice = random.Random(seed)
    return ["".join(dice.choices(signs, k=dice.randint(1, 30))) for _ in range(count)]


def test_however_it_is_cut_it_becomes_the_same(renderer: Any) -> None:
    texts = [*(text for text, _ in (*BLOCKS, *SPANS)), *scraps(7, 600)]
    script = """
    const html = (node) => node.innerHTML.replace(/<div class="chunk">|<[/]div>|\\n/g, '');
    return arguments[0].filter((text) =>
      html(render(text)) !== html(render(...text)));
    """
    assert renderer(script, texts) == []


def test_what_stands_is_left_alone(renderer: Any) -> None:
    script = """
    const node = document.createElement('div'), markdown = new Markdown(node);
    const add = (text) => { markdown.add(text); while (!markdown.step(0)); };
    add('# a\\n\\nb\\n\\n- c\\n- d\\n\\n```\\ne\\n');
    const before = [...node.querySelectorAll('*')];
    for (const sign of 'f\\n```\\n\\ng *h* i') add(sign);
    return before.filter((e) => !node.contains(e)).map((e) => e.outerHTML);
    """
    assert renderer(script) == [], "an element was made anew"


#: Texts that some renderers take minutes for.
SLOW = ["*a ", "**a**", "[", "![", "[a](", "`", "`a", "``a`", "> ", "- ", "  - ", "_*", "~~a ", "<", "\\", "|", "# ",
        "https://a(", "[a](<b", '[a](b "', "(", "1. ", "\n", " ", "***a", "a**b", "[x](https://x.org) ", "| a ", "\t", "é"]  # fmt: skip


def test_nothing_takes_long(renderer: Any) -> None:
    script = """
    return arguments[0].map((piece) => {
      const began = performance.now(), text = piece.repeat(30000 / piece.length);
      const node = render(text), depth = (e) => 1 + Math.max(0, ...[...e.children].slice(-3).map(depth));
      const half = text.slice(0, 3000);
      for (let i = 0; i < 3000; i += 100) render(half.slice(0, i));
      return [piece, performance.now() - began, depth(node)];
    })
    """
    for piece, took, depth in renderer(script, SLOW):
        assert took < 1500, (piece, took)
        assert depth < 80, (piece, depth)
