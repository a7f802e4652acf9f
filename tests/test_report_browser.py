"""The report in a browser: what it asks for, what it shows, and how it prints."""

import io
import re
import shutil

import numpy as np
import pytest
from _fake_large import many_columns
from _fake_result import PIXEL_A, changed, make
from PIL import Image

from stemdisp import _plot_style as st
from stemdisp import report
from stemdisp._plot_numbers import measured
from stemdisp.report import figures, interactive
from stemdisp.report import page as report_page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH"
)
NM = PIXEL_A / 10
N_FIGURES = 2
PAYLOAD = "<img src=x onerror=alert(1)>$$x$$"
# Where a point of a view lies in the window, by Bokeh's own scales and not by those of the page.
VIEWER = 'Bokeh.documents[0].get_model_by_name("viewer")'
PLACE = """([name, x, y]) => {
  const view = Bokeh.index.find_one_by_id(Bokeh.documents[0].get_model_by_name(name).id);
  const box = view.canvas_view.el.getBoundingClientRect();
  return [box.left + view.frame.x_scale.compute(x), box.top + view.frame.y_scale.compute(y)];
}"""
RANGES = """() => {
  const {x_range, y_range} = Bokeh.documents[0].get_model_by_name("viewer");
  return [x_range.start, x_range.end, y_range.start, y_range.end];
}"""
VISIBLE = """(name) => Bokeh.documents[0].get_model_by_name("viewer").renderers
  .filter((one) => one.name === name).map((one) => one.visible)"""
# The colour of a text and of what lies behind it, as red, green and blue.
COLOURS = """(choice) => [...document.querySelectorAll(choice)].map((one) => {
  const read = (text) => text.match(/[\\d.]+/g).map(Number);
  let behind = one;
  const back = () => read(getComputedStyle(behind).backgroundColor);
  while (behind.parentElement !== null && back()[3] === 0) behind = behind.parentElement;
  return [read(getComputedStyle(one).color).slice(0, 3), back().slice(0, 3)];
})"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield found
        found.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a run and its page; the static figures are small."""
    directory = tmp_path_factory.mktemp("report")
    result = make(size=320)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "DPI", 30)
        plans = figures._plans
        few = ("decay", "counting")
        patch.setattr(figures, "_plans", lambda r: [p for p in plans(r) if p.name in few])
        draw = figures._render
        png = lambda figure, kind, box: b"" if kind == "svg" else draw(figure, kind, box)  # noqa: E731
        patch.setattr(figures, "_render", png)
        return result, report.write(result, directory)


class Opened:
    """A page together with everything that it asked for or complained of."""

    def __init__(self, browser, path, *, width=1280, **options):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        self.page = self.context.new_page()
        self.requests, self.messages = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.messages.append("dialog"), dialog.dismiss()))
        self.page.goto(path.as_uri())
        self.main = path.as_uri()

    def ready(self):
        self.page.wait_for_selector("html[data-views=ready]", timeout=20_000)
        self.page.wait_for_timeout(150)
        return self

    @property
    def foreign(self):
        return [url for url in self.requests if url != self.main and not url.startswith("data:")]

    def point(self, name, x, y):
        self.page.locator(f"#view-{name}").scroll_into_view_if_needed()
        at = self.page.evaluate(PLACE, [name, float(x), float(y)])
        self.page.mouse.move(at[0] - 30, at[1] - 30)
        self.page.mouse.move(*at)
        self.page.wait_for_timeout(60)
        return at

    def tip(self):
        return self.page.locator(".tip").inner_text() if self.page.is_visible(".tip") else None


@pytest.fixture(scope="module")
def opened(browser, written):
    found = Opened(browser, written[1]).ready()
    yield found
    found.context.close()


@pytest.fixture(autouse=True)
def whole_image(request):
    """Leave the shared page as it was found."""
    yield
    if "opened" in request.fixturenames:
        request.getfixturevalue("opened").page.click("#view-whole")


def test_the_page_asks_nobody_and_says_nothing(opened):
    assert opened.main in opened.requests
    assert opened.foreign == []
    assert opened.messages == []


def test_the_watcher_sees_requests_and_messages(browser, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text("<img src='https://example.invalid/x.png'><script>console.log('hi')</script>")
    bad = Opened(browser, path)
    bad.page.wait_for_timeout(100)
    assert bad.foreign == ["https://example.invalid/x.png"]
    assert "hi" in bad.messages
    bad.context.close()


def test_the_policy_stops_scripts_that_are_not_its_own(browser, written, tmp_path):
    path = tmp_path / "changed.html"
    text = written[1].read_text(encoding="utf-8")
    extra = "<script>document.title = 'run'</script><img src='data:,' onerror='alert(1)'></main>"
    path.write_text(text.replace("</main>", extra), encoding="utf-8")
    bad = Opened(browser, path)
    assert bad.page.title() != "run" and "dialog" not in bad.messages
    assert any("Content Security Policy" in message for message in bad.messages)
    bad.context.close()


@pytest.mark.parametrize("species", ["K", "O"])
def test_pointing_at_a_column_shows_its_values(opened, written, species):
    frame = st.used(written[0], species)
    row = frame[frame["N"] == 4].iloc[2]
    opened.point("viewer", row["x_px"] * NM, row["y_px"] * NM)
    text = opened.tip().replace("\N{MINUS SIGN}", "-")
    pairs = dict(zip(*[iter(text.splitlines())] * 2, strict=False))
    assert pairs["species"] == species and pairs["plane N"] == "4"
    assert pairs["lattice i, j"] == f"{row['i']:.2f}, {row['j']:.2f}"
    assert pairs["x, y (px)"] == f"{row['x_px']:.2f}, {row['y_px']:.2f}"
    assert pairs["quality"] == "good"
    if species == "K":
        assert pairs["δ"] == measured(row["delta_A"], row["delta_err_A"], "Å")
        assert "occupancy" not in pairs
    else:
        assert pairs["occupancy"] == measured(row["occupancy"], row["occupancy_err"])
        assert "δ" not in pairs


def test_pointing_between_columns_shows_nothing(opened, written):
    # In the film there are no columns.
    opened.point("viewer", 20 * NM, 15 * NM)
    assert opened.tip() is None


def test_quality_is_said_in_words(opened, written):
    frame = written[0].columns
    row = frame[(frame["species"] == "Ta") & (frame["N"] == 1) & (frame["quality"] == 2)].iloc[0]
    opened.point("viewer", row["x_px"] * NM, row["y_px"] * NM)
    assert "next to the film" in opened.tip() and "left out" not in opened.tip()
    row = frame[frame["quality"] == 1].iloc[-1]
    opened.point("viewer", row["x_px"] * NM, row["y_px"] * NM)
    assert "at the image border (left out of averages)" in opened.tip()


def test_points_and_means_of_a_profile_answer_too(opened, written):
    row = written[0].planes.iloc[4]
    opened.point("delta", row["N"], row["delta_A"])
    expected = measured(row["delta_A"], row["delta_err_A"], "Å").replace("\N{MINUS SIGN}", "-")
    text = opened.tip().replace("\N{MINUS SIGN}", "-")
    assert "plane mean, N\n5" in text and expected in text


def picture(opened):
    """Return what is seen in the middle of the image, away from pointer and toolbar."""
    opened.page.mouse.move(2, 2)
    opened.page.wait_for_timeout(100)
    x, y = opened.page.evaluate(PLACE, ["viewer", 1.0, 1.5])
    shot = opened.page.screenshot(clip={"x": x, "y": y, "width": 200, "height": 200})
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), dtype=float)


@pytest.mark.parametrize(("layer", "on"), [("rings-0", True), ("map", False), ("residual", False)])
def test_a_check_box_turns_its_layer_on_and_off(opened, layer, on):
    box = opened.page.locator(f"input[data-layer={layer}]")
    box.scroll_into_view_if_needed()
    first = picture(opened)
    assert set(opened.page.evaluate(VISIBLE, layer)) == {on}
    box.click()
    assert set(opened.page.evaluate(VISIBLE, layer)) == {not on}
    assert np.abs(picture(opened) - first).mean() > 1.0
    box.click()
    assert np.abs(picture(opened) - first).mean() < 0.01


def test_the_wheel_zooms_about_the_pointer(opened):
    x0, x1, y0, y1 = opened.page.evaluate(RANGES)
    assert (x0, y1) == pytest.approx((-0.5 * NM, -0.5 * NM), abs=1e-6)
    assert (x1, y0) == pytest.approx((319.5 * NM, 319.5 * NM), abs=1e-6)
    at = [x0 + 0.3 * (x1 - x0), y1 + 0.6 * (y0 - y1)]
    before = opened.point("viewer", *at)
    opened.page.mouse.wheel(0, -300)
    opened.page.wait_for_timeout(200)
    a0, a1, b0, b1 = opened.page.evaluate(RANGES)
    assert (a1 - a0) < 0.8 * (x1 - x0)
    assert (a1 - a0) / (x1 - x0) == pytest.approx((b1 - b0) / (y1 - y0))
    assert opened.page.evaluate(PLACE, ["viewer", *at]) == pytest.approx(before, abs=2)
    opened.page.click("#view-whole")
    assert opened.page.evaluate(RANGES) == pytest.approx([x0, x1, y0, y1])


def test_the_scale_is_equal_along_both_axes(opened):
    origin, right, down = (
        np.array(opened.page.evaluate(PLACE, ["viewer", *p])) for p in ((0, 0), (1, 0), (0, 1))
    )
    assert right[0] - origin[0] == pytest.approx(down[1] - origin[1], rel=0.01)
    assert right[1] == pytest.approx(origin[1], abs=0.01)


def test_columns_chosen_in_a_profile_turn_their_rings_on(opened):
    opened.page.uncheck("input[data-layer=rings-2]")
    script = "(k) => { Bokeh.documents[0].get_model_by_name('columns-2').selected.indices = k; }"
    opened.page.evaluate(script, [3, 4, 5])
    assert opened.page.is_checked("input[data-layer=rings-2]")
    opened.page.evaluate(script, [])


def test_nothing_is_wider_than_the_window(browser, written):
    found = Opened(browser, written[1], width=400).ready()
    for width in (400, 1280, 2560, 400):
        found.page.set_viewport_size({"width": width, "height": 900})
        found.page.wait_for_timeout(250)
        assert found.page.evaluate("document.documentElement.scrollWidth") <= width
        # The image takes what room there is, and lines of text stay short.
        canvas = found.page.locator("#view-viewer > *").bounding_box()
        assert canvas["width"] > 0.5 * min(width, 900)
        assert canvas["x"] + canvas["width"] <= width
        lines = "[...document.querySelectorAll('p, li')].map((p) => p.clientWidth / 16)"
        assert max(found.page.evaluate(lines)) < 52  # em; about 100 letters
    assert found.messages == []
    found.context.close()


def test_a_finger_asks_too(browser, written, tmp_path):
    phone = {"has_touch": True, "is_mobile": True}
    found = Opened(browser, without_pictures(written[0], tmp_path), width=400, **phone).ready()
    row = st.used(written[0], "Ta").iloc[60]
    at = found.point("viewer", row["x_px"] * NM, row["y_px"] * NM)
    assert found.tip() is not None  # a mouse moved there first
    found.page.mouse.move(2, 2)
    assert found.tip() is None
    found.page.touchscreen.tap(*at)
    found.page.wait_for_timeout(500)
    assert "species\nTa\n" in found.tip()
    found.page.touchscreen.tap(200, 2)
    assert found.tip() is None
    assert found.page.evaluate("document.documentElement.scrollWidth") <= 400
    found.context.close()


def test_a_line_that_is_too_wide_would_be_seen(browser, tmp_path):
    path = tmp_path / "wide.html"
    path.write_text("<div style='width: 900px'>x</div>")
    found = Opened(browser, path, width=400)
    assert found.page.evaluate("document.documentElement.scrollWidth") == 908
    found.context.close()


def test_print_shows_the_figures_and_not_the_viewer(opened):
    opened.page.emulate_media(media="print")
    assert not opened.page.is_visible(".interactive") and not opened.page.is_visible(".tip")
    drawn = "[...document.querySelectorAll('figure[id] img')]"
    sizes = opened.page.evaluate(f"{drawn}.map((one) => [one.naturalWidth, one.offsetWidth])")
    assert len(sizes) == N_FIGURES and min(min(pair) for pair in sizes) > 0
    broken = "[...document.querySelectorAll('figure')].map((f) => getComputedStyle(f).breakInside)"
    assert set(opened.page.evaluate(broken)) == {"avoid"}
    printed = opened.page.pdf()
    opened.page.emulate_media(media="screen")
    assert printed.count(b"/Subtype /Image") >= N_FIGURES
    assert opened.page.is_visible(".interactive")


def contrast(one, two):
    """Contrast ratio of WCAG 2.1."""
    light = []
    for color in (one, two):
        c = np.array(color) / 255
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        light.append(linear @ [0.2126, 0.7152, 0.0722])
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_contrast_is_that_of_the_standard():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (136, 136, 136)) < 4.5


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_text_can_be_read_in_both_schemes(opened, scheme):
    opened.page.emulate_media(color_scheme=scheme)
    choice = (
        "p, li, td, th, figcaption, label, button, legend, small, a, .note, .label, pre, footer"
    )
    pairs = opened.page.evaluate(COLOURS, choice)
    dark_back = np.mean(opened.page.evaluate(COLOURS, "main > section > p")[0][1]) < 100
    opened.page.emulate_media(color_scheme="light")
    assert dark_back == (scheme == "dark")
    assert len(pairs) > 100
    assert min(contrast(*pair) for pair in pairs) >= 4.5


def test_without_scripts_the_figures_still_show(browser, written):
    found = Opened(browser, written[1], java_script_enabled=False)
    assert "Scripts are off here" in found.page.locator("p.hint").inner_text()
    assert found.page.locator(".interactive").is_hidden()
    assert found.page.locator("figure[id] img").count() == N_FIGURES
    assert found.page.locator("figure[id] img").first.is_visible()
    found.context.close()


def without_pictures(result, tmp_path):
    path = tmp_path / "page.html"
    view = interactive.build(result)
    path.write_text(report_page.render(result, [], view=view), encoding="utf-8")
    return path


def test_names_in_the_data_are_shown_and_not_run(browser, tmp_path):
    result = make(size=320)
    species = result.columns["species"].replace({"O": PAYLOAD, "Ta": "</script><b>"})
    source = result.summary["input"] | {"path": [PAYLOAD]}
    hostile = changed(
        result,
        columns=result.columns.assign(species=species),
        summary={"input": source},
    )
    found = Opened(browser, without_pictures(hostile, tmp_path)).ready()
    assert found.foreign == [] and found.messages == []
    assert found.page.locator("img").count() == 0
    row = st.used(hostile, PAYLOAD).iloc[30]
    found.point("viewer", row["x_px"] * NM, row["y_px"] * NM)
    assert f"species\n{PAYLOAD}\n" in found.tip()
    assert found.page.locator("img").count() == 0
    assert PAYLOAD in found.page.locator("fieldset").inner_text()
    assert f"{PAYLOAD} occupancy" in found.page.locator(".interactive").inner_text()
    assert found.foreign == [] and found.messages == []
    found.context.close()


def test_a_crystal_without_an_interface_has_the_image_alone(browser, tmp_path):
    result = make(size=320, interface=False)
    found = Opened(browser, without_pictures(result, tmp_path)).ready()
    assert found.page.locator("#view-delta, #view-occ").count() == 0
    row = st.used(result, "K").iloc[100]
    found.point("viewer", row["x_px"] * NM, row["y_px"] * NM)
    assert "species\nK\n" in found.tip() and "plane N" not in found.tip()
    assert found.foreign == [] and found.messages == []
    found.context.close()


def test_columns_of_a_large_field_do_not_hide_its_image(browser, tmp_path):
    path = without_pictures(many_columns(6000, side=640), tmp_path)
    found = Opened(browser, path).ready()
    shown = {n: found.page.evaluate(VISIBLE, n)[0] for n in ("image", "rings-0", "map", "left-out")}
    assert shown == {"image": True, "rings-0": False, "map": False, "left-out": False}
    strokes = "Bokeh.documents[0].get_model_by_name('arrow-strokes').data.x0.length / 3"
    assert 100 < found.page.evaluate(strokes) <= 900
    assert "means over" in found.page.locator("#view-arrow-key").inner_text()
    for name, ends in (("x_range", (5.0, 6.0)), ("y_range", (6.0, 5.0))):
        script = f"([start, end]) => {VIEWER}.{name}.setv({{start, end}})"
        found.page.evaluate(script, ends)
    found.page.wait_for_timeout(200)
    assert 0 < found.page.evaluate(strokes) <= 900
    assert "means over" not in found.page.locator("#view-arrow-key").inner_text()
    assert found.messages == []
    found.context.close()


def test_the_same_run_gives_the_same_page(written):
    again = interactive.build(written[0])
    assert re.fullmatch(r"'sha256-[\w+/=]{44}' 'sha256-[\w+/=]{44}'", again.policy)
    text = written[1].read_text(encoding="utf-8")
    assert again.data in text and again.policy in text
