"""The explorers as people meet them: in Chromium, on a Voilà page and in JupyterLab, with mouse and keyboard.

Needs Playwright for Python and Chromium (`pip install playwright`, Debian's package `chromium`); skipped without, except in CI. Screenshots: `pytest tests/test_browser.py --basetemp=shots`."""
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit
import json, os, re, shutil, signal, socket, subprocess, sys, time, urllib.error, urllib.request
import pytest

PATIENCE = 600_000  # ms: a stuck page must end some day; how long things take is no matter of tests
CHROMIUM = next((p for p in ('/usr/bin/chromium', shutil.which('chromium'), shutil.which('chromium-browser'), shutil.which('google-chrome')) if p and Path(p).exists()), None)


def wait(page, condition, arg=None): page.wait_for_function(condition, arg=arg, polling=100)   # and not in every frame: to read a canvas takes longer than that


def lacking():
    "What is missing here, or None."
    for module in ('playwright', 'voila', 'jupyterlab', 'anywidget', 'ipywidgets', 'pytorch_grad_cam'):
        if find_spec(module) is None: return f'no {module} here'
    return None if CHROMIUM else 'no Chromium here'


@pytest.fixture(scope='module')
def browser():
    if missing := lacking():
        (pytest.fail if os.environ.get('CI') else pytest.skip)(missing)
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu'])
        yield b
        b.close()


@pytest.fixture(scope='module')
def serve(root, tmp_path_factory):
    "Start a server on the explorers' notebook, in a folder of its own; all are ended afterwards, with their kernels."
    started = []

    def start(*command, folder=None):
        if not folder: shutil.copy(root/'tutorials/explore.ipynb', folder := tmp_path_factory.mktemp('served'))
        with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
        env = os.environ | {k: str(folder/v) for k, v in dict(JUPYTER_CONFIG_DIR='.config', JUPYTERLAB_SETTINGS_DIR='.settings', JUPYTERLAB_WORKSPACES_DIR='.workspaces',
                                                               IPYTHONDIR='.ipython', JUPYTER_RUNTIME_DIR='.runtime').items()} | dict(PYTHONPATH=str(root), OMP_NUM_THREADS='1')
        log = open(folder/'log.txt', 'w')
        server = subprocess.Popen([sys.executable, '-m', *(c.format(port=port, folder=folder) for c in command)], cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        started.append(server)
        while True:
            try: urllib.request.urlopen(f'http://127.0.0.1:{port}/static/nothing', timeout=60)
            except urllib.error.HTTPError: return f'http://127.0.0.1:{port}'   # it answers, if only that there is no such file
            except OSError: pass
            else: return f'http://127.0.0.1:{port}'
            assert server.poll() is None, (folder/'log.txt').read_text()
            time.sleep(0.5)

    @contextmanager
    def busy():
        "Within the block, no kernel does anything: what a person types and clicks meanwhile waits for it, as on a machine with too much to do."
        import psutil
        kernels = [p for s in started for p in psutil.Process(s.pid).children(recursive=True) if any('ipykernel' in word for word in p.cmdline())]
        assert kernels
        for k in kernels: k.suspend()
        try: yield
        finally:
            for k in kernels: k.resume()

    start.busy = busy
    yield start
    for server in started:
        server.terminate()   # lets it end its kernels
        try: server.wait(60)
        except subprocess.TimeoutExpired: os.killpg(server.pid, signal.SIGKILL)


@contextmanager
def window(browser):
    "A window of 1280 x 900 whose errors are collected in `page.errors`."
    context = browser.new_context(viewport=dict(width=1280, height=900))
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.errors = []
    page.on('console', lambda m: page.errors.append(m.text) if m.type == 'error' else None)
    page.on('pageerror', lambda e: page.errors.append(str(e)))
    # Voilà's template asks another host for its icon font; a test must not need the network
    page.route(re.compile(r'^https?://(?!127\.0\.0\.1)'), lambda route: route.fulfill(status=200, content_type='text/css', body=''))
    yield page
    context.close()


@pytest.fixture
def page(browser):
    with window(browser) as page: yield page


class Explorer:
    "One explorer on a page."
    def __init__(self, page, number):
        self.page, self.root = page, page.locator('.psnb-explorer').nth(number)
        self.pictures = self.root.locator('.psnb-picture')

    def control(self, label): return self.root.locator('.widget-inline-hbox').filter(has=self.page.locator('.widget-label', has_text=re.compile(f'^{label}$')))
    def handle(self, label): return self.control(label).locator('.noUi-handle')
    def select(self, control, **kw): self.control(control).locator('select').select_option(**kw)
    def readout(self, label): return self.control(label).locator('.widget-readout').inner_text()
    def press(self, label, key):
        self.handle(label).focus()
        self.page.keyboard.press(key)

    def sources(self, which): return [self.pictures.nth(i).locator('canvas').evaluate('c => c.toDataURL()') for i in which]

    def until(self, text): self.root.get_by_text(text).first.wait_for()

    def changes(self, act, which):
        "Act, and wait until all these pictures are others."
        before = self.sources(which)
        act()
        for i, old in zip(which, before):
            wait(self.page, '([c, old]) => c.style.visibility === "visible" && c.toDataURL() !== old', arg=[self.pictures.nth(i).locator('canvas').element_handle(), old])

    def chosen(self, picture): return self.pictures.nth(picture).locator('[role=option]').evaluate_all("all => all.map((e, i) => [+e.id.split('-').pop(), e.getAttribute('aria-selected')]).filter(x => x[1] == 'true').map(x => x[0])")

    def places(self, picture):
        "For each person who can be clicked, a place where nobody with a smaller box stands."
        return self.pictures.nth(picture).evaluate('''p => {
            const all = [...p.querySelectorAll('[role=option]')].map(g => [g.id.split('-').pop(), g.querySelector('.psnb-line').getBoundingClientRect()]), out = {};
            for (const [n, r] of all) for (let i = 1; i < 12; i++) for (let j = 1; j < 12; j++) {
                const x = r.left + r.width * i / 12, y = r.top + r.height * j / 12;
                const there = all.filter(([, q]) => q.left <= x && x <= q.right && q.top <= y && y <= q.bottom);
                if (there.reduce((a, b) => a[1].width * a[1].height <= b[1].width * b[1].height ? a : b)[0] === n) out[n] = [x, y];
            }
            return out; }''')

    def choose(self, picture, number, others):
        "Click a person; all the other pictures follow."
        self.pictures.nth(picture).scroll_into_view_if_needed()
        self.page.mouse.click(*self.places(picture)[str(number)])
        for p in others: wait(self.page, '([root, n]) => root.querySelector(`[id$="-${n}"]`)?.getAttribute("aria-selected") === "true"', arg=[self.pictures.nth(p).element_handle(), number])

    def upload(self, path):
        with self.page.expect_file_chooser() as chooser: self.root.locator('.widget-upload').click()
        chooser.value.set_files(path)

    def fits(self):
        "Nothing sticks out to the side, and every control's name can be read."
        cut = self.root.evaluate("root => [...root.querySelectorAll('.widget-inline-hbox .widget-label')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent)")
        assert not cut, cut
        wide = self.root.evaluate("root => [...root.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > root.getBoundingClientRect().right + 2 && !e.closest('svg, .noUi-base, [style*=overflow]') && getComputedStyle(e).visibility != 'hidden').map(e => e.className)")
        assert not wide, wide

    def no_error(self): assert self.root.locator('.psnb-error').count() == 0, self.root.locator('.psnb-error').first.inner_text()


SCENE, TEACHER, DISTILLED, PLAIN = range(4)  # pictures of the first explorer
LOOKING, HITS, WHY, SECOND = 0, range(1, 13), (13, 14), 15  # of the second


def look_around(e, busy):
    "Every control of the attention explorer, by mouse or keyboard."
    three = (TEACHER, DISTILLED, PLAIN)
    e.changes(lambda: e.press('Scene', 'ArrowRight'), (SCENE, *three))
    e.changes(lambda: e.press('Scene', 'ArrowLeft'), (SCENE, *three))
    e.changes(lambda: e.press('Level', 'ArrowLeft'), three)
    assert e.readout('Level') == '1'
    here, seen = e.readout('Scene'), e.pictures.nth(SCENE).locator('canvas').get_attribute('aria-label')
    with busy():   # one after the other, while no picture comes
        for label, key in (('Scene', 'ArrowRight'), ('Level', 'ArrowRight'), ('Scene', 'ArrowLeft'), ('Level', 'ArrowLeft'), ('Level', 'ArrowLeft')): e.press(label, key)
    assert [e.readout('Scene'), e.readout('Level')] == [here, '0 (fine)']
    wait(e.page, '([e, f, alt]) => e.ariaLabel === alt && f.ariaLabel.endsWith("level 0")', arg=[*(e.pictures.nth(i).locator('canvas').element_handle() for i in (SCENE, PLAIN)), seen])
    e.changes(lambda: e.press('Level', 'ArrowRight'), three)
    assert [e.readout('Scene'), e.readout('Level')] == [here, '1']   # nothing was set back meanwhile
    e.changes(lambda: e.select('Show', label='attention A'), three)
    e.changes(lambda: e.select('Show', label='feature energy f(X)'), three)
    e.until('what FD compares')
    e.changes(lambda: e.root.get_by_label('difference to the teacher').check(), (DISTILLED, PLAIN))
    e.until('teacher has more')
    e.changes(lambda: e.root.get_by_label('difference to the teacher').uncheck(), (DISTILLED, PLAIN))
    e.root.get_by_label('one colour scale for all').check()
    e.root.get_by_text('highest of each picture').wait_for(state='detached')
    e.root.get_by_label('one colour scale for all').uncheck()
    e.until('highest of each picture')
    def drag():   # the opacity's handle, a good way to the left
        e.handle('Opacity').scroll_into_view_if_needed()
        box = e.handle('Opacity').bounding_box()
        x, y = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
        e.page.mouse.move(x, y); e.page.mouse.down(); e.page.mouse.move(x - 100, y, steps=4); e.page.mouse.up()
    e.changes(drag, three)
    assert e.readout('Training') == 'untrained'
    e.changes(lambda: e.press('Training', 'End'), (DISTILLED,))
    assert e.readout('Training') == 'finished'
    e.changes(lambda: e.press('Training', 'Home'), (DISTILLED,))
    e.changes(lambda: e.press('Training', 'End'), (DISTILLED,))
    e.changes(lambda: e.select('Show', label='Grad-CAM'), three)
    e.press('Level', 'End')                                # level 3: not for Grad-CAM
    e.root.locator('.psnb-error').wait_for()
    e.changes(lambda: e.select('Show', label='attention A'), three)
    e.root.locator('.psnb-error').wait_for(state='detached')
    people(e)


def people(e):
    "Choose by click, by keyboard, and from the list."
    everywhere = (SCENE, TEACHER, DISTILLED, PLAIN)
    other = next(int(n) for n in e.places(SCENE) if [int(n)] != e.chosen(SCENE))
    e.choose(SCENE, other, everywhere)
    assert [e.chosen(p) for p in everywhere] == [[other]] * 4
    e.pictures.nth(SCENE).focus()
    e.page.keyboard.press('Home'); e.page.keyboard.press('ArrowRight'); e.page.keyboard.press('ArrowRight')
    outline = e.pictures.nth(SCENE).evaluate('p => [getComputedStyle(p).outlineStyle, p.getAttribute("aria-activedescendant")]')
    assert outline[0] == 'solid' and outline[1].endswith('-2')
    e.page.keyboard.press('Enter')
    wait(e.page, 'root => root.querySelector(`[id$="-2"]`).getAttribute("aria-selected") === "true"', arg=e.pictures.nth(PLAIN).element_handle())
    e.select('Person', index=0)
    wait(e.page, 'root => root.querySelector(`[id$="-0"]`).getAttribute("aria-selected") === "true"', arg=e.pictures.nth(PLAIN).element_handle())


def search_around(e, folder, busy):
    "Every control of the search explorer."
    page = e.page
    visible = lambda: sum(e.pictures.nth(i).is_visible() for i in HITS)
    assert visible() == 8 and not e.pictures.nth(WHY[0]).is_visible()
    e.changes(lambda: e.press('Scene', 'ArrowRight'), (LOOKING,))
    e.changes(lambda: e.press('Scene', 'ArrowLeft'), (LOOKING,))
    looking = e.pictures.nth(LOOKING)
    shown = lambda what: wait(page, '([p, what]) => [...p.querySelectorAll("[role=option]")].every(o => RegExp(what).test(o.getAttribute("aria-label")))', arg=[looking.element_handle(), what])
    number = lambda: looking.locator('[role=option]').count()
    found = number()
    with busy():   # typed while the picture still has other people in it
        e.select('Boxes', label='true boxes')
        looking.focus()
        page.keyboard.press('End'); page.keyboard.press('Enter')
        assert e.chosen(LOOKING) == [found - 1]
    shown('person|no identity')
    assert number() != found
    wait(page, 'p => [...p.querySelectorAll(`[role=option]`)].sort((a, b) => +a.id.split("-").pop() - +b.id.split("-").pop()).pop().getAttribute("aria-selected") === "true"', arg=looking.element_handle())
    with busy():   # pointed at: nobody else is chosen instead
        e.select('Boxes', label='found by the network')
        looking.scroll_into_view_if_needed()
        page.mouse.click(*next(xy for n, xy in e.places(LOOKING).items() if 0 < int(n) < found))
    shown('score')
    wait(page, 'p => p.querySelector(`[id$="-0"]`).getAttribute("aria-selected") === "true"', arg=looking.element_handle())
    e.press('Matches', 'Home')   # when this is done, the click is, too
    e.until('the 1 most similar')
    assert e.chosen(LOOKING) == [0]
    e.press('Matches', 'End')
    e.until(re.compile('the (9|1[0-2]) most similar'))
    e.select('Boxes', label='true boxes')
    shown('person|no identity')
    e.press('Matches', 'Home')
    e.until('the 1 most similar')
    assert visible() == 1
    e.press('Matches', 'End')
    e.until(re.compile('the (9|1[0-2]) most similar'))
    e.press('Minimum similarity', 'End')
    e.until('No match passes')
    assert visible() == 0
    e.press('Minimum similarity', 'Home')
    e.until('most similar')
    e.press('Minimum score', 'ArrowRight')
    assert e.readout('Minimum score') == '0.55'
    # a box by hand
    e.pictures.nth(LOOKING).scroll_into_view_if_needed()
    box = e.pictures.nth(LOOKING).bounding_box()
    x, y = box['x'] + 0.05 * box['width'], box['y'] + 0.25 * box['height']
    page.mouse.move(x, y); page.mouse.down(); page.mouse.move(x + 70, y + 150, steps=5); page.mouse.up()
    e.pictures.nth(LOOKING).locator('.psnb-dragged').wait_for(state='attached')
    wait(page, 'p => !p.querySelector(`[role=option][aria-selected="true"]`)', arg=e.pictures.nth(LOOKING).element_handle())
    width = round(70 / box['width'] * float(e.pictures.nth(LOOKING).locator('svg').get_attribute('viewBox').split()[2]))
    e.until(re.compile(f'^({width - 1}|{width}|{width + 1}) x [0-9]+ px$'))
    # why?
    e.pictures.nth(1).scroll_into_view_if_needed()
    page.mouse.click(*e.places(1)['0'])
    e.until('covering: bright strips')
    for i in WHY: e.pictures.nth(i).wait_for()
    e.changes(lambda: e.select('Method', label='HiResCAM'), WHY)
    e.changes(lambda: e.press('Level', 'ArrowLeft'), WHY)
    e.changes(lambda: e.select('Method', label='Grad-CAM'), WHY)
    e.until(re.compile(r'\(Grad-CAM\)'))
    # a picture of one's own
    from PIL import Image
    import base64, io
    data = e.sources([LOOKING])[0].partition(',')[2]
    Image.open(io.BytesIO(base64.b64decode(data))).convert('RGB').save(folder/'mine.png')
    e.changes(lambda: e.upload(folder/'mine.png'), (LOOKING,))
    e.until('mine.png')
    (folder/'notes.png').write_text('no picture')
    e.upload(folder/'notes.png')
    e.root.locator('.psnb-error').wait_for()
    e.changes(lambda: e.root.get_by_text('Back to the scenes').click(), (LOOKING,))
    e.root.locator('.psnb-error').wait_for(state='detached')


def both(page):
    wait(page, "document.querySelectorAll('.psnb-explorer').length === 2")
    a, b = Explorer(page, 0), Explorer(page, 1)
    for e, n in ((a, 4), (b, 16)):
        wait(page, '([root, n]) => root.querySelectorAll(".psnb-picture").length === n', arg=[e.root.element_handle(), n])
    wait(page, "[...document.querySelectorAll('.psnb-picture canvas')].filter(c => c.style.visibility === 'visible').length >= 5")
    return a, b


# no heartbeat: while a kernel starts slowly Voilà sends it to a page that cannot hear it yet; no extension that needs all of JupyterLab
VOILA = '--no-browser', '--port={port}', '--Voila.ip=127.0.0.1', '--VoilaConfiguration.http_keep_alive_timeout=3600', '--VoilaConfiguration.extension_denylist=jupyterlab-jupytext'


def test_voila(serve, page, tmp_path):
    page.goto(serve('voila', 'explore.ipynb', *VOILA))
    a, b = both(page)
    page.screenshot(path=tmp_path/'attention.png')
    look_around(a, serve.busy)
    a.fits()
    b.root.scroll_into_view_if_needed()
    page.screenshot(path=tmp_path/'search.png')
    search_around(b, tmp_path, serve.busy)
    b.fits()
    page.screenshot(path=tmp_path/'search-after.png')
    for width in (900, 390, 320):
        page.set_viewport_size(dict(width=width, height=900))
        a.fits(); b.fits()
        page.screenshot(path=tmp_path/f'{width}.png')
    training, whole = (x.bounding_box()['width'] for x in (a.control('Training').locator('.noUi-target'), a.root))
    assert training > whole / 3   # twelve moments must be told apart on a phone
    a.no_error(); b.no_error()
    assert not page.errors, page.errors


PAGES = dict(
    search='from person_search_nb.search_explorer import SearchExplorer\nfrom person_search_nb.showcase import demo_models, demo_scenes\n'
           'teacher, students = demo_models()\n'
           "scenes = demo_scenes('synth:tiny?test_scenes=8&test_ids=8&queries=8&gallery=7&seed=11')\n"
           "SearchExplorer(students['distilled'], None, scenes, others=dict(teacher=teacher, plain=students['plain']), name='taught')",
    predictions='from person_search_nb.predictions_explorer import PredictionsExplorer\nPredictionsExplorer.demo()')


@pytest.fixture(scope='module')
def pages(serve, tmp_path_factory):
    "Addresses of pages with nothing but one explorer each, from one server."
    import nbformat
    folder = tmp_path_factory.mktemp('pages')
    for name, code in PAGES.items(): nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), folder/f'{name}.ipynb')
    base = serve('voila', *VOILA, folder=folder)
    return {name: f'{base}/voila/render/{name}.ipynb' for name in PAGES}


def open_search(page, address):
    page.goto(address)
    wait(page, "document.querySelectorAll('.psnb-explorer .psnb-picture').length === 16")
    page.locator('.psnb-ranks svg').wait_for()   # the other networks have searched, in the background
    return Explorer(page, 0)


@pytest.fixture(scope='module')
def opened(browser, pages):
    "The search explorer, opened once for all tests that begin where it begins."
    with window(browser) as page: yield open_search(page, pages['search'])


@pytest.fixture
def searching(opened):
    "The search explorer as it is when it is opened."
    page = opened.page
    page.set_viewport_size(dict(width=1280, height=900))
    page.emulate_media(color_scheme='light')
    reset(opened)
    page.errors.clear()
    return opened


def reset(e):
    e.root.get_by_role('button', name='Reset').click()
    wait(e.page, 'location.search === ""')


def in_window(page, locator):
    "Whether all of it, or as much as there is room for, can be seen."
    box, high = locator.bounding_box(), page.viewport_size['height']
    return box and box['y'] > -2 and box['y'] < high - min(box['height'], high) + 2


def test_search_panels(searching, tmp_path):
    "A match is explained where it can be seen; parts are covered by brush and by key; a scene is drawn again; two people; rankings; save and reset."
    e, page = searching, searching.page
    assert '?' not in page.url and e.root.locator('.psnb-ranks image').count() == 24 and e.root.locator('.psnb-ranks path').count() > 0
    why = e.root.locator('.psnb-why')
    e.pictures.nth(1).scroll_into_view_if_needed()
    page.mouse.click(*e.places(1)['0'])
    e.until('covering: bright strips')
    deadline = time.monotonic() + 20
    while not in_window(page, why) and time.monotonic() < deadline: page.wait_for_timeout(100)
    assert in_window(page, why), why.bounding_box()
    page.screenshot(path=tmp_path/'why.png')
    answer = e.root.get_by_text(re.compile('similarity to the best right match'))
    e.pictures.nth(LOOKING).scroll_into_view_if_needed()
    e.select('Cover', label='middle third')
    answer.wait_for()
    first = answer.inner_text()
    e.select('Cover', label='nothing')
    answer.wait_for(state='detached')
    e.root.get_by_label('brush').check()
    e.pictures.nth(LOOKING).scroll_into_view_if_needed()
    wait(page, 'p => p.querySelector("svg").style.cursor === "cell"', arg=e.pictures.nth(LOOKING).element_handle())   # Python has heard of it
    box = e.pictures.nth(LOOKING).locator('.psnb-chosen .psnb-line').bounding_box()
    page.mouse.move(box['x'] + 2, box['y'] + box['height'] / 3); page.mouse.down()
    page.mouse.move(box['x'] + box['width'], box['y'] + box['height'] / 2, steps=6); page.mouse.up()
    answer.wait_for()
    assert answer.inner_text() != first and e.pictures.nth(LOOKING).locator('.psnb-stroke').count() == 1
    page.screenshot(path=tmp_path/'brush.png')
    e.root.get_by_role('button', name='Wipe').click()
    answer.wait_for(state='detached')
    assert e.pictures.nth(LOOKING).locator('.psnb-stroke').count() == 0
    e.root.get_by_label('brush').uncheck()
    for act in (lambda: e.select('Shirt', label='red'), lambda: e.press('Light', 'ArrowLeft'), lambda: e.press('Warmth', 'ArrowRight'), lambda: e.select('Camera', label='camera 3')): e.changes(act, (LOOKING,))
    answer.wait_for()
    e.changes(lambda: e.press('Second scene', 'ArrowRight'), (SECOND,))
    e.select('Second person', index=1)
    e.until(re.compile('without'))
    three = e.root.get_by_label('Three rankings for the same person')
    three.uncheck()
    e.root.locator('.psnb-ranks').wait_for(state='detached')
    three.check()
    e.root.locator('.psnb-ranks').wait_for()
    with page.expect_download() as download: e.root.get_by_role('button', name='Save picture').click()
    assert download.value.suggested_filename == 'search.png' and Path(download.value.path()).read_bytes()[:8] == b'\x89PNG\r\n\x1a\n'
    reset(e)
    assert e.control('Shirt').locator('select').input_value() == 'as it is' and e.readout('Light') == '1.0'
    e.no_error(); e.fits()
    assert not page.errors, page.errors


def test_a_link_shows_the_same_page(searching, page, pages):
    "The address follows the page, a second browser shows what it says; what is no value is left out and said."
    e = searching
    e.changes(lambda: e.press('Scene', 'ArrowRight'), (LOOKING,))
    e.select('Boxes', label='true boxes')
    e.press('Matches', 'ArrowLeft')
    e.until(re.compile('the 7 most similar'))
    e.pictures.nth(1).scroll_into_view_if_needed()
    e.page.mouse.click(*e.places(1)['0'])
    wait(e.page, "location.search.includes('match=1')")
    link, words = e.page.url, e.root.locator('.psnb-query').inner_text()
    assert 'source=true' in link and 'number=7' in link and 'scene=' in link
    again = open_search(page, f'{link}&box=1,2&shirt=plaid&light=99&theme=light')
    again.until('covering: bright strips')
    assert again.root.locator('.psnb-query').inner_text() == words and again.readout('Matches') == '7'
    again.root.locator('.psnb-said').wait_for()
    said = again.root.locator('.psnb-said').inner_text()
    assert 'box=1,2' in said and 'shirt=plaid' in said and 'light=99' in said and 'theme' not in said   # a word of another program
    words_of = lambda address: dict(parse_qsl(urlsplit(address).query))
    wait(page, "() => !location.search.includes('box=')")
    assert words_of(page.url) == words_of(link) | dict(theme='light')
    again.no_error()
    errors = [x for x in e.page.errors + page.errors if '403' not in x]   # Voilà refuses the goodbye of a page that is left
    assert not errors, errors


def test_dark_and_narrow(searching, tmp_path):
    "Light on dark where the reader's system is dark, dark on light where it is light; also on a phone."
    e, page = searching, searching.page
    bright = 'e => getComputedStyle(e).{}.match(/[0-9.]+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3'
    of = lambda selector, what: page.locator(selector).first.evaluate(bright.replace('{}', what))
    for width, scheme in ((1280, 'light'), (1280, 'dark'), (390, 'light'), (390, 'dark')):
        page.set_viewport_size(dict(width=width, height=800))
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(300)
        ground, ink = of('body', 'backgroundColor'), [of(s, 'color') for s in ('.psnb-explorer h4', '.psnb-explorer .widget-label', '.psnb-page-bar button', '.psnb-explorer select')]
        assert (ground < 60) == (scheme == 'dark') and all((i > 150) == (scheme == 'dark') for i in ink), (ground, ink)
        page.screenshot(path=tmp_path/f'{scheme}-{width}.png')
        e.fits()
    e.no_error()
    assert not page.errors, page.errors


def test_predictions_on_a_page(pages, page, tmp_path):
    "The explorer without a network: query by list, by click and by key, thresholds, nothing that attention would need."
    page.goto(pages['predictions'])
    wait(page, "document.querySelectorAll('.psnb-explorer .psnb-picture').length === 13")
    e = Explorer(page, 0)
    visible = lambda: sum(e.pictures.nth(i).is_visible() for i in HITS)
    e.until('predictions come without a network')
    assert visible() == 8 and not e.root.locator('.widget-upload').count()
    page.screenshot(path=tmp_path/'worst.png', full_page=True)
    count = e.control('Query').locator('select option').count()
    e.changes(lambda: e.select('Query', index=count - 1), (1,))
    e.until(re.compile('^AP [0-9.]+: found in'))
    queries = e.pictures.nth(LOOKING).locator('[role=option]')
    assert len(e.chosen(LOOKING)) == 1 and 'AP' in queries.first.get_attribute('aria-label')
    page.screenshot(path=tmp_path/'best.png', full_page=True)
    while queries.count() < 2:
        count -= 1
        e.changes(lambda: e.select('Query', index=count - 1), (1,))
    other = next(n for n in e.places(LOOKING) if int(n) not in e.chosen(LOOKING))
    e.pictures.nth(LOOKING).scroll_into_view_if_needed()
    e.changes(lambda: page.mouse.click(*e.places(LOOKING)[other]), (1,))
    assert e.chosen(LOOKING) == [int(other)]
    e.press('Matches', 'Home')
    wait(page, "[...document.querySelectorAll('.psnb-picture')].filter(p => p.offsetParent).length === 2")
    e.press('Minimum score', 'End')
    e.until('no match passes')
    assert visible() == 0
    e.fits()
    e.no_error()
    assert not page.errors, page.errors


@pytest.mark.slow  # a kernel that starts within 30 s is waited for, then as long again
def test_a_page_that_was_never_closed_frees_its_kernel(serve, root, tmp_path):
    "faults.md, row 31: a page loaded without a browser left a kernel of 1 GB until the server ended. The options are those of `make explore`, their seconds are not."
    import nbformat, psutil
    options = re.findall(r'--MappingKernelManager\.cull_\w+=\d+', (root/'.ci/explore').read_text())
    assert len(options) == 2
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import os\nprint(f'kernel {os.getpid()}.')")]), tmp_path/'page.ipynb')
    base = serve('voila', 'page.ipynb', '--no-browser', '--port={port}', '--Voila.ip=127.0.0.1', *(re.sub(r'=\d+', '=30', o) for o in options), folder=tmp_path)
    kernel = int(re.search(r'kernel (\d+)\.', urllib.request.urlopen(base, timeout=PATIENCE / 1000).read().decode())[1])
    until = time.monotonic() + PATIENCE / 1000
    while psutil.pid_exists(kernel) and time.monotonic() < until: time.sleep(.2)
    assert not psutil.pid_exists(kernel)


LAB = ('jupyterlab', '--no-browser', '--port={port}', '--ip=127.0.0.1', '--IdentityProvider.token=explore', '--allow-root', '--ServerApp.root_dir={folder}',
       '--LabApp.news_url=None', '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate')


def menu(page, name, item):
    page.locator('.lm-MenuBar-itemLabel', has_text=re.compile(f'^{name}$')).click()
    page.locator('.lm-Menu-itemLabel', has_text=re.compile(f'^{item}$')).click()


def idle(page): page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').first.wait_for(state='attached')


def run_all(page, base, notebook):
    "Open a notebook and run all its cells; returns when they have begun."
    from playwright.sync_api import TimeoutError
    page.goto(f'{base}/lab/tree/{notebook}?reset&token=explore')
    page.locator('.jp-Notebook .jp-Cell').first.wait_for()
    page.get_by_text(re.compile(r'\| Idle$')).first.wait_for()   # the indicator says idle before there is a kernel, and cells run then wait for ever
    while True:            # until its command is ready, the menu's item does nothing
        menu(page, 'Run', 'Run All Cells')
        try: page.locator('.jp-InputPrompt', has_text=re.compile(r'\[(\*|\d+)\]')).first.wait_for(timeout=60_000); break   # any: the first may have scrolled away
        except TimeoutError: page.keyboard.press('Escape')


def test_jupyterlab(serve, page, tmp_path):
    run_all(page, serve(*LAB), 'explore.ipynb')
    a, b = both(page)
    idle(page)
    a.root.scroll_into_view_if_needed()
    active = lambda: page.locator('.jp-Notebook .jp-Cell.jp-mod-active').evaluate('c => c.textContent')
    a.changes(lambda: a.press('Opacity', 'ArrowLeft'), (TEACHER, DISTILLED, PLAIN))
    people(a)
    assert 'AttentionExplorer.demo' in active()   # the arrow keys went to the picture, not to the next cell
    page.screenshot(path=tmp_path/'lab-attention.png')
    b.root.scroll_into_view_if_needed()
    b.press('Matches', 'Home')
    b.until('the 1 most similar')
    page.screenshot(path=tmp_path/'lab-search.png')
    a.fits(); b.fits(); a.no_error(); b.no_error()
    assert not page.errors, page.errors


TUTORIALS = sorted(p.name for p in (Path(__file__).parents[1]/'tutorials').glob('[0-9]*.ipynb'))


@pytest.fixture(scope='module')
def lab(root, serve, tmp_path_factory):
    "JupyterLab on the tutorials as they come: run by nobody yet, and without the cells that a learner on a laptop leaves out."
    folder = tmp_path_factory.mktemp('tutorials')
    for name in TUTORIALS:
        nb = json.loads((root/'tutorials'/name).read_text())
        nb['cells'] = [c for c in nb['cells'] if not re.match(r'#\| (slow|cuda)', ''.join(c['source']))]
        for c in nb['cells']:
            if c['cell_type'] == 'code': c |= dict(outputs=[], execution_count=None)
        (folder/name).write_text(json.dumps(nb))
    return folder, serve(*LAB, folder=folder)


@pytest.mark.slow
@pytest.mark.parametrize('name', TUTORIALS)
def test_tutorial_in_jupyterlab(lab, page, name, tmp_path):
    folder, base = lab
    code = lambda: [c for c in json.loads((folder/name).read_text())['cells'] if c['cell_type'] == 'code' and c['source']]
    changed = page.locator('.jp-Dialog', has_text='File Changed')   # when it saved by itself a moment ago
    page.add_locator_handler(changed, lambda: changed.get_by_text('Overwrite').click())
    run_all(page, base, name)
    while not all(c['execution_count'] for c in code()):
        idle(page)
        menu(page, 'File', 'Save Notebook')
        page.wait_for_timeout(2000)
        broken = [o for c in code() for o in c['outputs'] if o['output_type'] == 'error']
        assert not broken, '\n'.join(broken[0]['traceback'])
    assert any(o.get('data', {}).keys() & {'image/png', 'image/jpeg'} for c in code() for o in c['outputs'])
    page.screenshot(path=tmp_path/'end.png')
    menu(page, 'Kernel', 'Shut Down Kernel')
    assert not page.errors, page.errors
