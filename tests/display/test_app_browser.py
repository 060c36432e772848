"""The app as people use it: served, in a headless Chromium, with real clicks, wheel and keys."""

import shutil
import socket
import time

import lazily
import numpy as np
import pytest

import geoemb_xr as gx
from geoemb_xr.display.app_layout import ANSWER_BORDERS, PICTURE_BORDERS

sync_api = lazily.importorskip("playwright.sync_api")
lazily.importorskip("panel")

#: Above the frame of a map within its canvas.
TOP = 5
CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def page():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(90_000)
        page.asked, page.errors = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        yield page
        browser.close()


@pytest.fixture(scope="module")
def app():
    codes = gx.testing.synthetic(
        "alphaearth", shape=(200, 200), years=[2018, 2021, 2024], decode=False, missing=True
    )
    return gx.explore(codes)


@pytest.fixture(scope="module")
def address(app):
    """Where the app is served."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = app.show(port=port, show=False, threaded=True, verbose=False)
    yield f"http://localhost:{port}"
    server.stop()


def visit(page, address):
    """Open the app, and wait until it has its shape."""
    page.goto(address)
    page.locator(".bk-Figure").nth(3).wait_for()
    page.wait_for_timeout(1000)


def canvas(page, number):
    """Where the canvas of a map is on the screen: in the page, each map is followed by its chart."""
    drawn = page.locator(".bk-Figure").nth(2 * number).locator(".bk-CanvasBox, .bk-Canvas").first
    return drawn.bounding_box() or {}


@pytest.fixture(scope="module")
def maps(page, address):
    """The two maps on the screen, as boxes."""
    visit(page, address)
    return [canvas(page, number) for number in (0, 1)]


def until(condition, seconds=30):
    """Wait for what the server does after an event in the browser."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def colours(page, box):
    """How many colours a map has on the screen, and its pixels."""
    import io

    from PIL import Image

    shot = page.screenshot(clip=box)
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))
    return len(np.unique(pixels.reshape(-1, 3), axis=0)), pixels


def at(box, across, down):
    return box["x"] + across * box["width"], box["y"] + down * box["height"]


def test_the_page_shows_both_maps_and_asks_no_other_host(app, page, maps):
    assert page.errors == []
    hosts = {url.split("/")[2].split(":")[0] for url in page.asked if url.startswith(("http", "ws"))}
    assert hosts == {"localhost"}
    assert page.get_by_text("synthetic data in the form of alphaearth").is_visible()
    assert colours(page, maps[0])[0] > 100
    assert colours(page, maps[1])[0] > 100


def test_a_click_answers(app, page, maps):
    before, pixel = colours(page, maps[1])[1], app.state.pixel
    page.mouse.click(*at(maps[0], 0.5, 0.8))
    until(lambda: app.state.pixel is not pixel)
    until(lambda: (colours(page, maps[1])[1] != before).any())
    assert app.state.pixel.row > 120


def test_the_wheel_zooms_and_re_reads(app, page, maps):
    app.state.look(None, None, 400, 400)
    before = app.state.window
    page.mouse.move(*at(maps[0], 0.6, 0.6))
    for _ in range(4):
        page.mouse.wheel(0, -240)
        page.wait_for_timeout(100)
    until(lambda: app.state.window.rows.cells < before.rows.cells / 2)
    page.locator("[title='Reset']").first.click()
    until(lambda: app.state.window == before)


def test_the_slider_changes_the_year(app, page, maps):
    handle = page.locator(".noUi-handle").first
    handle.focus()
    handle.press("ArrowLeft")
    until(lambda: app.state.period == "2021")
    page.get_by_text("Embedding 2021").wait_for()
    handle.press("ArrowRight")
    until(lambda: app.state.period == "2024")


def test_labels_refit_the_probe_and_redraw_the_map(app, page, maps):
    clicks = {"one": [(0.45, 0.9), (0.4, 0.7)], "two <b>": [(0.85, 0.3), (0.9, 0.55)]}
    for name, places in clicks.items():
        page.get_by_placeholder("name of a class").fill(name)
        page.get_by_role("button", name="add", exact=True).click()
        until(lambda name=name: name in app.state.classes)
        page.get_by_role("button", name=name, exact=True).wait_for()
        page.wait_for_timeout(500)
        for place in places:
            count = len(app.labels)
            page.mouse.click(*at(maps[0], *place))
            until(lambda count=count: len(app.labels) == count + 1)
    until(lambda: app.probe is not None)
    assert app.probe.legend.names == ("one", "two <b>")
    page.get_by_text("Classes", exact=True).wait_for()
    page.wait_for_timeout(1000)
    first = colours(page, maps[1])[1]
    page.mouse.click(*at(maps[0], 0.7, 0.95))
    until(lambda: len(app.labels) == 5)
    page.wait_for_timeout(1500)
    assert (colours(page, maps[1])[1] != first).any()
    page.get_by_role("button", name="undo last label").click()
    until(lambda: len(app.labels) == 4)
    assert app.labels.crs.to_epsg() == 32632


def test_change_needs_another_year_and_is_drawn(app, page, maps):
    page.get_by_text("change since 2018").click()
    page.get_by_text("Change from 2018 to 2024").wait_for()
    page.wait_for_timeout(700)
    assert colours(page, maps[1])[0] > 100
    assert page.errors == []


def frame(page, number):
    """A map without its axes, wherever the slider of the swipe and the width of the window have moved it to."""
    box = canvas(page, number)
    left, right = (PICTURE_BORDERS, ANSWER_BORDERS)[number]
    across = box["width"] - left - right  # as high as wide, since the array is
    return {"x": box["x"] + left, "y": box["y"] + TOP, "width": across, "height": across}


def inside(box):
    """A map without its margin, where a tick or a ring may stand."""
    return {
        "x": box["x"] + 5,
        "y": box["y"] + 15,
        "width": box["width"] - 10,
        "height": box["height"] - 40,
    }


def test_a_swipe_lays_the_right_map_over_the_left_one(app, page, maps):
    page.get_by_text("another year", exact=True).click()
    page.get_by_text("Embedding 2018").wait_for()
    page.wait_for_timeout(1500)
    alone, answer = (colours(page, inside(frame(page, number)))[1] for number in (0, 1))
    left, right = slice(0, alone.shape[1] // 3), slice(-alone.shape[1] // 3, None)

    def shows(expected, columns):
        shown = colours(page, inside(frame(page, 0)))[1]
        return (shown[:, columns] == expected[:, columns]).mean() > 0.95

    assert not shows(answer, right)
    swipe = page.get_by_role("button", name="swipe it over the left map")
    swipe.click()
    until(lambda: shows(answer, right))
    assert shows(alone, left)
    box = page.locator(".noUi-handle").last.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(maps[0]["x"] + 5, box["y"], steps=5)
    page.mouse.up()
    until(lambda: shows(answer, slice(alone.shape[1] // 3, None)))
    swipe.click()
    until(lambda: shows(alone, right))


def test_boxes_are_dragged_and_keys_go_through_years(app, page, maps):
    page.get_by_placeholder("name of a class").fill("boxed")
    page.get_by_role("button", name="add", exact=True).click()
    page.get_by_role("button", name="boxed", exact=True).wait_for()
    page.get_by_role("button", name="box", exact=True).click()
    page.get_by_text("Drag a box over").wait_for()
    view = app.state.window
    page.mouse.move(*at(maps[0], 0.6, 0.6))
    page.mouse.down()
    page.mouse.move(*at(maps[0], 0.65, 0.65), steps=4)
    page.mouse.up()
    until(lambda: app.state.counts()["boxed"] > 20)
    assert app.state.window == view  # a drag that draws does not pan
    page.keyboard.press("Escape")
    page.get_by_text("Name a class to label pixels.").wait_for()
    for key, period in (("ArrowLeft", "2021"), ("ArrowLeft", "2018"), ("ArrowRight", "2021")):
        page.keyboard.press(key)
        until(lambda period=period: app.state.period == period)
    page.get_by_placeholder("name of a class").click()
    page.keyboard.press("ArrowLeft")  # belongs to the text
    page.wait_for_timeout(300)
    assert app.state.period == "2021"
    assert page.errors == []


def test_the_app_fits_its_window_and_clicks_hit_their_pixels(app, page, address):
    visit(page, address)
    assert page.locator("meta[name=viewport]").get_attribute("content").startswith("width=device-width")
    for width in (1440, 1024, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(1500)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        maps = [frame(page, number) for number in (0, 1)]
        assert maps[0]["width"] == pytest.approx(maps[1]["width"], abs=1)
        charts = [page.locator(".bk-Figure").nth(i).bounding_box() for i in (1, 3)]
        control = page.get_by_text("The right map shows").bounding_box()
        if width == 390:  # one map with its chart below the other, and the controls below both
            assert maps[1]["y"] > charts[0]["y"] + charts[0]["height"]
            assert control["y"] >= charts[1]["y"] + charts[1]["height"]
        else:
            assert maps[0]["y"] == maps[1]["y"]
            assert control["x"] + control["width"] < maps[0]["x"]
        for map_, title in zip(maps, ("Embedding 20", ": similar to the pixel"), strict=True):
            head = page.get_by_text(title).first.bounding_box()
            assert 0 < map_["y"] - head["y"] < 80
            assert 0 <= head["x"] - map_["x"] < 5
        for number, across, down in ((0, 0.305, 0.535), (1, 0.805, 0.225)):
            drawn = page.locator(".bk-Figure").nth(2 * number)
            drawn.evaluate("shown => shown.scrollIntoView({block: 'center'})")
            before = app.state.pixel
            page.mouse.click(*at(frame(page, number), across, down))
            until(lambda before=before: app.state.pixel is not before)
            assert (app.state.pixel.col, app.state.pixel.row) == (int(across * 200), int(down * 200))
    assert page.errors == []
