"""The report, the gallery and the demo, as a person with a browser meets them.

    pages.py FOLDER      a folder with report.html and demo.html of a smoke run, own.html of a table of
                         one's own, and gallery.html of several runs; screenshots are left in it

Needs playwright, axe-playwright-python and a Chromium: that in $CHROMIUM, in the PATH, or
playwright's own. Exits with 77 where there is no Chromium.
"""

import math
import os
import shutil
import sys
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Error, Page, sync_playwright

SIZES = {"phone": (390, 844), "desktop": (1280, 900)}
PAGES = ["report.html", "own.html", "gallery.html", "demo.html"]


def chromium(playwright):
    names = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"]
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    try:
        return playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
    except Error as error:
        print(f"no Chromium: {error.message.splitlines()[0]}", file=sys.stderr)
        sys.exit(77)


def bars(page: Page) -> list[list[float]]:
    """The soft predictions shown, one list for each model."""
    rows = page.eval_on_selector_all(
        "#bars tr",
        "rows => rows.map(r => [...r.querySelectorAll('td[data-p]')].map(c => Number(c.dataset.p)))",
    )
    return [list(model) for model in zip(*rows)]


def distributions(page: Page) -> list[list[float]]:
    # An answer is computed in the next frame.
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    shown = bars(page)
    assert shown and all(len(model) == 10 for model in shown), shown
    for model in shown:
        assert math.isclose(sum(model), 1, abs_tol=1e-9), model
        assert all(0 <= p <= 1 for p in model), model
    return shown


def entropy(model: list[float]) -> float:
    return -sum(p * math.log(p) for p in model if p > 0)


def draw(page: Page, points: list[tuple[float, float]]) -> None:
    box = page.locator("#paper").bounding_box()
    place = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*place[0])
    page.mouse.down()
    for point in place[1:]:
        page.mouse.move(*point, steps=12)
    page.mouse.up()


def slide(page: Page, value: int) -> None:
    page.locator("#temperature").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }",
        value,
    )


def ready(page: Page) -> None:
    page.wait_for_selector("body[data-ready]", state="attached")


def heat(page: Page) -> float:
    return 40 ** (int(page.locator("#temperature").input_value()) / 1000)


def opening(browser, folder: Path) -> None:
    """The temperature goes once from 1 to the run's, not for whom motion disturbs, and stops for whom
    takes over."""
    for motion in ("no-preference", "reduce"):
        context = browser.new_context(reduced_motion=motion)
        page = context.new_page()
        page.goto((folder / "demo.html").resolve().as_uri())
        ready(page)
        if motion == "reduce":
            assert abs(heat(page) - 20) < 0.2, heat(page)
            page.wait_for_timeout(900)
            assert abs(heat(page) - 20) < 0.2, "it moved"
        else:
            assert heat(page) < 3, heat(page)
            page.wait_for_selector("body[data-swept]", state="attached", timeout=15_000)
            assert abs(heat(page) - 20) < 0.2, heat(page)
            page.reload()
            ready(page)
            page.wait_for_timeout(1200)
            page.locator("#paper").click()
            page.wait_for_timeout(100)
            taken = heat(page)
            page.wait_for_timeout(500)
            assert heat(page) == taken < 19, "it went on after it was taken over"
        context.close()


def parts(page: Page) -> None:
    """What the demo says beside the bars: answers, the label, the scale, who errs, the link."""
    titles = page.locator("#samples h3").all_inner_texts()
    assert titles[0] == "One of each class" and "Only the baseline is wrong" in titles, titles
    group = page.locator("#samples > div", has_text="Only the baseline is wrong")
    group.locator("button").first.click()
    chips = page.locator("#chips li").all_inner_texts()
    assert [chip[-1] for chip in chips] == ["✓", "✗", "✓"], chips
    hard = page.locator("#bars .hard").all_inner_texts()
    assert sorted(hard) == ["0"] * 9 + ["100 %"], hard
    # To the largest, each model's longest bar is whole; by the true scale it is as long as it is likely.
    slide(page, 1000)
    longest = lambda: page.eval_on_selector_all(
        "#bars .c0 .bar", "bars => Math.max(...bars.map(b => Number(b.style.getPropertyValue('--p'))))"
    )
    assert longest() == 1
    page.get_by_label("0 to 100 %").check()
    assert math.isclose(longest(), max(distributions(page)[0]))
    page.get_by_label("logarithmic").check()
    assert max(distributions(page)[0]) < longest() < 1
    page.get_by_label("to the largest").check()
    # The address holds image, label and temperature.
    before, hot = distributions(page), heat(page)
    page.click("#link")
    page.wait_for_selector("#linked:not(:empty)")
    url = page.url
    assert "#image=" in url, url
    page.goto("about:blank")
    page.goto(url)
    ready(page)
    assert abs(heat(page) - hot) < 0.1
    shown = distributions(page)
    assert all(math.isclose(a, b, rel_tol=1e-3) for x, y in zip(shown, before) for a, b in zip(x, y))
    assert [chip[-1] for chip in page.locator("#chips li").all_inner_texts()] == ["✓", "✗", "✓"]


def tells(page: Page, size: str) -> None:
    """A page with charts: the sections, and what a mark tells under the pointer and by keyboard."""
    closed = page.locator("details.part:not([open])").count()
    every = page.locator("details.part").count()
    assert (closed > 0) == (size == "phone" and every > 1), (closed, every)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    plots = page.locator(".plot")
    assert plots.count() > 0
    for i in range(plots.count()):
        plot = plots.nth(i)
        plot.scroll_into_view_if_needed()
        width, column = plot.evaluate(
            "p => [[...p.querySelectorAll('svg')].find(s => s.getClientRects().length)"
            ".getBoundingClientRect().width, p.parentElement.clientWidth]"
        )
        assert abs(width - column) <= 1, f"a chart of {width} in a column of {column}"
        plot.focus()
        page.keyboard.press("ArrowRight")
        said = plot.locator(".tip").inner_text()
        assert any(c.isdigit() for c in said), said
        page.keyboard.press("Escape")
        assert plot.locator(".tip").is_hidden()
        if size == "desktop":
            box = plot.bounding_box()
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            assert plot.locator(".tip").is_visible()
            page.mouse.move(0, 0)
    # Nothing is cut off at the edge of a chart, and nothing overprints.
    cut = page.evaluate(
        """() => [...document.querySelectorAll('svg.chart')].filter(s => s.getClientRects().length)
            .flatMap(svg => {
                const frame = svg.getBoundingClientRect();
                return [...svg.querySelectorAll('text')].filter(t => {
                    const box = t.getBoundingClientRect();
                    return box.left < frame.left - 1 || box.right > frame.right + 1;
                }).map(t => t.textContent);
            })"""
    )
    assert not cut, cut
    overprinted = page.evaluate(
        """() => [...document.querySelectorAll('svg.chart')].filter(s => s.getClientRects().length)
            .flatMap(svg => {
                const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
                return boxes.flatMap(([a, p], i) => boxes.slice(i + 1)
                    .filter(([b, q]) => Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1
                        && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 4)
                    .map(([b]) => `${a} / ${b}`));
            })"""
    )
    assert not overprinted, overprinted


def play(page: Page) -> None:
    """The demo: its arithmetic, the pen, the slider, the samples, the keyboard, a finger."""
    parts(page)
    page.click("#clear")
    difference = float(page.get_attribute("#check", "data-difference"))
    print(f"largest difference from the engine's logits: {difference:.1e}")
    assert difference <= 1e-4, difference
    # A comparison of nothing would pass too.
    assert page.locator("#samples button").count() >= 10

    empty = distributions(page)
    assert len(empty) == 3, "teacher, baseline and student"
    draw(page, [(0.3, 0.2), (0.7, 0.2), (0.45, 0.85)])
    seven = distributions(page)
    assert all(a != b for a, b in zip(seven, empty)), "a stroke changed no answer"

    # What the models got has its longer side within 20 pixels (and a row for the halves at both
    # ends) and its centre of mass in the middle, to half a grey value.
    x, y, height, width, greys = page.evaluate(
        """() => {
            const rgba = document.getElementById('seen').getContext('2d').getImageData(0, 0, 28, 28).data;
            let [mass, x, y, xs, ys, greys] = [0, 0, 0, new Set(), new Set(), new Set()];
            for (let i = 0; i < 784; i++) {
                const v = rgba[4 * i];
                if (v === 0) continue;
                greys.add(v); xs.add(i % 28); ys.add(i / 28 | 0);
                mass += v; x += v * (i % 28 + 0.5); y += v * ((i / 28 | 0) + 0.5);
            }
            return [x / mass, y / mass, ys.size, xs.size, greys.size];
        }"""
    )
    assert abs(x - 14) < 0.05 and abs(y - 14) < 0.05, (x, y)
    assert 20 <= max(height, width) <= 21, (height, width)
    assert greys > 20, "the strokes are not anti-aliased"

    slide(page, 0)
    cold = distributions(page)
    slide(page, 1000)
    hot = distributions(page)
    assert all(entropy(h) > entropy(c) for h, c in zip(hot, cold)), "T = 40 is no softer than 1"
    assert "40" in page.locator("#temperature").get_attribute("aria-valuetext")
    # q_i ∝ p_i^(1/40) of the cold ones: the slider's T is what divides the logits.
    for h, c in zip(hot, cold):
        powers = [p ** (1 / 40) for p in c]
        assert all(math.isclose(a, b / sum(powers), rel_tol=1e-6) for a, b in zip(h, powers))
    slide(page, 0)

    page.locator("#samples button").nth(3).click()
    sample = distributions(page)
    assert sample != cold

    page.click("#clear")
    slide(page, 500)
    before = distributions(page)
    page.focus("#paper")
    for key in ["Space", *["ArrowDown"] * 6, "Space"]:
        page.keyboard.press(key)
    assert distributions(page) != before, "the keyboard drew nothing"
    page.keyboard.press("Escape")
    assert distributions(page) == before, "Escape did not clear"


def touch(page: Page) -> None:
    """A finger, through the protocol that real ones come by; and what a telephone shows at once."""
    top = page.locator("#paper").bounding_box()["y"]
    last = page.locator("#bars tr").last.bounding_box()
    assert top >= 0 and last["y"] + last["height"] <= SIZES["phone"][1], (top, last)
    before = distributions(page)
    page.locator("#paper").scroll_into_view_if_needed()
    box = page.locator("#paper").bounding_box()
    client = page.context.new_cdp_session(page)
    at = lambda y: [{"x": box["x"] + box["width"] / 2, "y": box["y"] + y * box["height"]}]
    client.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": at(0.2)})
    for step in range(3, 9):
        client.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": at(step / 10)})
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert distributions(page) != before, "a finger drew nothing"


def look(browser, folder: Path, name: str, theme: str, size: str) -> None:
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=theme,
        has_touch=size == "phone",
        reduced_motion="reduce",
    )
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda r: r.url.startswith(("file:", "data:")) or complaints.append(r.url))
    page.goto((folder / name).resolve().as_uri())
    assert page.locator("main h1").count() == 1
    if name != "demo.html":
        tells(page, size)
    else:
        ready(page)
        touch(page) if size == "phone" else play(page)
        page.locator("#samples button").nth(7).click()
        slide(page, 600)
    # Tables scroll in their own boxes, never the page.
    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0, f"{name} is {overflow} px wider than a screen of {width}"
    images = page.eval_on_selector_all("img", "all => all.map(i => [i.alt, i.naturalWidth])")
    assert all(alt and natural for alt, natural in images), images
    complaints_before_axe = list(complaints)
    found = Axe().run(page).response["violations"]
    found = [f"{v['id']}: {v['help']}: {[n['html'][:120] for n in v['nodes'][:3]]}" for v in found]
    assert not found, f"{name}, {theme}, {size}: {found}"
    page.screenshot(path=folder / f"{Path(name).stem}-{size}-{theme}.png", full_page=True)
    assert not complaints_before_axe, complaints_before_axe
    context.close()


def main() -> None:
    folder = Path(sys.argv[1])
    with sync_playwright() as playwright:
        browser = chromium(playwright)
        opening(browser, folder)
        for name in PAGES:
            for theme in ("light", "dark"):
                for size in SIZES:
                    look(browser, folder, name, theme, size)
        browser.close()
    print(f"{len(PAGES)} pages, 2 themes, {len(SIZES)} sizes: nothing to complain of")


if __name__ == "__main__":
    main()
