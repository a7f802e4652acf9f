"""Texts that want to be more than text, and a browser that tells when one succeeds."""

import shutil
from urllib.parse import unquote

# Set by whatever of them runs; no output may hold it as code.
MARK = "window.hostile"
JS = f"{MARK}=1;alert(1)"
TOUCH = "touch hostile.txt"

# What runs in a page that pastes it as it is.
HTML = {
    "script": f"<script>{JS}</script>",
    "img": f"<img src=x onerror='{JS}'>",
    "svg": f"<svg onload='{JS}'></svg>",
    "attribute": f"\" onmouseover='{JS}' onfocus='{JS}' autofocus tabindex=1 x=\"",
    "quote": f'\' onmouseover="{JS}" onfocus="{JS}" x=\'',
    "closing": f"</script></style></title></textarea><script>{JS}</script>",
    "comment": f"<!--<script>--><img src=x onerror='{JS}'>",
    "link": f"<a href='javascript:{JS}'>x</a>",
    "details": f"<details open ontoggle='{JS}'><summary>x</summary></details>",
    "frame": "<iframe srcdoc='<script>parent.hostile=1</script>'></iframe>",
    "cdata": f"]]></text><script>{JS}</script><text>",
    "css": "</style><style>body{background:url(https://example.invalid/x)}</style>",
}
OTHER = {
    "javascript": f"javascript:{JS}",
    "literal": "${" + JS + "}`+" + JS + "+`",
    "jinja": "{{7*7}}{% for x in [1] %}ran{% endfor %}{{ self.__init__.__globals__ }}",
    "shell": f"$({TOUCH});{TOUCH}|{TOUCH}&`{TOUCH}`\n{TOUCH}",
    "yaml": f'!!python/object/apply:os.system ["{TOUCH}"]',
    "pickle": f"cos\nsystem\n(S'{TOUCH}'\ntR.",
    "formula =": '=HYPERLINK("https://example.invalid","x")',
    "formula +": "+1+cmd|' /C calc'!A1",
    "formula -": "-1+1",
    "formula @": "@SUM(1)",
    "formula tab": "\t=1+1",
    "formula cr": "\r=1+1",
    "formula lf": "\n=1+1",
    "formula wide": "＝1+1",
    "path": "../../hostile.txt",
    "root": "/hostile.txt",
    "title": "\x1b]0;hostile\x07",
    "screen": "\x1b[2J\x1b[1;1H\x9b2J",
    "backspace": "safe\b\b\b\bbad\x7f",
    "turned": "\u202egpj.exe\u2066",
    "separators": "a\u2028b\u2029c\x85d",
    "nul": "a\0b",
    "second line": "x\nstemdisp: done, all is well\r\nstemdisp: again",
    "bytes": "a\udcff\udc80b",
    "tex": r"$\input{/etc/passwd}$ $\mathrm{x}$",
    "broken tex": r"$\frac{1}$ $_^$ \(",
    "long": "x" * 100_000,
}
# All that may stand side by side: the comment would hide what follows.
TOGETHER = " ".join(text for name, text in HTML.items() if name != "comment")
TOGETHER += " ".join(OTHER[name] for name in ("jinja", "literal", "tex", "broken tex", "turned"))
ALL = HTML | OTHER | {"together": TOGETHER}

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

# Every element is pointed at, entered, chosen and told that it failed.
POKE = """async () => {
  const kinds = ["mouseover", "mouseenter", "pointerover", "focus", "focusin", "error", "load",
    "toggle", "click", "animationstart", "blur"];
  for (const one of [...document.querySelectorAll("*")]) {
    if (["A", "INPUT", "BUTTON"].includes(one.tagName)) continue;
    for (const kind of kinds) one.dispatchEvent(new Event(kind, {bubbles: false}));
  }
  await new Promise((done) => setTimeout(done, 30));
}"""
# What a text that became markup would leave behind.
STRANGE = """() => [...document.querySelectorAll("*")].filter((one) =>
  [...one.attributes].some(({name, value}) => name.startsWith("on") || name === "srcdoc" ||
    (/href|src|action|data$/.test(name) && /^\\s*javascript:/i.test(value)))
  || ["IFRAME", "OBJECT", "EMBED", "BASE", "FORM"].includes(one.tagName)
).map((one) => one.outerHTML.slice(0, 200))"""


class Watched:
    """A page, opened, pointed at and clicked all over; `.said` lists all that should not be."""

    def __init__(self, browser, path):
        self.said, self.main = [], ""
        self.context = browser.new_context(viewport={"width": 1000, "height": 800}, has_touch=True)
        self.page = self.context.new_page()
        self.page.on("request", self._asked)
        self.page.on("console", lambda message: self.said.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.said.append("dialog"), dialog.dismiss()))
        self.page.on("popup", lambda _: self.said.append("window"))
        self.open(path)

    def _asked(self, request):
        url = unquote(request.url.partition("#")[0])
        if url != unquote(self.main) and not url.startswith("data:"):
            self.said.append(f"asks for {url[:60]}")

    def open(self, path):
        """Go to a page that may ask for nothing, and forget what was said before."""
        self.said.clear()
        self.main = path.as_uri()
        self.page.goto(self.main)

    def explore(self):
        """Use everything that can be used; return what was noticed."""
        page = self.page
        for box in page.locator("input[type=checkbox]:visible").all():
            box.click()
        for button in page.locator("button:visible").all():
            button.click()
        page.evaluate(
            "[...document.querySelectorAll('a')].forEach((one) =>"
            " one.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true})))"
        )
        for number in range(4):
            page.keyboard.press("Tab")
            page.mouse.move(100 + 200 * number, 300)
        page.evaluate(POKE)
        self.said += [f"markup: {text}" for text in page.evaluate(STRANGE)]
        if page.evaluate(f"{MARK} !== undefined"):
            self.said.append("code ran")
        return self.said

    def close(self):
        self.context.close()
