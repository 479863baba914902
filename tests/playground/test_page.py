"""The page, asked by Gradio's own client; and opened in a browser."""

import base64
import inspect
import io
import json
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from diffusion_labs.cli import main
from diffusion_labs.playground.answers import Answers
from diffusion_labs.playground.convergence import last
from diffusion_labs.playground.look import CSS
from diffusion_labs.playground.page import build_page, launch
from diffusion_labs.playground.painting import Subject, paint
from diffusion_labs.playground.pictures import kept, shown
from diffusion_labs.playground.request import Request

gradio = pytest.importorskip("gradio", reason="the playground needs gradio")
WORDS = ["one", "ddim", "trailing", 3, 2.0]


@pytest.fixture(scope="module")
def address(pixels: Subject) -> Iterator[str]:
    """Of a page that is served. Shape checks hide from Gradio that functions yield, so its answers go without."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("draw", "inpaint", "compare", "errors"):
            patched.setattr(Answers, name, inspect.unwrap(getattr(Answers, name)))
        page = build_page(pixels)
    yield launch(page, wait=False)
    page.close()


@pytest.fixture(scope="module")
def client(address: str) -> Any:
    from gradio_client import Client

    return Client(address, verbose=False)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion_labs.playground.convergence.STEPS", (1, 2))
    monkeypatch.setattr("diffusion_labs.playground.convergence.MANY", 4)


def picture(answer: Any) -> numpy.ndarray:
    """The image that the client has downloaded."""
    return numpy.array(Image.open(answer if isinstance(answer, str) else answer["path"]).convert("RGB"))


def expected(subject: Subject, seed: int, **changes: Any) -> numpy.ndarray:
    return shown(last(subject, Request(class_name="one", steps=3, count=2, seed=seed, **changes)))


def test_it_listens_on_this_machine_alone(address: str) -> None:
    assert address.startswith("http://127.0.0.1:")


def test_a_visitor_gets_the_picture_of_the_seed_and_its_code(client: Any, pixels: Subject) -> None:
    drawn, *_, code = client.predict(*WORDS, 7, 2, api_name="/draw")
    assert numpy.array_equal(picture(drawn), expected(pixels, 7))
    assert "seed=7" in code


def test_visitors_at_once_get_their_own_pictures(address: str, pixels: Subject) -> None:
    from gradio_client import Client

    def visit(seed: int) -> list[numpy.ndarray]:
        own = Client(address, verbose=False)
        return [picture(own.predict(*WORDS, seed, 2, api_name="/draw")[0]) for _ in range(3)]

    with ThreadPoolExecutor(3) as pool:
        visits = list(pool.map(visit, (1, 2, 3)))
    for seed, pictures in zip((1, 2, 3), visits, strict=True):
        assert all(numpy.array_equal(one, expected(pixels, seed)) for one in pictures)


def test_gradio_is_given_files_which_it_does_not_write_again(pixels: Subject, tmp_path: Path) -> None:
    answers = Answers(pixels, gradio.Error, gradio.Warning, tmp_path)
    settings = [*WORDS, 7, 2]
    layer = numpy.full((80, 80, 4), 255, dtype=numpy.uint8)
    editor = {"background": layer[..., :3], "layers": [layer]}
    inpainted = list(answers.inpaint(editor, *settings))
    given = [
        *(picture for picture, *_ in answers.draw(*settings)),
        *(picture for picture, *_ in inpainted),
        *(picture for *pictures, _ in answers.compare("heun", "karras", 4, 1.0, *settings) for picture in pictures),
        *answers.errors(*settings),
        answers.take(*settings)["background"],
    ]
    files = {Path(file) for file in given if file is not None}
    (known,) = set(tmp_path.glob("*/picture.png")) - files
    assert str(known) in inpainted[-1][-1]
    assert all(file.is_file() for file in files)


def test_a_picture_is_written_once(tmp_path: Path) -> None:
    black, white = numpy.zeros((4, 6, 3), dtype=numpy.uint8), numpy.full((4, 6, 3), 255, dtype=numpy.uint8)
    file = Path(kept(black, tmp_path))
    written = file.stat()
    assert kept(black.copy(), tmp_path) == str(file)
    assert file.stat() == written
    for other in (white, black.reshape(6, 4, 3)):
        assert numpy.array_equal(picture(kept(other, tmp_path)), other)
    assert numpy.array_equal(picture(str(file)), black)


def test_the_other_tabs_answer(client: Any, pixels: Subject) -> None:
    first, second, apart = client.predict("heun", "karras", 4, 1.0, *WORDS, 7, 2, api_name="/compare")
    assert numpy.array_equal(picture(first), expected(pixels, 7))
    other = last(pixels, Request("one", None, "heun", "karras", 4, 1.0, 7, 2))
    assert numpy.array_equal(picture(second), shown(other))
    assert "difference" in apart
    assert picture(client.predict(*WORDS, 7, 1, api_name="/errors")).shape[2] == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([*WORDS, -1, 2], "seed (-1) must be a whole number"),
        (["one", "ddim", "trailing", 250, 2.0, 0, 16], "4,000 calls of the network are more than the 600"),
        (["two", "ddim", "trailing", 3, 2.0, 0, 1], "two is not in the list"),
        (["one", "ddim", "all_steps", 3, 2.0, 0, 1], "all_steps makes 1000 calls"),
    ],
)
def test_bad_input_is_told(client: Any, settings: list[Any], message: str) -> None:
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError) as found:
        client.predict(*settings, api_name="/draw")
    assert message in str(found.value)


def test_a_sampler_that_cannot_work_is_told_of(pixels: Subject, tmp_path: Path) -> None:
    said: list[str] = []
    answers = Answers(pixels, gradio.Error, said.append, tmp_path)
    list(answers.draw("one", "heun", "karras", 25, 2.0, 0, 1))
    assert not said
    list(answers.draw("one", "heun", "trailing", 8, 2.0, 0, 1))
    assert "HeunSampler with eval_steps=8" in said[0]
    assert "karras" in said[0]


def test_nothing_is_told_to_anybody_and_nothing_comes_from_elsewhere(pixels: Subject) -> None:
    page = build_page(pixels)
    assert page.analytics_enabled is False
    assert "http" not in CSS


def test_mistakes_on_the_command_line_are_one_line(tmp_path: Path, pixels: Subject, address: str, capsys) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(pixels.source, tmp_path / "silent")
    config = json.loads((tmp_path / "silent" / "config.json").read_text())
    del config["about"]
    (tmp_path / "silent" / "config.json").write_text(json.dumps(config))
    for source, options, message in (
        (tmp_path / "empty", [], "config.json"),
        (tmp_path / "nowhere", [], "there is no folder"),
        (tmp_path / "silent", [], "does not say what its model draws"),
        (pixels.source, ["--most-work", "0"], "--most-work is 0"),
        (pixels.source, ["--port", address.strip("/").rpartition(":")[2]], "port"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["play", str(source), *options])
        assert stop.value.code == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


class Browser:
    """Headless Chromium on a page."""

    def __init__(self, address: str, folder: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for word in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"):
            options.add_argument(f"--{word}")
        for word in ("disable-component-update", "disable-sync", "disable-quic", "window-size=1280,1250"):
            options.add_argument(f"--{word}")
        options.add_argument(f"--user-data-dir={folder}")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        self.driver.get(address)

    def wait(self, found: Any, seconds: float = 120) -> Any:
        """What a function finds, as soon as it finds something."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if value := found():
                return value
            threading.Event().wait(0.2)
        raise AssertionError(self.text)

    @property
    def text(self) -> str:
        """All that is to be read."""
        return str(self.driver.find_element("tag name", "body").text)

    def seen(self, selector: str) -> Any:
        """The first element that is displayed, as soon as there is one."""
        found = self.wait(lambda: [e for e in self.driver.find_elements("css selector", selector) if e.is_displayed()])
        return found[0]

    def press(self, text: str) -> None:
        """Press a button."""
        self._press(text, "button.lg")

    def open(self, text: str) -> None:
        """Go to a tab."""
        self._press(text, "button[role=tab]")

    def _press(self, text: str, selector: str) -> None:
        # Gradio measures the names of the tabs in invisible buttons of the same text, which no selector here finds
        def found() -> list[Any]:
            return [b for b in self.driver.find_elements("css selector", selector) if b.text.strip() == text]

        self.wait(found)[0].click()

    def picture(self) -> Any:
        """The picture that is shown, when it is loaded, or ``None``."""
        script = """const i = [...document.querySelectorAll(".picture img")].find(
            (i) => i.offsetParent && i.complete && i.naturalWidth);
        if (!i) return null;
        const c = document.createElement("canvas");
        c.width = i.naturalWidth; c.height = i.naturalHeight; c.getContext("2d").drawImage(i, 0, 0);
        return c.toDataURL().split(",")[1]"""
        data = self.driver.execute_script(script)
        return numpy.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")) if data else None

    def shows(self, images: Any) -> None:
        """Wait for some pictures."""
        expected = shown(images)
        self.wait(lambda: numpy.array_equal(self.picture(), expected))

    def the_way(self, length: int) -> Any:
        """The slider, when it goes through pictures of this number."""
        slider = self.seen("input[type=range][aria-label*='The way']")
        self.wait(lambda: slider.get_attribute("max") == str(length - 1) == slider.get_attribute("value"))
        return slider

    def hosts(self) -> set[str]:
        """Where anything was asked for."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return {url.split("/")[2] for url in sent if url.startswith(("http", "ws"))}


def cells(picture: numpy.ndarray, side: int) -> numpy.ndarray:
    """The pixels of which the squares are shown."""
    return picture[:: picture.shape[0] // side, :: picture.shape[1] // side].astype(int)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromedriver") is None, reason="the browser needs chromium and chromium-driver")
def test_a_browser_draws_inpaints_and_is_told_what_is_wrong(address: str, pixels: Subject, tmp_path: Path) -> None:
    pytest.importorskip("selenium", reason="the browser is driven by selenium")
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser = Browser(address, tmp_path / "profile")
    try:
        browser.press("Draw")
        browser.wait(lambda: "open_model" in browser.text)
        frames = list(paint(pixels, Request(steps=25, count=4)))
        browser.shows(frames[-1])
        browser.the_way(len(frames)).send_keys(Keys.HOME)
        browser.shows(frames[0])
        browser.driver.save_screenshot(str(tmp_path / "drawn.png"))

        browser.open("Inpaint")
        browser.press("Take a picture")
        canvas = browser.seen("#editor canvas")
        browser.seen("#editor button[aria-label=Brush]").click()
        browser.seen("#editor button[aria-label=Undo]:enabled")
        chain = ActionChains(browser.driver).move_to_element(canvas).click_and_hold()
        chain.move_by_offset(30, 10).move_by_offset(-10, 20).release().perform()
        browser.press("Inpaint")
        browser.the_way(len(frames))
        browser.wait(lambda: "read_known" in browser.text)
        taken = cells(shown(last(pixels, Request(steps=25, count=1)), padding=0), 8)
        browser.wait(lambda: browser.picture() is not None)
        inpainted = cells(browser.picture(), 2 * (1 + 8) + 1)
        for row, column in ((1, 1), (1, 10), (10, 1), (10, 10)):
            apart = abs(inpainted[row : row + 8, column : column + 8] - taken).max(axis=2)
            assert apart[[0, -1], :].max() <= 1 >= apart[:, [0, -1]].max()
            assert apart[1:-1, 1:-1].max() > 10
        browser.driver.save_screenshot(str(tmp_path / "inpainted.png"))

        browser.open("Draw")
        seed = browser.seen("input[aria-label=Seed]")
        seed.send_keys(Keys.CONTROL, "a")
        seed.send_keys("-1", Keys.TAB)
        browser.press("Draw")
        browser.wait(lambda: "seed (-1) must be a whole number" in browser.text)
        browser.driver.save_screenshot(str(tmp_path / "told.png"))
        assert browser.hosts() == {address.split("/")[2]}
    finally:
        browser.driver.quit()
