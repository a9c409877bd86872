"""The report in a real browser: it draws without a network, shows texts on hover, fits a phone and trusts no text."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pandas as pd
import pytest

from kontrast.contract import Embeddings, Figure
from kontrast.pipeline.report import write_figures, write_report
from kontrast.pipeline.run_folder import Ablation, AblationArm, Metrics, RunFolder

pytestmark = pytest.mark.browser

HOSTILE = '</script><script>window.stolen=1</script><img src="https://example.org/x.png" onerror="window.stolen=1">'
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Path of a report with every part, its texts hostile."""
    run = RunFolder.create(
        tmp_path_factory.mktemp("runs") / "pairs",
        system="pairs",
        seed=0,
        command=["kontrast", "train", "pairs", "--data", HOSTILE],
    )
    run.write_config({"system": {"temperature": 0.07, "note": HOSTILE}, "trainer": {"epochs": 2}})
    run.write_metrics(
        Metrics(
            "recall@10",
            True,
            {"recall@10": 0.612} | {f"a_rather_long_metric_name_{place}": 0.5 for place in range(8)},
            baselines={HOSTILE: {"recall@10": 0.331}},
            intervals={"test": {"recall@10": (0.58, 0.64)}},
            counts={"test": 1204},
            unit="queries",
        )
    )
    arms = (
        AblationArm("on", "the full method", 0.61),
        AblationArm("off", HOSTILE, 0.41, difference=0.2, difference_low=0.1, difference_high=0.3),
    )
    run.write_ablation(Ablation("recall@10", True, arms, (0, 1), "The contrastive part helped."))
    steps = np.arange(1, 50)
    run.write_history(
        pd.DataFrame({"stage": "main", "epoch": steps, "step": steps, "loss": 1 / steps, HOSTILE: steps / 50})
    )
    rng = np.random.default_rng(0)
    group = np.arange(300) % 3
    vectors = (rng.normal(size=(300, 8)) * 0.3 + np.eye(8)[group] * 9).astype(np.float32)
    topics = ["tea", "coffee", HOSTILE]
    run.write_embeddings(
        Embeddings(
            vectors,
            [f"q{row}" for row in range(300)],
            "question",
            {"topic": [topics[place] for place in group], "text": [f"Row {row}: {HOSTILE}" for row in range(300)]},
            label="topic",
            hover="text",
        ),
        split="test",
    )
    bars = {
        "data": [{"type": "bar", "x": [HOSTILE], "y": [1], "name": HOSTILE}],
        "layout": {"images": [{"source": "https://example.org/y.png"}], "title": {"text": HOSTILE}},
    }
    wide = pd.DataFrame({f"column {place}": [HOSTILE] * 60 for place in range(6)})
    write_figures(run, [Figure("Bars", HOSTILE, plotly=bars), Figure("Wide", "Wide.", table=wide)])
    return write_report(run, projections=("pca",))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium that logs its console and its requests."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "hide-scrollbars", "disable-dev-shm-usage",
        "enable-unsafe-swiftshader", f"user-data-dir={tmp_path_factory.mktemp('profile')}", "window-size=1280,900",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


def open_page(driver, page, *, width=1280, dark=False, media=()):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, *media]})
    for log in ("browser", "performance"):
        driver.get_log(log)  # what an earlier test left
    driver.get(page.as_uri())
    wait(driver, "return document.documentElement.dataset.ready === 'yes'")


def wait(driver, script, *arguments, seconds=60):
    end = time.monotonic() + seconds
    while not (value := driver.execute_script(script, *arguments)):
        assert time.monotonic() < end, f"never came true: {script}"
        time.sleep(0.1)
    return value


def console_errors(driver):
    entries = driver.get_log("browser")
    return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]


def requests(driver):
    """Addresses that were asked for; one that the page's policy refused was not."""
    sent, blocked = {}, set()
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            sent[message["params"]["requestId"]] = message["params"]["request"]["url"]
        elif message["method"] == "Network.loadingFailed" and message["params"].get("blockedReason") == "csp":
            blocked.add(message["params"]["requestId"])
    urls = {url for request, url in sent.items() if request not in blocked}
    return {url for url in urls if not url.startswith(("data:", "blob:", "chrome:"))}


def unexpected(errors):
    """Errors but one: a figure of the report names an image on the network, which the page's policy refuses aloud."""
    return [line for line in errors if not ("example.org/y.png" in line and "Content Security Policy" in line)]


def test_it_draws_everything_without_a_network(browser, page):
    open_page(browser, page)
    assert "pairs" in browser.find_element("tag name", "h1").text
    assert "recall@10 0.612" in browser.find_element("css selector", ".reading").text
    assert "0.580 to 0.640" in browser.find_element("css selector", "#result table").text
    sizes = browser.execute_script("""
        return Array.from(document.querySelectorAll(".chart")).map((box) => {
          const drawn = box.querySelector("svg, canvas");
          const size = drawn ? drawn.getBoundingClientRect() : { width: 0, height: 0 };
          return [box.id, size.width, size.height, /waiting|failed/.test(box.className)];
        })""")
    assert {name for name, *_ in sizes} >= {"chart-result", "chart-ablation", "chart-map", "chart-own-0"}
    for name, width, height, unfinished in sizes:
        assert width > 200, name
        assert height > 60, name
        assert not unfinished, name
    assert unexpected(console_errors(browser)) == []
    assert requests(browser) == {page.as_uri()}


def test_hostile_texts_are_inert(browser, page):
    open_page(browser, page)
    assert browser.execute_script("return window.stolen === undefined")
    assert browser.find_elements("css selector", "main img") == []
    assert HOSTILE in browser.find_element("id", "command").text
    # Even markup that a defect let through would not run: the policy knows the page's own scripts by their hashes.
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.stolen = 1'; document.body.append(s);"
    )
    assert browser.execute_script("return window.stolen === undefined")


def test_the_map_shows_texts_pans_zooms_and_hides(browser, page):
    from selenium.webdriver.common.action_chains import ActionChains

    open_page(browser, page)
    box = browser.find_element("id", "chart-map")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
    assert browser.execute_script("return arguments[0].data.length", box) == 3
    x, y = browser.execute_script(
        """
        const box = arguments[0], trace = box.data[0], frame = box.getBoundingClientRect();
        const across = box._fullLayout.xaxis, up = box._fullLayout.yaxis;
        return [frame.x + across._offset + across.d2p(trace.x[0]), frame.y + up._offset + up.d2p(trace.y[0])];
        """,
        box,
    )
    mouse = ActionChains(browser)
    mouse.w3c_actions.pointer_action.move_to_location(int(x), int(y))
    mouse.perform()
    shown = wait(
        browser,
        "const layer = arguments[0].querySelector('.hoverlayer .hovertext'); return layer && layer.textContent",
        box,
    )
    assert "Row " in shown
    assert "<script>" in shown
    assert "question q" in shown

    def span():
        return browser.execute_script(
            "const r = arguments[0]._fullLayout.xaxis.range; return Math.abs(r[1] - r[0])", box
        )

    before = span()
    # An unclicked map lets the wheel scroll the page.
    ActionChains(browser).scroll_from_origin(_at(box), 0, 20).perform()
    assert span() == before
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
    ActionChains(browser).move_to_element(box).click().perform()
    ActionChains(browser).scroll_from_origin(_at(box), 0, -200).perform()
    wait(
        browser, f"const r = arguments[0]._fullLayout.xaxis.range; return Math.abs(r[1] - r[0]) < {before * 0.95}", box
    )
    middle = browser.execute_script("return arguments[0]._fullLayout.xaxis.range[0]", box)
    ActionChains(browser).move_to_element(box).click_and_hold().move_by_offset(60, 0).release().perform()
    wait(browser, f"return arguments[0]._fullLayout.xaxis.range[0] < {middle}", box)
    zoomed = span()
    label = browser.find_element("css selector", "[data-group='1']")
    label.click()
    wait(browser, "return arguments[0].data[1].visible === false", box)
    assert label.get_attribute("aria-pressed") == "false"
    assert span() == pytest.approx(zoomed)
    assert unexpected(console_errors(browser)) == []


def _at(element):
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    return ScrollOrigin.from_element(element)


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(browser, page, dark):
    open_page(browser, page, width=390, dark=dark)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    widths = browser.execute_script(
        "return Array.from(document.querySelectorAll('.chart .main-svg')).map(box => box.getBoundingClientRect().width)"
    )
    assert max(widths) <= 390


def test_light_and_dark_follow_the_reader(browser, page):
    open_page(browser, page)
    ask = """
        const box = document.getElementById("chart-result");
        const page = getComputedStyle(document.body).backgroundColor;
        return [page, box._fullLayout.font.color, box._fullData[0].marker.color[0]]"""
    light = browser.execute_script(ask)
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [dark]})
    wait(browser, "return document.getElementById('chart-result')._fullLayout.font.color !== arguments[0]", light[1])
    assert all(one != other for one, other in zip(light, browser.execute_script(ask), strict=True))


def test_options_can_be_searched_and_no_button_uploads(browser, page):
    open_page(browser, page)
    browser.find_element("css selector", "#config details summary").click()
    browser.find_element("id", "config-search").send_keys("epochs")
    rows = browser.find_elements("css selector", "#config-all tbody tr")
    assert [row.text.split()[0] for row in rows if row.is_displayed()] == ["trainer.epochs"]
    assert browser.find_element("id", "config-found").text == "1 of 3 options"
    titles = browser.execute_script("""
        const buttons = Array.from(document.querySelectorAll(".modebar-btn"));
        return buttons.map((button) => (button.dataset.title || "") + (button.dataset.attr || ""))""")
    assert titles
    assert not [title for title in titles if "hare" in title or "loud" in title]


def test_the_text_is_there_before_the_charts(browser, page):
    """With scripts switched off the page still reads."""
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(page.as_uri())
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    text = browser.execute_script("return document.body.innerText")
    assert "recall@10 0.612" in text
    assert "Charts need JavaScript" in text
    assert not browser.execute_script("return document.documentElement.classList.contains('scripted')")
