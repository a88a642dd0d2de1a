"""Looks at laboratory reports through Chromium's DevTools protocol, over a pipe.

Called by check-reports.sh: check-reports.py BROWSER DIR [--screenshots | --self-test]. Standard
library only.
"""

import base64
import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile
import time

# How a page is opened: name, width, height, whether as a phone, colour scheme, medium.
VIEWS = [
    ("light", 1200, 900, False, "light", "screen"),
    ("dark", 1200, 900, False, "dark", "screen"),
    ("phone", 400, 800, True, "light", "screen"),
    ("phone-dark", 400, 800, True, "dark", "screen"),
    ("print", 800, 1100, False, "dark", "print"),
]

# A browser that says nothing for so long is stuck.
SECONDS_MAX = 60

FLAGS = [
    "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    "--hide-scrollbars", "--remote-debugging-pipe",
]

# What --self-test does to a page, and the complaint that must follow.
PLANTS = [
    ("a script", "</body>", "<script>1</script></body>", "console: error"),
    ("a picture from elsewhere", "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
     "img-src *\"/><link rel=\"preload\" as=\"image\" href=\"http://127.0.0.1:9/a.png", "request: http"),
    ("no drawings", "<div class=\"chart\">", "<div hidden=\"\" class=\"chart\">", "0 drawings show"),
    ("no phone", "svg.wide { display: none; }", "svg.wide { width: 900px; }", "wider than the screen"),
    ("no dark", "prefers-color-scheme", "prefers-no-scheme", "light and dark look alike"),
    ("words on words", "text-anchor=\"middle\"", "text-anchor=\"middle\" textLength=\"900\"", "' overlaps '"),
    ("huge letters", ".chart text {", ".chart text { font-size: 120px;", "is cut off"),
    ("no verdict", "✓ holds", "perhaps", "a finding without a verdict"),
]

# What is asked of a page once it is shown on a SCREEN of so many pixels. (innerWidth does not tell:
# on a phone it grows with the page.)
QUESTIONS = r"""
(() => {
  const wrong = [];
  const shown = (e) => { const b = e.getBoundingClientRect(); return b.width > 0 && b.height > 0; };
  if (!document.title) wrong.push("no title");
  if (!document.documentElement.lang) wrong.push("no language");
  if (document.querySelectorAll("h1").length !== 1) wrong.push("not one h1");
  const width = document.documentElement.scrollWidth;
  if (width > SCREEN) wrong.push(`wider than the screen: ${width} > SCREEN`);
  for (const figure of document.querySelectorAll("figure")) {
    const title = figure.querySelector("figcaption")?.textContent ?? "a chart without caption";
    const charts = [...figure.querySelectorAll("svg[role=img]")].filter(shown);
    if (charts.length !== 1) { wrong.push(`${title}: ${charts.length} drawings show`); continue; }
    const [chart] = charts;
    if (!chart.getAttribute("aria-label")) wrong.push(`${title}: no label`);
    const frame = chart.getBoundingClientRect();
    if (frame.width < 200 || frame.height < 150) wrong.push(`${title}: too small`);
    const drawn = chart.querySelectorAll("polyline, polygon, circle, line").length;
    if (drawn < 5) wrong.push(`${title}: nothing is drawn`);
    const items = figure.querySelectorAll(".legend li").length;
    if (items === 0) wrong.push(`${title}: no legend`);
    const words = [...chart.querySelectorAll("text")].map((t) => [t.textContent.trim(), t.getBoundingClientRect()]);
    if (words.length < 4) wrong.push(`${title}: axes without numbers`);
    words.forEach(([a, p], i) => {
      if (p.left < frame.left - 1 || p.right > frame.right + 1 || p.top < frame.top - 1 || p.bottom > frame.bottom + 1)
        wrong.push(`${title}: '${a}' is cut off`);
      for (const [b, q] of words.slice(i + 1))
        if (Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1 &&
            Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 4)
          wrong.push(`${title}: '${a}' overlaps '${b}'`);
      if (p.height < 9) wrong.push(`${title}: '${a}' is too small to read`);
    });
  }
  const rows = document.querySelectorAll(".findings tbody tr");
  if (rows.length === 0) wrong.push("no findings");
  for (const row of rows)
    if (!/[✓✗]/.test(row.textContent)) wrong.push(`a finding without a verdict: ${row.textContent}`);
  for (const link of document.querySelectorAll("a[href]"))
    if (!link.textContent.trim()) wrong.push("a link without words");
  return JSON.stringify({ wrong, figures: document.querySelectorAll("figure").length,
    height: document.documentElement.scrollHeight,
    background: getComputedStyle(document.documentElement).backgroundColor + getComputedStyle(document.body).backgroundColor });
})()
"""


class Browser:
    """A headless browser, commanded through a pipe."""

    def __init__(self, command, profile):
        flags = FLAGS + [f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")
        to_read, self.to_write = os.pipe()
        self.to_read, to_write = os.pipe()

        def place():
            # Chromium reads commands from descriptor 3 and answers on 4. Copies first: one of
            # ours may be 3 or 4 itself.
            commands, answers = os.dup(to_read), os.dup(to_write)
            os.dup2(commands, 3)
            os.dup2(answers, 4)

        self.process = subprocess.Popen(
            [command, *flags, "about:blank"], preexec_fn=place, pass_fds=(3, 4),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self.buffer = b""
        self.last = 0
        self.events = []

    def receive(self, seconds):
        """The next message, or None when there is none in time."""
        until = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.to_read], [], [], max(0, until - time.monotonic()))
            if not ready:
                return None
            piece = os.read(self.to_read, 1 << 20)
            if not piece:
                raise RuntimeError("the browser ended")
            self.buffer += piece
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, session=None, **parameters):
        """Sends a command and waits for its answer; events meanwhile are kept."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self.to_write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive(SECONDS_MAX)
            if answer is None:
                raise RuntimeError(f"no answer to {method}")
            if answer.get("id") == self.last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method):
        """Waits for an event, which may have come already."""
        while all(event.get("method") != method for event in self.events):
            event = self.receive(SECONDS_MAX)
            if event is None:
                raise RuntimeError(f"{method} did not happen")
            self.events.append(event)

    def close(self):
        try:
            self.call("Browser.close")
            self.process.wait(10)
        except (RuntimeError, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


def complaints_of_events(events, page):
    """What the console said, and requests to anything but the page itself."""
    for event in events:
        method, about = event.get("method"), event.get("params", {})
        if method == "Log.entryAdded":
            entry = about["entry"]
            yield f"console: {entry['level']}: {entry['text']}"
        elif method == "Runtime.consoleAPICalled":
            yield f"console: {about['type']}"
        elif method == "Runtime.exceptionThrown":
            yield f"exception: {about['exceptionDetails']['text']}"
        elif method == "Network.requestWillBeSent":
            address = about["request"]["url"]
            if address != page and not address.startswith("data:"):
                yield f"request: {address}"


def look(browser, path, screenshots):
    """Complaints about a page, and how many charts it has."""
    page = path.resolve().as_uri()
    complaints, figures, backgrounds = [], 0, {}
    for name, width, height, phone, scheme, medium in VIEWS:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        browser.events.clear()
        for domain in ("Page", "Log", "Runtime", "Network", "Audits"):
            browser.call(f"{domain}.enable", session)
        browser.call(
            "Emulation.setDeviceMetricsOverride", session,
            width=width, height=height, deviceScaleFactor=1, mobile=phone,
        )
        browser.call(
            "Emulation.setEmulatedMedia", session, media=medium,
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        answer = browser.call("Page.navigate", session, url=page)
        if "errorText" in answer:
            raise RuntimeError(f"{path}: {answer['errorText']}")
        browser.wait_for("Page.loadEventFired")
        questions = QUESTIONS.replace("SCREEN", str(width))
        result = browser.call("Runtime.evaluate", session, expression=questions)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{path}: {result['exceptionDetails']}")
        seen = json.loads(result["result"]["value"])
        figures, backgrounds[name] = seen["figures"], seen["background"]
        complaints += [f"{name}: {wrong}" for wrong in seen["wrong"]]
        complaints += [f"{name}: {wrong}" for wrong in complaints_of_events(browser.events, page)]
        if screenshots:
            clip = {"x": 0, "y": 0, "width": width, "height": min(seen["height"], 12_000), "scale": 1}
            shot = browser.call(
                "Page.captureScreenshot", session, format="png", captureBeyondViewport=True, clip=clip,
            )
            picture = path.with_name(f"{path.stem}-{name}.png")
            picture.write_bytes(base64.b64decode(shot["data"]))
        browser.call("Target.closeTarget", targetId=target)
    if backgrounds["light"] == backgrounds["dark"]:
        complaints.append("light and dark look alike")
    if backgrounds["print"] != backgrounds["light"]:
        complaints.append("print is dark")
    if path.name == "report.html" and figures == 0:
        complaints.append("no chart")
    return complaints, figures


def check(browser, pages, screenshots):
    """Tells of every page what is wrong; gives how much."""
    wrong = 0
    for page in pages:
        complaints, figures = look(browser, page, screenshots)
        wrong += len(complaints)
        print(f"{page}: {figures} charts, {len(complaints) or 'no'} complaints")
        for complaint in complaints:
            print(f"  {complaint}")
    return wrong


def self_test(browser, page, folder):
    """Breaks copies of a page in known ways; gives how many of them went unnoticed."""
    unnoticed = 0
    text = page.read_text(encoding="utf-8")
    for name, good, bad, expected in PLANTS:
        broken = text.replace(good, bad)
        if broken == text:
            raise RuntimeError(f"{page} has no '{good}' to break")
        copy = folder / page.name
        copy.write_text(broken, encoding="utf-8")
        complaints, _ = look(browser, copy, False)
        noticed = any(expected in complaint for complaint in complaints)
        unnoticed += not noticed
        print(f"{name}: {'noticed' if noticed else f'NOT NOTICED, only {complaints}'}")
    return unnoticed


def main():
    command, folder, option = sys.argv[1], pathlib.Path(sys.argv[2]), "".join(sys.argv[3:])
    pages = sorted([*folder.rglob("report.html"), *folder.rglob("index.html")])
    reports = [page for page in pages if page.name == "report.html"]
    if not reports:
        sys.exit(f"check-reports: no report.html below {folder}")
    with tempfile.TemporaryDirectory(prefix="check-reports-", ignore_cleanup_errors=True) as own:
        own = pathlib.Path(own)
        browser = Browser(command, own / "profile")
        try:
            if option == "--self-test":
                wrong = self_test(browser, reports[0], own)
            else:
                wrong = check(browser, pages, option == "--screenshots")
        except (RuntimeError, OSError) as error:
            sys.exit(f"check-reports: {error}")
        finally:
            browser.close()
    sys.exit(1 if wrong else 0)


main()
