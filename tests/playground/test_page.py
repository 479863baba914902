"""The page, asked by Gradio's own client; and opened in a browser."""

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
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
from diffusion_labs.playground.visitors import Job, Visitors

gradio = pytest.importorskip("gradio", reason="the playground needs gradio")
WORDS = ["one", "ddim", "trailing", 3, 2.0]


@pytest.fixture(scope="module", autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Files of pages are in a folder that has to be quoted."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("a $& b %20")))
        yield


@pytest.fixture(scope="module")
def address(pixels: Subject, temporary: None) -> Iterator[str]:
    """Of a page that is served."""
    page = build_page(pixels)
    yield launch(page, wait=False)
    page.visitors.close()
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
    answers = Answers(pixels, gradio.Error)
    settings = [Job(tmp_path), *WORDS, 7, 2]
    layer = numpy.full((80, 80, 4), 255, dtype=numpy.uint8)
    editor = {"background": 0 * layer[..., :3], "layers": [layer]}
    given = [
        *(picture for picture, *_ in answers.draw(*settings)),
        *(
            file
            for picture, *_, known in answers.inpaint(settings[0], editor, *settings[1:])
            for file in (picture, known)
        ),
        *(
            file
            for first, _, second, *_ in answers.compare(settings[0], "heun", "karras", 4, 1.0, *settings[1:])
            for file in (first, second)
        ),
        *answers.errors(*settings),
        *(editor["background"] for editor in answers.take(*settings)),
    ]
    files = {Path(file) for file in given if file is not None}
    assert files == set(tmp_path.glob("*/*.png"))


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
    first, about, second, other_about, apart, code = client.predict(
        "heun", "karras", 4, 1.0, *WORDS, 7, 2, api_name="/compare"
    )
    assert numpy.array_equal(picture(first), expected(pixels, 7))
    other = last(pixels, Request("one", None, "heun", "karras", 4, 1.0, 7, 2))
    assert numpy.array_equal(picture(second), shown(other))
    assert "difference" in apart
    assert "3 steps of ddim on trailing" in about
    assert "4 steps of heun on karras" in other_about
    assert "dl.DDIMSampler" in code
    assert "dl.HeunSampler" in code
    assert picture(client.predict(*WORDS, 7, 1, api_name="/errors")).shape[2] == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([*WORDS, -1, 2], "seed (-1) must be a whole number"),
        (["one", "ddim", "trailing", 250, 2.0, 0, 16], "take more than 600 calls of the network"),
        (["one", "repaint", "trailing", 25, 2.0, 0, 1], "take more than 600 calls of the network"),
        (["one", "ddim", "trailing", 3, 2.0, 1.7, 1], "seed (1.7) must be a whole number"),
        (["one", "ddim", "trailing", 2.5, 2.0, 0, 1], "steps (2.5) must be a whole number"),
        (["two", "ddim", "trailing", 3, 2.0, 0, 1], "two is not in the list"),
        (["one", "ddim", "all_steps", 3, 2.0, 0, 1], "all_steps is not in the list"),
    ],
)
def test_bad_input_is_told(client: Any, settings: list[Any], message: str) -> None:
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError) as found:
        client.predict(*settings, api_name="/draw")
    assert message in str(found.value)


def test_the_side_that_fails_is_named(client: Any) -> None:
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match="the second: 25 steps of repaint"):
        client.predict("repaint", "trailing", 25, 1.0, *WORDS, 7, 2, api_name="/compare")


def test_what_is_wrong_with_a_sampler_stays_beside_its_pictures(pixels: Subject, tmp_path: Path) -> None:
    answers = Answers(pixels, gradio.Error)
    notes = [note for _, note, *_ in answers.draw(Job(tmp_path), "one", "heun", "karras", 25, 2.0, 0, 1)]
    assert not any("noise" in note for note in notes)
    notes = [note for _, note, *_ in answers.draw(Job(tmp_path), "one", "heun", "trailing", 8, 2.0, 0, 1)]
    assert all("8 steps of heun on trailing give noise" in note for note in notes)
    compared = list(answers.compare(Job(tmp_path), "heun", "trailing", 8, 2.0, *WORDS, 0, 1))
    assert "give noise" not in compared[-1][1]
    assert "give noise" in compared[-1][3]


def test_a_request_that_is_stopped_ends_with_the_picture_so_far(pixels: Subject, tmp_path: Path) -> None:
    job = Job(tmp_path)
    path = Answers(pixels, gradio.Error).draw(job, "one", "ddim", "trailing", 250, 2.0, 0, 1)
    before = threading.active_count()
    next(path)
    job.stop()
    *_, (picture, note, way, code) = path
    assert picture == way[-1]
    assert 1 <= len(way) < 250
    assert f"stopped after {len(way)} of 250 calls" in note
    assert code == ""
    assert threading.active_count() == before


def test_a_request_takes_the_place_of_the_one_before(pixels: Subject) -> None:
    visitors = Visitors()
    answers = Answers(pixels, gradio.Error)

    def ask(steps: int) -> Any:
        with visitors.visitor("me").working("draw") as job:
            return list(answers.draw(job, "one", "ddim", "trailing", steps, 2.0, 0, 1))[-1]

    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(ask, 600)
        while not list(visitors.folder.glob("*/*/*/*.png")):
            threading.Event().wait(0.01)
        *_, code = ask(3)
        *_, way, none = long.result()
    assert "steps=3" in code
    assert none == ""
    assert len(way) < 600
    visitors.close()


def test_files_are_as_long_as_the_page_and_of_the_last_request(pixels: Subject) -> None:
    visitors = Visitors()
    folder = visitors.folder
    assert folder.stat().st_mode & 0o777 == 0o700
    answers = Answers(pixels, gradio.Error)

    def draw(session: str, seed: int) -> None:
        with visitors.visitor(session).working("draw") as job:
            list(answers.draw(job, *WORDS, seed, 1))

    draw("other", 0)
    for seed in (0, 1, 2):
        draw("me", seed)
    assert len(list(folder.glob("*/*/*/*.png"))) == 2 * 3  # the last estimate is the picture
    with pytest.raises(gradio.Error):
        draw("me", -1)
    assert len(list(folder.glob("*/*/*/*.png"))) == 2 * 3
    assert len(list(folder.glob("*/*"))) == 2
    visitors.leave("me")
    assert len(list(folder.glob("*/*/*/*.png"))) == 3
    visitors.close()
    assert not folder.exists()


def test_pictures_are_served_from_their_place_and_go_with_the_visitor(pixels: Subject) -> None:
    from gradio_client import Client

    page = build_page(pixels)
    folder = page.visitors.folder
    visit = Client(launch(page, wait=False), verbose=False)
    visit.predict(*WORDS, 7, 2, api_name="/draw")
    assert set(folder.rglob("*.png")) == set(folder.glob("*/draw-*/*/picture.png")) != set()
    page.visitors.close()
    page.close()
    assert not folder.exists()


SIGNALLED = """
import os, sys, threading
from gradio_client import Client
from diffusion_labs.playground import page

def ask(address):
    Client(address, verbose=False).submit("one", "ddim", "trailing", 250, 2.0, 0, 16, api_name="/draw")
    while not list(folder.glob("*/*/*/*.png")):
        threading.Event().wait(0.01)
    os.kill(os.getpid(), int(sys.argv[2]))

def launch(built, launch=page.launch, **options):
    global folder
    folder = built.visitors.folder
    own = built.launch
    def launched(**more):
        answer = own(**more)
        threading.Thread(target=ask, args=(answer[1],), daemon=True).start()
        return answer
    built.launch = launched
    return launch(built, **options)

page.launch = launch
from diffusion_labs.cli import main
main(["play", sys.argv[1]])
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_work_and_leaves_nothing(number: int, code: int, pixels: Subject, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    words = [sys.executable, "-c", SIGNALLED, pixels.source, str(int(number))]
    ended = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)
    assert ended.returncode == code, ended.stderr
    assert ("diffusion-labs: interrupted; start again with: diffusion-labs play" in ended.stderr) is (code == 130)
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.glob("diffusion-labs-play-*"))


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
        slider = self.seen(".way input[type=range]")
        self.wait(lambda: slider.get_attribute("max") == str(length - 1) == slider.get_attribute("value"))
        return slider

    def write(self, label: str, text: str) -> None:
        """Fill in a field."""
        from selenium.webdriver.common.keys import Keys

        field = self.seen(f"input[type=number][aria-label*='{label}']")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text, Keys.TAB)

    def screen(self) -> numpy.ndarray:
        """What is seen where the picture is."""
        png = self.seen(".picture").screenshot_as_png
        return numpy.array(Image.open(io.BytesIO(png)).convert("L"))

    def works(self) -> bool:
        """Whether there is something to stop."""
        return any(e.is_displayed() for e in self.driver.find_elements("css selector", "button.stop:enabled"))

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
        slider = browser.the_way(len(frames))
        slider.send_keys(Keys.HOME)
        browser.shows(frames[0])
        slider.send_keys(*[Keys.ARROW_RIGHT] * 12, *[Keys.ARROW_LEFT] * 5)
        browser.shows(frames[7])
        browser.driver.save_screenshot(str(tmp_path / "drawn.png"))

        browser.write("Steps", "250")
        browser.write("Pictures", "2")
        browser.press("Draw")
        browser.wait(browser.works)
        browser.wait(lambda: "of 250 calls" in browser.text)
        seen = browser.screen()
        assert browser.works()
        browser.driver.save_screenshot(str(tmp_path / "growing.png"))
        assert seen.std() > 20
        browser.press("Stop")
        browser.wait(lambda: "stopped after" in browser.text)
        browser.wait(lambda: not browser.works())
        assert browser.screen().std() > 20
        browser.driver.save_screenshot(str(tmp_path / "stopped.png"))
        browser.write("Steps", "25")
        browser.write("Pictures", "4")

        browser.open("Inpaint")
        (tmp_path / "words.txt").write_text("no picture")
        browser.driver.find_element("css selector", "#editor input[type=file]").send_keys(str(tmp_path / "words.txt"))
        alert = browser.driver.switch_to.alert
        assert "words.txt is no picture" in alert.text
        alert.accept()

        def mark() -> None:
            canvas = browser.seen("#editor canvas")
            browser.seen("#editor button[aria-label=Brush]").click()
            chain = ActionChains(browser.driver).move_to_element(canvas).click_and_hold()
            chain.move_by_offset(30, 10).move_by_offset(-10, 20).release().perform()
            browser.seen("#editor button[aria-label=Undo]:enabled")
            browser.press("Inpaint")

        mark()
        browser.wait(lambda: "there is no picture" in browser.text)
        browser.wait(lambda: not browser.works())
        browser.press("Draw one to edit")
        browser.wait(browser.works)
        browser.wait(lambda: not browser.works())
        mark()
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
        before = browser.picture()
        browser.write("Seed", "-1")
        browser.press("Draw")
        browser.wait(lambda: "seed (-1) must be a whole number" in browser.text)
        assert numpy.array_equal(browser.picture(), before)
        assert browser.screen().std() > 20
        browser.wait(lambda: not browser.works())
        browser.driver.save_screenshot(str(tmp_path / "told.png"))
        assert browser.hosts() == {address.split("/")[2]}
    finally:
        browser.driver.quit()
