"""How long a move of the explorers takes on the CPU, and what drawing with matplotlib instead would. Prints a markdown table:

    python benchmarks/explorer.py > benchmarks/explorer.md
"""
import os, platform, statistics, time
from datetime import date

import matplotlib
matplotlib.use('agg')
import matplotlib.pyplot as plt
import numpy as np
import torch
from person_search_nb.attention_maps import attention_maps, overlay
from person_search_nb.widgets import _load_cam, draw_map, jpeg
from person_search_nb.explorer import AttentionExplorer, demo_scenes
from person_search_nb.search_explorer import SearchExplorer

THREADS = 1


def timed(f, *args):
    "Wall and processor time of one call, ms."
    wall, cpu = time.perf_counter(), time.process_time()
    f(*args)
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)


def row(name, times):
    wall, cpu = zip(*times)
    print(f'| {name} | {statistics.median(cpu):.0f} | {max(cpu):.0f} | {statistics.median(wall):.0f} | {len(times)} |', flush=True)


def main():
    torch.set_num_threads(THREADS)
    print('# The explorers: how long a move takes\n')
    print(f'`python benchmarks/explorer.py > benchmarks/explorer.md` · {date.today()} · {platform.system()} {platform.machine()}, {os.cpu_count()} cores, {THREADS} thread · Python {platform.python_version()}, '
          f'torch {torch.__version__}. Load of the machine at the start: {os.getloadavg()[0]:.1f}; processor time is what counts on a busy machine, and what a quiet one takes.\n')
    print('The shipped teacher and two students, scenes of 448 x 256 px.\n')
    print('| move | median, processor (ms) | largest (ms) | median, clock (ms) | moves |\n|---|---|---|---|---|', flush=True)
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
    row('its opacity', moves(page.opacity, np.linspace(0, 1, 6)))

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
    print(f'\nOne map over one scene to JPEG, processor time, in turns, median of 15: matplotlib {statistics.median(a):.1f} ms, NumPy and Pillow {statistics.median(b):.1f} ms, {statistics.median(a) / statistics.median(b):.1f} times as fast.')


if __name__ == '__main__': main()
