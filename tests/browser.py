"""A real Chromium, driven by Selenium, with what the page's tests need beyond Selenium's own calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.needs import CHROMIUM, DRIVER

_ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync "
    "--autoplay-policy=no-user-gesture-required --mute-audio --hide-scrollbars"
)


class Browser(webdriver.Chrome):
    """Scripts are bodies of functions: they `return` what is wanted."""

    def open(self, address: str) -> None:
        """Goes there and waits until the page says that it is ready."""
        self.get("about:blank")
        self.get(address)
        self.wait("return document.documentElement.dataset.ready === 'yes'")

    def run(self, script: str, *arguments: object) -> Any:
        return self.execute_script(script, *arguments)

    def wait(self, script: str, *arguments: object) -> None:
        """Until `script` returns something true."""
        WebDriverWait(self, 20, poll_frequency=0.03).until(lambda _: self.run(script, *arguments), f"never came true: {script}")

    def click(self, selector: str, *, x: int = 0, y: int = 0) -> None:
        """With the mouse, `x` and `y` pixels from the middle of the first element that fits."""
        element = self.find_element(By.CSS_SELECTOR, selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        ActionChains(self, duration=0).move_to_element_with_offset(element, x, y).click().perform()

    def press(self, key: str) -> None:
        """A key, as `selenium.webdriver.common.keys` names it, to whatever has the focus."""
        ActionChains(self).send_keys(key).perform()

    def resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def complaints(self) -> list[str]:
        """What the console holds: errors, warnings, breaches of the policy."""
        return [entry["message"] for entry in self.get_log("browser")]

    def clear(self) -> None:
        """Leaves nothing of what the test before has emulated or stored. A new tab would take five times as long."""
        self.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": "*", "storageTypes": "all"})
        self.execute_cdp_cmd("Emulation.setEmulatedMedia", {})
        self.execute_cdp_cmd("Accessibility.disable", {})
        self.resize(1280, 900)


@contextlib.contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """A browser of its own, gone at the end. Its driver is named, so that Selenium does not look for one to download."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in (*_ARGUMENTS.split(), f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Browser(options, webdriver.ChromeService(DRIVER))
    try:
        yield browser
    finally:
        browser.quit()
