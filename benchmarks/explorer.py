"""How long a move of the explorers takes on the CPU, what drawing with matplotlib instead would, and size and times of the page whose networks run in
the browser (`make page`; Chromium and Playwright). Prints markdown tables:

    make page && python benchmarks/explorer.py > benchmarks/explorer.md
"""
import functools, http.server, os, platform, re, shutil, statistics, threading, time
from datetime import date
from pathlib import Path

import matplotlib
matplotlib.use('agg')
import matplotlib.pyplot as plt
import numpy as np
import torch
from person_search_nb.attention_maps import attention_maps, overlay
from person_search_nb.explorer_base import _load_cam
from person_search_nb.heat_maps import draw_map, jpeg
from person_search_nb.explorer import AttentionExplorer, demo_scenes
from person_search_nb.search_explorer import SearchExplorer

THREADS = 1


def timed(f, *args):
    "Wall and processor time of one call, ms."
    wall, cpu = time.perf_counter(), time.process_time()
    f(*args)
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)


def row(name, times):
    wall, cpu, *_ = zip(*times)
    print(f'| {name} | {statistics.median(cpu):.0f} | {max(cpu):.0f} | {statistics.median(wall):.0f} | {len(times)} |', flush=True)


def first_row(times):
    print(f'| of it: until the first panel |  |  | {statistics.median(first for *_, first in times):.0f} | {len(times)} |', flush=True)


HEAD = '| move | median, processor (ms) | largest (ms) | median, clock (ms) | moves |\n|---|---|---|---|---|'

# The page whose networks run in the browser

PAGE = Path('runs/page')
PARTS = {"the teacher's two graphs": 'teacher.*.onnx', "the taught student's": 'taught.*.onnx', "the plain student's": 'plain.*.onnx',
         'what each network says of everyone in the gallery': '*.people.bin', 'ONNX Runtime for browsers': 'vendor/*', 'scenes and people cut out': '*.jpg',
         'what is known of them': '*.json', 'the program: JavaScript, HTML, CSS': '*.[jhc][sts]*'}
MOVE = """([selector, value]) => new Promise(done => {
  const e = document.querySelector(selector), s = document.getElementById('status'), from = performance.now();
  let first;   // when a panel has drawn its people
  new MutationObserver((_, o) => { o.disconnect(); first = performance.now() - from; }).observe(document.getElementById('panels'), { childList: true, subtree: true });
  new MutationObserver((_, o) => {
    if (!/^(Done|Nobody)/.test(s.textContent)) return;
    o.disconnect();
    done([performance.now() - from, first]);
  }).observe(s, { childList: true, characterData: true, subtree: true });
  if (value === null) e.click();
  else if (Array.isArray(value)) for (const key of value) e.dispatchEvent(new KeyboardEvent('keydown', { key }));
  else { e.value = value; e.dispatchEvent(new Event('input', { bubbles: true })); }
})"""


def descendants_cpu():
    "Processor time of this process's children and theirs, ms: the browser's processes, and what drives it."
    parent, ticks = {}, {}
    for path in Path('/proc').glob('[0-9]*/stat'):
        try: fields = path.read_text().rpartition(') ')[2].split()
        except OSError: continue   # it has just ended
        parent[int(path.parent.name)], ticks[int(path.parent.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    mine = lambda p: p in parent and (parent[p] == os.getpid() or mine(parent[p]))
    return 1000 * sum(ticks[p] for p in parent if mine(p)) / os.sysconf('SC_CLK_TCK')


def sizes(folder):
    "MB of each part."
    print('| part | files | MB |\n|---|---|---|')
    left = {p for p in folder.rglob('*') if p.is_file()}
    for name, pattern in PARTS.items():
        found = [p for p in folder.glob(pattern) if p in left]
        left -= set(found)
        print(f'| {name} | {len(found)} | {sum(p.stat().st_size for p in found) / 1e6:.2f} |')
    assert not left, left
    print(f'| all | {sum(p.is_file() for p in folder.rglob("*"))} | {sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6:.2f} |\n')


def page_moves(page, selector, values):
    "(clock, processor, clock of the first panel) ms of moves of a control; a value is set, a list of keys is pressed, a place in the selector is clicked."
    out = []
    for v in values:
        cpu, (wall, first) = descendants_cpu(), page.evaluate(MOVE, [selector.format(v), None if '{}' in selector else v])
        page.wait_for_timeout(100)   # what is painted after the answer counts as well
        out.append((wall, descendants_cpu() - cpu, first))
    return out


def opened(browser, address):
    "(a page that has answered, ms by the clock, ms of processor, ms that the page itself counted from loaded to answered)."
    context = browser.new_context(viewport=dict(width=1280, height=900))
    page = context.new_page()
    page.set_default_timeout(120_000)
    wall, cpu = time.perf_counter(), descendants_cpu()
    page.goto(address)
    page.wait_for_function("/^Done/.test(document.getElementById('status').textContent)", polling=10)
    wall = 1000 * (time.perf_counter() - wall)
    said = int(re.search(r'Done in (\d+) ms', page.inner_text('#status'))[1])
    return page, wall, descendants_cpu() - cpu, said


class Counting(http.server.SimpleHTTPRequestHandler):
    "Serves files, and counts their bytes: what a worker takes from the browser's cache is not asked for again."
    sent = 0

    def log_message(self, *args): pass

    def send_header(self, name, value):
        if name == 'Content-Length': Counting.sent += int(value)
        super().send_header(name, value)


def measure_page(folder, chromium, again=5):
    "Tables of the page: sizes, and how long each thing takes."
    from playwright.sync_api import sync_playwright
    sizes(folder)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Counting, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f'http://127.0.0.1:{server.server_port}/'
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=['--no-sandbox', '--disable-gpu'])
        visits = []
        for _ in range(again):
            if visits: visits[-1][0].context.close()
            Counting.sent = 0
            visits.append(opened(browser, address))
        page = visits[-1][0]
        print(f'{Counting.sent / 1e6:.2f} MB were asked for until the first answer. Chromium {browser.version}, one thread of WebAssembly for each network, files from this machine.\n')
        print(HEAD, flush=True)
        row('open the page, nothing kept from before, until its first answer', [v[1:3] for v in visits])
        print(f'| of it: from loaded to answered, as the page counts |  |  | {statistics.median(v[3] for v in visits):.0f} | {again} |')
        moves = functools.partial(page_moves, page)
        new = moves('#scenes button:nth-child({})', [2, 3, 4, 5, 6, 7])
        row('new scene, at once: three networks run', new)
        first_row(new)
        row('another person', moves('[data-network=teacher] .psnb-picture', [['Home', 'ArrowRight', 'Enter'], ['Home', 'Enter']] * 2))
        for name, values in dict(quantity=['x', 'mean_a', 'difference'] * 2, level=[0, 1, 2] * 2, opacity=[.1, .3, .5, .7, .9], score=[.3, .5, .7, .5]).items():
            row(dict(score='minimum score').get(name, name), moves(f'[name={name}]', values))
        scene = '#scenes button:nth-child({})'
        def fresh(attention, scenes):   # in scenes that were not seen so
            out = []
            for k in scenes:
                moves(scene, [k])
                out += moves('[name=attention]', [attention])
                moves('[name=attention]', ['learned'])
            return out
        off = fresh('off', (8, 9, 10))
        row('attention off: three networks run', off)
        first_row(off)
        row("the teacher's attention: two students run level by level", fresh('teacher', (2, 3, 4)))
        page.reload()
        page.wait_for_function("/^Done/.test(document.getElementById('status').textContent)")
        out = []
        for k in (12, 11, 10, 9, 8):   # far from what is computed ahead first
            page.hover(scene.format(k))
            page.wait_for_timeout(250)
            out += moves(scene, [k])
        row('new scene, pointed at for 0.25 s before the click', out)
        page.wait_for_timeout(30_000)   # nobody moves: the page computes ahead
        row('attention that was computed ahead', moves('[name=attention]', ['off', 'teacher', 'learned']))
        row('a scene that was computed ahead', moves(scene, [5, 6, 7, 8, 9, 10]))
        browser.close()
    server.shutdown()


def main():
    torch.set_num_threads(THREADS)
    print('# The explorers: how long a move takes\n')
    print(f'`make page && python benchmarks/explorer.py > benchmarks/explorer.md` · {date.today()} · {platform.system()} {platform.machine()}, {os.cpu_count()} cores, {THREADS} thread · Python {platform.python_version()}, '
          f'torch {torch.__version__}. Load of the machine at the start: {os.getloadavg()[0]:.1f}; processor time is what counts on a busy machine, and what a quiet one takes.\n')
    print('The shipped teacher and two students, scenes of 448 x 256 px.\n')
    print(HEAD, flush=True)
    scenes = demo_scenes()
    row('paint a synthetic scene (once each; real scenes are read)', [timed(scenes.image, i) for i in range(len(scenes))])
    box = []
    row('open the attention explorer, the networks loaded with it', [timed(lambda: box.append(AttentionExplorer.demo()))])
    page = box[0]
    def moves(control, values):
        out = []
        for v in values: out.append(timed(setattr, control, 'value', v))
        assert page.error is None, page.error
        return out
    others = [i for i in range(8) if i != page.scene.value]
    row('new scene: three networks run', moves(page.scene, others))
    row('scene seen before', moves(page.scene, others))
    row('level', moves(page.level, [0, 1, 2, 3, 0, 1, 2, 3, 2]))
    row('opacity', moves(page.opacity, np.linspace(0, 1, 9)))
    row('quantity', moves(page.quantity, ['attention', 'A', 'X'] * 3))
    row('person, on level 2', [timed(setattr, page.scene_picture, 'selected', k % len(page.people)) for k in range(6)])
    row('moment of training, the first time: a network is read, its ranking is known', moves(page.moment, page.moment.options[1:]))
    row('moment of training, again', moves(page.moment, page.moment.options))
    row('what if, new: all scenes are searched', moves(page.edit, ['off', 'even', 'taught', 'all']))
    row('what if, the chosen person alone or all others: one scene is seen', moves(page.edit, ['inside', 'outside']))
    row('what if, known', moves(page.edit, ['off', 'even', 'taught', 'all', '']))
    row("Grad-CAM's package: loads in the background once a page is shown", [timed(_load_cam)])
    row('Grad-CAM, new: three networks run forwards and backwards', moves(page.quantity, ['cam']) + [t for i in others[:3] for t in moves(page.scene, [i])])
    row('still picture', [timed(page.snapshot) for _ in range(5)])
    row(f'open the search explorer: {len(scenes)} scenes searched for people', [timed(lambda: box.append(SearchExplorer.demo()))])
    page = box[1]
    row('another scene: find its people, embed one, search, draw 8 matches', moves(page.scene, others))
    row('another person', [timed(setattr, page.picture, 'selected', k) for k in (1, 0, 1, 0) if len(page.people) > 1] or [(float('nan'),) * 2])
    row('number of matches, thresholds', moves(page.number, [3, 8, 4, 8]) + moves(page.score, [0.3, 0.5, 0.7]))
    page.score.value = 0.1
    row('why do they match, new: HiResCAM of both sides', [timed(setattr, page.hits[k], 'selected', 0) for k in range(min(4, len(page.matches)))])

    picture, heat = scenes.picture(0), attention_maps(box[0].teacher, scenes.image(0))[1]
    def slow():
        fig = plt.figure(figsize=(4.8, 4.8 * picture.shape[0] / picture.shape[1]), dpi=100, layout='none')
        overlay(fig.add_axes((0, 0, 1, 1)), picture, heat, 8)
        fig.canvas.draw()
        out = np.asarray(fig.canvas.buffer_rgba())[..., :3]
        plt.close(fig)
        return jpeg(out)
    slow(), jpeg(draw_map(picture, heat, 8))
    a, b = [], []
    for _ in range(15): a.append(timed(slow)[1]); b.append(timed(lambda: jpeg(draw_map(picture, heat, 8)))[1])
    print(f'\nOne map over one scene to JPEG, as a still picture has it, processor time, in turns, median of 15: matplotlib {statistics.median(a):.1f} ms, NumPy and Pillow {statistics.median(b):.1f} ms, {statistics.median(a) / statistics.median(b):.1f} times as fast.')

    print('\n## The page whose networks run in the browser\n')
    chromium = next((p for p in map(shutil.which, ('chromium', 'google-chrome')) if p), None)
    if (PAGE/'data.json').exists() and chromium: measure_page(PAGE, chromium)
    else: print('Not measured: it needs `make page` before, and Chromium.')


if __name__ == '__main__': main()
