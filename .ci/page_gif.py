"""Draw the README's picture of the page whose networks run in the browser: a visitor chooses someone and looks through each network's eyes.

    make page && python .ci/page_gif.py    # writes nbs/assets/page.gif; needs Playwright and Chromium
"""
import functools
import http.server
import io
import shutil
import threading
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from person_search_nb.files import atomic_write

WINDOW, WIDTH = dict(width=1000, height=860), 800  # px of the screen, of the picture
STEPS = (('', ''), ('person', ''), ('quantity', 'x'), ('quantity', 'mean_a'), ('quantity', 'difference'), ('attention', 'off'), ('attention', 'teacher'))


def frames(address):
    "A picture after each move."
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which('chromium') or shutil.which('google-chrome'), args=['--no-sandbox'])
        page = browser.new_page(viewport=WINDOW)
        page.goto(address)
        for name, value in STEPS:
            if name == 'person':
                page.locator('[data-network=teacher] .psnb-picture').focus()
                for key in ('Home', 'ArrowRight', 'Enter'): page.keyboard.press(key)
            elif name: page.select_option(f'[name={name}]', value)
            page.wait_for_function("/^Done/.test(document.getElementById('status').textContent) && !document.querySelector('[aria-busy=true]')")
            page.evaluate('document.activeElement.blur()')
            page.wait_for_timeout(500)
            yield Image.open(io.BytesIO(page.screenshot())).convert('RGB')
        browser.close()


def main():
    quiet = type('Quiet', (http.server.SimpleHTTPRequestHandler,), dict(log_message=lambda *a: None))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(quiet, directory='runs/page'))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    shots = [f.resize((WIDTH, WIDTH * f.height // f.width), Image.LANCZOS) for f in frames(f'http://127.0.0.1:{server.server_port}/')]
    server.shutdown()
    first, *others = (f.quantize(128, dither=Image.Dither.NONE) for f in shots)
    out = io.BytesIO()
    first.save(out, 'GIF', save_all=True, append_images=others, duration=2200, loop=0, optimize=True)
    atomic_write(Path('nbs/assets/page.gif'), out.getvalue())
    print(f'{len(out.getvalue()) / 1e3:.0f} KB')


if __name__ == '__main__': main()
