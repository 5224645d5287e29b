"""The page whose networks run in the browser: its JavaScript by itself (node), against Python, and as a visitor meets it (Chromium).

Needs Node.js with npm, which fetches ONNX Runtime for browsers once, and Chromium with Playwright; skipped without. Screenshots: `pytest tests/test_page.py --basetemp=shots`."""
import functools, http.server, io, json, os, shutil, subprocess, threading
from importlib.util import find_spec
from pathlib import Path
import numpy as np
import pytest
import torch
from PIL import Image
from person_search_nb.datasets import open_dataset
from person_search_nb.web_page import NETWORKS, write_page
from person_search_nb.model_files import shipped_trunk
from person_search_nb.page_state import browser_module
from person_search_nb.heat_maps import draw_map, live_map, view_of
from person_search_nb.models import load_model

SPEC = 'synth:tiny?test_scenes=20&test_ids=14&queries=6&gallery=19&seed=12'
WINDOW = dict(width=1280, height=900)
CHROMIUM = next((p for p in ('/usr/bin/chromium', shutil.which('chromium'), shutil.which('google-chrome')) if p and Path(p).exists()), None)
NO_CARD = 'No available adapters.'  # what Chromium says, by itself, when a page asks for a graphics card
LIMITS = dict(boxes=1e-4, scores=1e-4, embeddings=1e-3)  # boxes: as a share of the picture's width


@pytest.mark.skipif(not shutil.which('node'), reason='no Node.js here')
def test_the_modules_by_themselves(root):
    "node's own test runner, on tests/js."
    done = subprocess.run(['node', '--test', *map(str, sorted((root/'tests/js').glob('*.test.mjs')))], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert '# pass 0' not in done.stdout


@pytest.mark.skipif(not shutil.which('npm'), reason='no npm here')
def test_the_modules_are_linted(root):
    done = subprocess.run([root/'.ci/lint-js'], capture_output=True, text=True)
    if 'npm error' in done.stderr: pytest.skip('the npm registry does not answer')
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


@pytest.mark.parametrize('name', ('picture_widget.js', 'hits_widget.js', 'bar_widget.js'))
@pytest.mark.skipif(not shutil.which('node'), reason='no Node.js here')
def test_a_module_and_its_imports_are_one_module(name, tmp_path):
    "Two modules that call different things by one name would be an error of syntax."
    (tmp_path/'one.mjs').write_text(browser_module(name))
    done = subprocess.run(['node', '--check', tmp_path/'one.mjs'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_module_asks_for_anything_from_elsewhere(root):
    "Addresses in the page's files lead nowhere but to the page itself."
    for file in (root/'person_search_nb/page').iterdir():
        text = file.read_text()
        for name in ('http://localhost:8000', 'http://www.w3.org/2000/svg'): text = text.replace(name, '')   # words for the reader; the name of a language
        assert '://' not in text, file


TINT = """import { readFileSync } from 'node:fs';
import { tint } from '%s';
const out = [];
for (const { pixels, width, height, size, heat } of JSON.parse(readFileSync(0))) {
  const data = Uint8ClampedArray.from(pixels);
  tint({ data, width, height }, size, heat);
  out.push([...data]);
}
console.log(JSON.stringify(out));"""


@pytest.mark.skipif(not shutil.which('node'), reason='no Node.js here')
def test_the_browser_lays_the_colours_that_draw_map_lays(root):
    "Maps of all kinds: over the scene, in one box, zoomed, of odd numbers of cells; differences."
    rng = np.random.default_rng(0)
    picture, box = rng.integers(0, 256, (60, 90, 3), np.uint8), (20.3, 8.1, 50.7, 55.2)
    every = lambda h, w: rng.random((h, w), np.float32)
    looks = [(every(8, 12), 8, .6), (every(4, 6), 16, 1.), (every(4, 4), 16, .65, box, 7), (every(7, 1), 16, .6, box, 7, view_of(picture, box)),
             (every(2, 2), 16, .3, box, 7, (10.5, 3., 70.5, 43.)), (every(8, 12), 8, .6, None, 7, (31., 9., 76., 39.)), (np.zeros((1, 1), np.float32), 64, .5)]
    asked, wanted = [], []
    for look in looks:
        for minus in (False, True):
            heat = look[0] * 2 - 1 if minus else look[0]
            view = look[5] if len(look) > 5 else None
            ground = draw_map(picture, view=view, width=90)
            wanted.append(draw_map(picture, heat, *look[1:5], **dict(view=view) if view else {}, width=90, difference=minus))
            told = live_map(heat, *look[1:], difference=minus)
            told['values'] = np.frombuffer(told['values'], '<f4').tolist()
            rgba = np.concatenate([ground, np.full((*ground.shape[:2], 1), 255, np.uint8)], 2)
            size = [view[2] - view[0], view[3] - view[1]] if view else [90, 60]
            asked.append(dict(pixels=rgba.ravel().tolist(), width=ground.shape[1], height=ground.shape[0], size=size, heat=told))
    code = TINT % (root/'person_search_nb/page/heat.js').as_uri()
    done = subprocess.run(['node', '--input-type=module', '-e', code], input=json.dumps(asked), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for got, want in zip(json.loads(done.stdout), wanted, strict=True):
        assert np.abs(np.reshape(got, (*want.shape[:2], 4))[..., :3] - want.astype(int)).max() <= 1


def lacking(what):
    "Skips, except in CI: there it would go unseen."
    (pytest.fail if os.environ.get('CI') else pytest.skip)(what)


@pytest.fixture(scope='module')
def vendor(root, made_once):
    if not shutil.which('npm'): lacking('no npm here')
    def fetch(folder):
        done = subprocess.run([root/'.ci/fetch-onnxruntime-web', folder], capture_output=True, text=True)
        if done.returncode: lacking(f'the npm registry does not answer: {done.stderr[-200:]}')
    return made_once('vendor', fetch)


@pytest.fixture(scope='module')
def site(vendor, made_once):
    "The address of the page, served by Python, and its folder."
    scenes = open_dataset(SPEC, 'gallery', progress=False)
    def write(folder):
        size = write_page(folder, vendor, SPEC, progress=False)
        assert size < 20e6, 'what a visitor downloads'
        (folder/'blank.html').write_text('<link rel=icon href=data:,><p id=status>Done</p>')   # for its modules alone
        for i in range(len(scenes)): scenes.image(i).numpy().tofile(folder/f'exact{i}.bin')
        kinds_of_pictures(folder)
    folder = made_once('page', write)
    quiet = type('Quiet', (http.server.SimpleHTTPRequestHandler,), dict(log_message=lambda *a: None))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}', folder, scenes
    server.shutdown()


@pytest.fixture(scope='module')
def chromium():
    if find_spec('playwright') is None or not CHROMIUM: lacking('no Playwright or no Chromium here')
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        # WebAssembly is compiled once: to compile it again, optimised, takes longer than these pages live
        b = p.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu', '--js-flags=--liftoff-only'])
        yield b
        b.close()


def visitor(chromium, address, wrong):
    "`go(query)` opens the page in a window of its own; `wrong` fills with errors on the console and what is asked from elsewhere."
    def go(query=''):
        page = chromium.new_page(viewport=WINDOW, accept_downloads=True)
        page.set_default_timeout(300_000)
        page.on('console', lambda m: wrong.append(m.text) if m.type in ('error', 'warning') and m.text != NO_CARD else None)
        page.on('pageerror', lambda e: wrong.append(str(e)))
        page.on('request', lambda r: None if r.url.startswith((address, 'blob:', 'data:')) else wrong.append(r.url))
        page.goto(f'{address}/{query}')
        settled(page)
        return page
    return go


@pytest.fixture
def visit(chromium, site):
    "Open the page; afterwards: no error on the console, and nothing was asked from elsewhere."
    wrong, pages = [], []
    go = visitor(chromium, site[0], wrong)
    yield lambda query='': pages.append(go(query)) or pages[-1]
    for page in pages: page.close()
    assert not wrong, wrong


@pytest.fixture(scope='module')
def opened(chromium, site):
    "A page that stays open: to load three networks takes seconds."
    wrong = []
    yield visitor(chromium, site[0], wrong)(), wrong


@pytest.fixture
def page(opened):
    "That page, as it was when it was opened."
    page, wrong = opened
    page.set_viewport_size(WINDOW)
    page.emulate_media(color_scheme='light')
    moved(page, page.locator('#reset').click)
    yield page
    page.locator('#scenes button').first.hover()   # pointed at a scene, it does not look at all the others while tests have pages of their own
    assert not wrong, wrong


def settled(page):
    page.wait_for_function("/Done|Nobody|means? nothing|not a picture|Only a picture/.test(document.getElementById('status').textContent)")
    return page.inner_text('#status')


def moved(page, act):
    "Do something, and wait until the page has answered."
    page.evaluate("document.getElementById('status').textContent = 'waiting'")
    act()
    return settled(page)


def chosen(page, name):
    "Numbers of the people of a network who are chosen."
    return page.locator(f'[data-network={name}] [role=option]').evaluate_all("all => all.filter(e => e.getAttribute('aria-selected') == 'true').map(e => +e.id.split('-').pop())")


def click(page, name, number):
    "Click a person where nobody with a smaller box stands."
    page.locator(f'[data-network={name}] .psnb-picture').scroll_into_view_if_needed()
    at = page.locator(f'[data-network={name}] .psnb-picture').evaluate("""(p, n) => {
        const all = [...p.querySelectorAll('[role=option]')].map(g => [+g.id.split('-').pop(), g.querySelector('.psnb-line').getBoundingClientRect()]);
        const r = all.find(([i]) => i === n)[1];
        for (let i = 1; i < 12; i++) for (let j = 1; j < 12; j++) {
            const x = r.left + r.width * i / 12, y = r.top + r.height * j / 12;
            const there = all.filter(([, q]) => q.left <= x && x <= q.right && q.top <= y && y <= q.bottom);
            if (there.reduce((a, b) => a[1].width * a[1].height <= b[1].width * b[1].height ? a : b)[0] === n) return [x, y];
        } }""", number)
    page.mouse.click(*at)


RUN = """async ([name, runtime, boxes]) => {
  const { filesOf } = await import('/network.js'), { openWith } = await import('/runtime.js');
  const { openAll } = await import('/remote_network.js'), { reader } = await import('/files.js');
  const read = reader(() => {}), files = { [name]: await filesOf(name, read) }, out = [];
  let net = null;
  const title = await openWith(runtime, read, async kit => { net = (await openAll(files, kit))[name]; });
  for (let i = 0; i < boxes.length; i++) {
    const data = new Float32Array(await (await fetch(`exact${i}.bin`)).arrayBuffer());
    const found = await net.search({ data, dims: [1, 3, 256, 448] });
    const who = async boxes => [...(await net.regions(found.features, boxes)).embeddings];
    out.push([[...found.boxes], [...found.scores], await who(found.boxes), await who(Float32Array.from(boxes[i].flat()))]);
  }
  return [title, out];
}"""


@pytest.mark.parametrize('name', list(NETWORKS))
def test_the_page_finds_what_python_finds(site, visit, name):
    "Ten scenes: the same people, boxes, scores and embeddings, and the same ranking of all of them."
    scenes, model = site[2], load_model(shipped_trunk(NETWORKS[name][1])).eval()
    truth = [scenes.truth(i)['boxes'] for i in range(10)]
    _, told = visit('blank.html').evaluate(RUN, [name, 'wasm', [b.tolist() for b in truth]])
    galleries = [], []
    for i, (boxes, scores, embeddings, given) in enumerate(told):
        with torch.no_grad():
            found, own = model([scenes.image(i)])[0], model.embed([scenes.image(i)], [truth[i]])
        assert len(scores) == len(found['scores'])
        for k, v in dict(boxes=boxes, scores=scores, embeddings=embeddings).items():
            apart = np.abs(np.asarray(v) - found[k].numpy().ravel()).max(initial=0.) / (448 if k == 'boxes' else 1)
            assert apart < LIMITS[k], (i, k, apart)
        galleries[0].append(np.reshape(given, (-1, own.shape[1])))
        galleries[1].append(own.numpy())
    mine, theirs = map(np.concatenate, galleries)
    assert np.abs(mine - theirs).max() < LIMITS['embeddings']
    similar = theirs @ theirs.T
    for k, row in enumerate(mine @ mine.T):  # the same order, but of what is alike to the fifth digit
        order = np.argsort(-row, kind='stable')
        assert (np.diff(similar[k][order]) < 1e-5).all()


def test_a_visitor(page, tmp_path_factory):
    "Opens the page, clicks a person, moves every control, saves a picture, goes back to the start."
    shots = tmp_path_factory.mktemp('shots')
    people = lambda name: page.locator(f'[data-network={name}] [role=option]')
    words = lambda name: page.locator(f'[data-network={name}] .caption').inner_text()
    ranking = lambda name: page.locator(f'[data-network={name}] .psnb-hits li span').all_inner_texts()
    page.screenshot(path=shots/'start.png', full_page=True)
    assert people('teacher').count() > 2 and len(ranking('taught')) == 10
    assert 'multiplications a scene' in page.locator('[data-network=taught] .cost').inner_text()
    assert 'FD' in words('plain') and 'of the untaught student’s' in words('taught') and 'FD' not in words('teacher')
    before = ranking('taught')
    moved(page, lambda: click(page, 'taught', 1))
    assert ranking('taught') != before and chosen(page, 'taught') == [1]
    assert 'by=taught' in page.url and 'person=1' in page.url
    picture = lambda name: page.locator(f'[data-network={name}] canvas').first.screenshot()
    plain = picture('taught')
    for quantity in ('x', 'mean_a', 'difference'):
        moved(page, lambda: page.select_option('[name=quantity]', quantity))
        assert picture('taught') != plain
    page.screenshot(path=shots/'difference.png', full_page=True)
    for name, value in (('level', '0'), ('opacity', '0.2'), ('score', '0.9')):
        before = picture('teacher')
        moved(page, lambda: page.locator(f'[name={name}]').fill(value))
        assert picture('teacher') != before or name == 'score'
        assert f'{name}={value}' in page.url
    assert people('teacher').count() < 6
    moved(page, page.locator('#reset').click)
    assert '?' not in page.url
    learned = ranking('taught'), words('taught')
    for attention in ('off', 'teacher'):
        moved(page, lambda: page.select_option('[name=attention]', attention))
        assert (ranking('taught'), words('taught')) != learned
    with page.expect_download() as got: page.locator('#save').click()
    saved = Image.open(got.value.path())
    assert saved.size == (3 * 448 + 16, 280) and len(saved.convert('RGB').getcolors(10 ** 6)) > 1000
    moved(page, page.locator('#scenes button').nth(4).click)
    assert 'scene=4' in page.url


def test_the_tour(page):
    moved(page, page.locator('#tour').click)
    seen = []
    while True:
        seen.append(page.locator('#guide-text').inner_text())
        if page.locator('#guide-next').is_disabled(): break
        page.locator('#guide-next').focus()
        moved(page, lambda: page.keyboard.press('Enter'))
        assert page.evaluate("document.querySelector('#panels canvas').getBoundingClientRect().top < document.getElementById('guide').getBoundingClientRect().top")   # what a step is about is in view
    assert page.evaluate('document.activeElement.id') == 'guide-end'   # and not nowhere, now that there is no next step
    assert len(seen) == 6 and seen[0].startswith('1 of 6') and 'attention=teacher' in page.url
    page.keyboard.press('Escape')
    page.wait_for_function("document.getElementById('guide').hidden")
    assert page.evaluate('document.activeElement.id') == 'tour'


def test_a_tour_begins_at_its_first_button_and_shows_what_it_speaks_of(page):
    "By keyboard; on a phone the students, where it speaks of them; and Back leads to what was there before."
    moved(page, page.locator('#scenes button').nth(3).click)
    page.set_viewport_size(dict(width=390, height=800))
    page.locator('#tour').focus()
    moved(page, lambda: page.keyboard.press('Enter'))
    assert page.evaluate('document.activeElement.id') == 'guide-next'
    seen = []
    while True:
        seen.append(page.evaluate("""() => Object.fromEntries([...document.querySelectorAll('#panels section')].map(s => {
            const r = s.querySelector('.psnb-picture').getBoundingClientRect();
            return [s.dataset.network, r.top >= 0 && r.bottom <= document.getElementById('guide').getBoundingClientRect().top]; }))"""))
        if 'students' in page.inner_text('#guide-text'): assert seen[-1]['taught'], page.inner_text('#guide-text')
        else: assert seen[-1]['teacher'], page.inner_text('#guide-text')
        if page.locator('#guide-next').is_disabled(): break
        moved(page, page.locator('#guide-next').click)
    assert any(s['taught'] for s in seen)
    moved(page, page.go_back)
    assert 'scene=3' in page.url and not page.locator('#guide').is_visible()


def test_keyboard(page):
    "A picture is reached with Tab, people with arrow keys, and Enter chooses."
    page.locator('[name=score]').focus()
    page.keyboard.press('Tab')
    assert page.evaluate("document.activeElement.closest('section').dataset.network") == 'teacher'
    page.keyboard.press('Home'); page.keyboard.press('ArrowRight')
    moved(page, lambda: page.keyboard.press('Enter'))
    assert 'person=1' in page.url and chosen(page, 'teacher') == [1]
    page.keyboard.press('End')
    assert page.evaluate("document.activeElement.getAttribute('aria-activedescendant')").endswith(f"-{page.locator('[data-network=teacher] [role=option]').count() - 1}")


def test_what_a_screen_reader_is_told(page):
    "A list holds nothing but people, in the order of their numbers, whoever is chosen, who is drawn on top; where nobody is found there is a picture."
    moved(page, lambda: click(page, 'teacher', 1))
    tree = page.context.new_cdp_session(page).send('Accessibility.getFullAXTree')['nodes']
    nodes = {n['nodeId']: n for n in tree}
    name = lambda n: n['name']['value']
    def told(n):   # what is not ignored, below a node
        for child in (nodes[k] for k in n.get('childIds', ()) if k in nodes):
            if child.get('ignored'): yield from told(child)
            else: yield child
    lists = [n for n in tree if n.get('role', {}).get('value') == 'listbox']
    assert len(lists) == 3
    for n in lists:
        people = list(told(n))
        assert {p['role']['value'] for p in people} == {'option'}
        assert [int(name(p).split()[1]) for p in people] == [*range(1, len(people) + 1)]
        assert f'picture: {len(people)} people found' in n['description']['value']
    x, y = page.locator('[data-network=teacher] [aria-selected=true] .psnb-line').evaluate("e => { const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }")
    seen = Image.open(io.BytesIO(page.screenshot(clip=dict(x=x - 4, y=y - 4, width=8, height=8)))).convert('RGB')
    assert max(high for _, high in seen.getextrema()) > 20   # nothing but lines lies over the person
    moved(page, lambda: page.set_input_files('#own', dict(name='red.png', mimeType='image/png', buffer=png(Image.new('RGB', (3000, 20), 'red')))))
    empty = [e for n in NETWORKS if not (e := page.locator(f'[data-network={n}] .psnb-picture')).locator('[role=option]').count()]
    assert empty
    for e in empty: assert e.get_attribute('role') == 'img' and e.get_attribute('aria-label').endswith('0 people found')


def png(image):
    out = io.BytesIO()
    image.save(out, 'PNG')
    return out.getvalue()


def kinds_of_pictures(folder):
    "What `test_pictures_of_all_kinds_are_dropped` drops."
    scene = Image.open(folder/'scene3.jpg')
    turned = Image.Exif()
    turned[0x0112] = 6
    scene.transpose(Image.Transpose.ROTATE_90).save(folder/'turned.jpg', exif=turned)
    scene.convert('RGBA').resize((100, 60)).save(folder/'alpha.png')
    scene.save(folder/'scene.webp')
    scene.resize((6000, 4000)).save(folder/'large.jpg')
    Image.new('RGB', (1, 1)).save(folder/'pixel.png')
    Image.new('RGB', (3000, 20)).save(folder/'long.png')
    Image.new('RGB', (90, 90)).save(folder/f'{"long name " * 20}.png')
    (folder/'drawn.svg').write_text('<svg xmlns="http://www.w3.org/2000/svg" width="90" height="90"><script>alert(1)</script></svg>')
    (folder/'words.jpg').write_text('words')
    (folder/'cut.jpg').write_bytes((folder/'large.jpg').read_bytes()[:50_000])


DROP = """async ([name, type, address]) => {
  const all = new DataTransfer();
  if (name) all.items.add(new File([await (await fetch(address)).blob()], name, { type }));
  else all.setData('text/plain', 'words');
  document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: all, bubbles: true, cancelable: true }));
}"""


def test_pictures_of_all_kinds_are_dropped(page):
    "Turned as a camera says, half transparent, of one pixel, very large, very long; and what is no picture is refused, with what was there before left as it is."
    drop = lambda name: moved(page, lambda: page.evaluate(DROP, [name, f'image/{name.rpartition(".")[2]}', name]))
    sizes = {'turned.jpg': [448, 256], 'alpha.png': [100, 60], 'scene.webp': [448, 256], 'large.jpg': [448, 299], 'pixel.png': [33, 33], 'long.png': [448, 33], f'{"long name " * 20}.png': [90, 90]}
    shown = lambda: page.locator('[data-network=teacher] canvas').first.evaluate('c => [c.width, c.height]')
    for name, size in sizes.items():
        assert drop(name).startswith(('Done', 'Nobody')) and shown() == size, name
        assert name.strip() in page.inner_text('#own-name') and page.evaluate('document.documentElement.scrollWidth') <= WINDOW['width']
    for name in ('drawn.svg', 'words.jpg', 'cut.jpg', ''):
        said = drop(name)
        assert ('not a picture' if name else 'Only a picture') in said and shown() == [90, 90], name


def test_a_picture_of_ones_own_and_what_is_none(site, page, tmp_path):
    "It is searched, has no right or wrong, and the address says nothing of it; a file that is no picture is refused, and the page goes on."
    folder = site[1]
    mine = Image.open(folder/'scene3.jpg').resize((900, 514))
    mine.save(tmp_path/'mine.png')
    assert page.locator('#save').is_enabled()
    moved(page, lambda: page.set_input_files('#own', tmp_path/'mine.png'))
    marks = page.locator('[data-network=teacher] .psnb-hits li span').all_inner_texts()
    assert len(marks) == 10 and not any('✓' in m or '✗' in m for m in marks)
    assert page.locator('[data-network=teacher] canvas').first.evaluate('c => c.width') == 448 and '?' not in page.url
    Image.new('RGBA', (300, 200), (0, 0, 0, 0)).save(tmp_path/'clear.png')   # transparent is white, for eyes and networks
    moved(page, lambda: page.set_input_files('#own', tmp_path/'clear.png'))
    assert page.locator('[data-network=teacher] canvas').first.evaluate('c => [...c.getContext("2d").getImageData(9, 9, 1, 1).data]') == [255] * 4
    (tmp_path/'no.png').write_text('<script>alert(1)</script>')
    said = moved(page, lambda: page.set_input_files('#own', tmp_path/'no.png'))
    assert 'no.png: not a picture' in said
    moved(page, page.locator('#scenes button').nth(2).click)
    assert '✓' in ' '.join(page.locator('[data-network=teacher] .psnb-hits li span').all_inner_texts())


def test_back_and_forward_lead_through_what_was_chosen(visit, tmp_path):
    "Scenes, people, kinds of map, a picture of one's own; sliders, which pass many values, are no steps; and a link is opened in one step."
    page = visit('?runtime=wasm&scene=1&person=1')
    assert page.inner_text('#runtime') == 'WebAssembly' and chosen(page, 'teacher') == [1]
    picture = lambda: page.locator('[data-network=teacher] canvas').first.evaluate('c => c.toDataURL()')
    state = lambda: (page.url, picture(), page.inner_text('#own-name'), page.input_value('[name=quantity]'), [chosen(page, n) for n in NETWORKS])
    start, steps = page.evaluate('history.length'), [state()]
    Image.effect_noise((300, 200), 80).save(tmp_path/'mine.png')
    def step(act):
        moved(page, act)
        steps.append(state())
    step(page.locator('#scenes button').nth(2).click)
    step(lambda: click(page, 'taught', 1))
    step(lambda: page.select_option('[name=quantity]', 'x'))
    for level in '01': moved(page, lambda: page.locator('[name=level]').fill(level))
    steps[-1] = state()
    step(lambda: page.set_input_files('#own', tmp_path/'mine.png'))
    moved(page, page.locator('#scenes button').nth(4).click)
    moved(page, page.locator('#scenes button').nth(4).click)   # where the page is already
    steps.append(state())
    assert 'mine.png' in steps[-2][2] and 'mine.png' not in steps[-1][2]
    assert page.evaluate('history.length') - start == len(steps) - 1
    for k in (*reversed(range(len(steps) - 1)), *range(1, len(steps))):
        moved(page, page.go_back if steps[k + 1:] and state() == steps[k + 1] else page.go_forward)
        assert state() == steps[k], k


def test_a_link_brings_the_page_back_and_is_not_trusted(page, visit):
    "Also the person, who has another number under other attention."
    moved(page, page.locator('#scenes button').nth(1).click)
    moved(page, lambda: click(page, 'taught', 1))
    for name, value in (('attention', 'off'), ('quantity', 'x')): moved(page, lambda: page.select_option(f'[name={name}]', value))
    for name, value in (('level', '1'), ('opacity', '0.3')): moved(page, lambda: page.locator(f'[name={name}]').fill(value))
    query = page.url.rpartition('/')[2]
    assert all(part in query for part in ('scene=1', 'person=', 'by=taught', 'attention=off', 'quantity=x', 'level=1', 'opacity=0.3'))
    text = page.locator('[data-network=taught] .caption').inner_text()
    hits = lambda p: p.locator('[data-network=plain] .psnb-hits li span').all_inner_texts()
    again = visit(query)
    assert again.input_value('[name=quantity]') == 'x' and again.input_value('[name=level]') == '1'
    assert again.locator('[data-network=taught] .caption').inner_text() == text
    assert len(hits(page)) == 10 and [h[0] for h in hits(again)] == [h[0] for h in hits(page)]
    again.close()
    odd = visit('?scene=99&level=7&quantity=%3Cimg%3E&colour=red&opacity=nan&person=99')
    assert '?' not in odd.url and all(w in odd.inner_text('#status') for w in ('scene', 'level', 'quantity', 'colour', 'opacity', 'person'))


def test_without_a_graphics_card_webgpu_goes_on_in_webassembly(chromium, site):
    "That the address may name WebAssembly, too, is seen where Back and Forward are tried."
    page = chromium.new_page()
    page.set_default_timeout(300_000)
    page.goto(f'{site[0]}/?runtime=webgpu&scene=1')
    card = page.evaluate('async () => Boolean(await navigator.gpu?.requestAdapter())')
    assert settled(page).startswith('Done') and page.inner_text('#runtime') == ('WebGPU' if card else 'WebAssembly') and 'runtime=webgpu' in page.url
    assert float(page.inner_text('#megabytes')) < 20
    page.close()


@pytest.mark.slow
def test_webgpu_finds_what_python_finds(chromium, site):
    "With a graphics card that is imitated in software, at a minute a scene."
    b = chromium.browser_type.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--enable-features=Vulkan'])
    page, scenes = b.new_page(), site[2]
    page.set_default_timeout(1_800_000)
    page.goto(f'{site[0]}/data.json')
    if page.evaluate('async () => !(await navigator.gpu?.requestAdapter())'): pytest.skip('this Chromium has no WebGPU')
    for name in NETWORKS:
        model = load_model(shipped_trunk(NETWORKS[name][1])).eval()
        title, [(boxes, scores, embeddings, _)] = page.evaluate(RUN, [name, 'webgpu', [scenes.truth(0)['boxes'].tolist()]])
        assert title == 'WebGPU'
        with torch.no_grad(): found = model([scenes.image(0)])[0]
        assert len(scores) == len(found['scores'])
        for k, v in dict(boxes=boxes, scores=scores, embeddings=embeddings).items():
            assert np.abs(np.asarray(v) - found[k].numpy().ravel()).max(initial=0.) / (448 if k == 'boxes' else 1) < LIMITS[k], (name, k)
    b.close()


def test_quick_moves_end_where_slow_ones_do(visit):
    "Scenes clicked while others are still looked at, and a picture that is still being read: the last move counts, with its own boxes."
    page = visit()
    state = lambda: [page.locator(f'[data-network={n}] [role=option]').evaluate_all("all => all.map(e => e.querySelector('rect').getAttribute('x')).sort()") for n in NETWORKS] + [
        page.locator(f'[data-network={n}] .psnb-hits li span').all_inner_texts() for n in NETWORKS] + [page.url.partition('?')[2]]
    def quick(*scenes):
        page.evaluate("""async scenes => { for (const k of scenes) {
            document.querySelectorAll('#scenes button')[k].click();
            await new Promise(done => setTimeout(done, 30)); } }""", list(scenes))
    moved(page, lambda: quick(5, 6, 7))
    page.locator('#scenes button').nth(7).hover()   # so that it does not look at all the others meanwhile
    page.wait_for_timeout(3000)   # what was interrupted would be drawn by now
    seen = state()
    moved(page, lambda: page.locator('#scenes button').nth(0).click())
    assert state() != seen
    moved(page, lambda: page.locator('#scenes button').nth(7).click())
    assert state() == seen and page.locator('#scenes [aria-pressed=true]').count() == 1
    page.evaluate("""() => {
        const big = new File([new Uint8Array(3e6)], 'late.png', { type: 'image/png' }), all = new DataTransfer(); all.items.add(big);
        const e = document.getElementById('own'); e.files = all.files; e.dispatchEvent(new Event('change'));
        document.querySelectorAll('#scenes button')[0].click(); }""")
    page.wait_for_timeout(3000)
    moved(page, lambda: page.locator('#scenes button').nth(7).click())
    assert state() == seen


def test_controls_have_names(page):
    for role, names in dict(slider=('Level', 'Opacity', 'Minimum score'), combobox=('Show', 'Attention')).items():
        for name in names: assert page.get_by_role(role, name=name).count() == 1, name


COUNT = """async () => {
  const { RemoteNetwork } = await import('./remote_network.js'), search = RemoteNetwork.prototype.search;
  window.searched = 0; window.said = [];
  RemoteNetwork.prototype.search = async function (...a) { const r = await search.apply(this, a); window.searched++; return r; };
  new MutationObserver(() => window.said.push(document.getElementById('status').textContent)).observe(document.getElementById('status'), { childList: true, characterData: true, subtree: true });
}"""   # searches that have ended, and what the status line has said


BEGUN = """async () => {
  const { RemoteNetwork } = await import('./remote_network.js'), search = RemoteNetwork.prototype.search;
  const names = ['teacher', 'taught', 'plain'], none = () => Object.fromEntries(names.map(n => [n, 0]));
  Object.assign(window, { begun: none(), ended: none(), before: null, said: [] });
  RemoteNetwork.prototype.search = async function (...a) { begun[this.name]++; const r = await search.apply(this, a); ended[this.name]++; return r; };
  addEventListener('pointerenter', ({ target }) => { if (target.matches?.('#scenes button')) before = { ...begun }; }, true);
  new MutationObserver(() => said.push(document.getElementById('status').textContent)).observe(document.getElementById('status'), { childList: true, characterData: true, subtree: true });
  window.after = () => names.map(n => before ? ended[n] - before[n] : 0);
}"""   # searches of each network since the pointer came over a scene; the page itself hears of that a moment later


HOLD = """async held => {   // what networks are asked is noted; answers of these wait for release[name]()
  const { RemoteNetwork } = await import('./remote_network.js'), { ask } = RemoteNetwork.prototype, gates = {};
  window.asked = []; window.release = {}; window.fail = null;   // the network to which a picture comes too small
  for (const name of held) gates[name] = new Promise(done => { window.release[name] = done; });
  RemoteNetwork.prototype.ask = async function (method, ...given) {
    window.asked.push(`${this.name} ${method}`);
    if (window.fail === this.name && method === 'search') given[0] = { data: new Float32Array(768), dims: [1, 3, 16, 16] };
    const answer = await ask.call(this, method, ...given);
    await gates[this.name];
    return answer;
  };
}"""


def test_networks_are_asked_ahead_and_never_twice(visit):
    "What is likely next is computed while nobody moves, a scene when it is pointed at; a move finds its answer there. And the teacher's attention does not run the teacher again."
    page = visit()
    page.evaluate(COUNT)
    page.wait_for_function('window.searched >= 3')
    moved(page, lambda: page.select_option('[name=attention]', 'off'))
    assert page.evaluate('window.said').count('Looking.') == 0

    # out of turn: whatever a network was at, the next thing it sees is the scene that is pointed at, and nothing follows
    moved(page, page.locator('#reset').click)
    page.evaluate(BEGUN)
    last = page.locator('#scenes button').last
    last.hover()
    page.wait_for_function('after().every(n => n > 0)')
    assert page.evaluate('said.length = 0, after()') == [1, 1, 1]
    moved(page, last.click)
    assert page.evaluate('said').count('Looking.') == 0

    # nor do students look with learned attention again; the scene is still pointed at, so nothing else is computed
    page.evaluate(HOLD, [])
    asked = page.evaluate("""() => new Promise(done => {
        const s = document.getElementById('status'), control = document.querySelector('[name=attention]');
        const settled = then => new MutationObserver((_, o) => { if (/^Done/.test(s.textContent)) { o.disconnect(); then(); } }).observe(s, { childList: true, characterData: true, subtree: true });
        settled(() => {
            window.asked = [];
            settled(() => done(window.asked));
            control.value = 'teacher'; control.dispatchEvent(new Event('input', { bubbles: true })); });
        document.querySelectorAll('#scenes button')[9].click(); })""")
    assert sorted(asked) == sorted(['teacher regions'] + [f'{n} {what}' for n in ('taught', 'plain') for what in ('look', 'look', 'search', 'regions')])


def test_each_panel_is_drawn_when_its_network_has_answered(page, visit):
    "A student's people before the teacher has answered; rankings once it is known whom to look for; and a move in between wins."
    held = visit()
    busy = lambda part: [n for n in NETWORKS if held.get_attribute(f'[data-network={n}]{part}', 'aria-busy')]
    def until(section, hits):
        held.wait_for_function("""([section, hits]) => [['', section], [' .psnb-hits', hits]].every(([part, names]) =>
            ['teacher', 'taught', 'plain'].every(n => names.includes(n) === (document.querySelector(`[data-network=${n}]${part}`).getAttribute('aria-busy') === 'true')))""", arg=[section, hits])
        assert held.inner_text('#status') == 'Looking.'
    held.evaluate(HOLD, ['teacher', 'plain'])
    held.locator('#scenes button').nth(9).click()
    until(['teacher', 'plain'], list(NETWORKS))      # whom to look for is the teacher's to say
    assert 'FD' not in held.inner_text('[data-network=taught] .caption')
    held.evaluate('release.teacher()')
    until(['plain'], ['plain'])
    held.locator('#scenes button').nth(10).click()
    held.evaluate("document.getElementById('status').textContent = 'Looking.'")
    until(['plain'], ['plain'])                      # the next scene, and one student is still at the last
    held.evaluate('release.plain()')
    assert settled(held).startswith('Done') and not busy('') and not busy(' .psnb-hits') and 'scene=10' in held.url
    told = lambda page: [page.inner_text(f'[data-network={n}] {part}') for part in ('.caption', '.psnb-hits') for n in NETWORKS]
    said, last = told(held), held.locator('#scenes button').last   # the last: not yet looked at ahead

    # an error in a worker reaches the status line, and the page goes on
    held.evaluate("fail = 'plain'")
    last.click()
    held.wait_for_function("document.getElementById('status').className === 'error'")
    assert '16 x 16 px is too small' in held.inner_text('#status') and held.locator('[aria-busy]').count() == 0
    held.locator('[data-network=plain] .psnb-picture').focus()
    held.keyboard.press('Home'); held.keyboard.press('Enter')   # people of an earlier scene: nothing to find
    held.evaluate('fail = null')
    assert moved(held, last.click).startswith('Done')

    moved(page, page.locator('#scenes button').nth(10).click)
    assert said == told(page)


@pytest.mark.parametrize('file, said', [('network_worker.js', 'A file of this page is missing'), ('plain.head.onnx', 'protobuf'), ('plain.people.bin', 'plain.people.bin is missing or broken: 8 bytes'), ('people.jpg', 'people.jpg is missing')])
def test_a_file_that_is_missing_or_broken_is_named(chromium, site, file, said):
    page = chromium.new_page()
    if not file.endswith(('.js', '.onnx')): page.route('**/network_worker.js', lambda route: route.fulfill(content_type='text/javascript', body=''))   # networks that never answer: they are not to open while others fail
    page.route(f'**/{file}', lambda route: route.fulfill(status=404) if file.endswith('.js') else route.fulfill(body=b'no model'))
    page.goto(site[0])
    page.wait_for_function("document.getElementById('status').className === 'error'")
    assert said in page.inner_text('#status')
    page.close()


def test_phone_and_dark(page, tmp_path_factory):
    "At 390 px nothing is cut off, and colours follow the system."
    shots = tmp_path_factory.mktemp('shots')
    page.emulate_media(color_scheme='dark')
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == 'rgb(22, 24, 28)'
    page.screenshot(path=shots/'dark.png', full_page=True)
    page.set_viewport_size(dict(width=390, height=800))
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
    page.screenshot(path=shots/'phone.png', full_page=True)


def test_from_the_disk_it_says_what_to_do(chromium, site):
    page = chromium.new_page()
    page.goto(f'file://{site[1]}/index.html')
    assert 'python -m http.server' in page.inner_text('#status')
    page.close()
