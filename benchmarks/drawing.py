"""How long a scene of the rich style takes beside a plain one, as a table.

    python benchmarks/drawing.py                # two minutes on one thread
    python benchmarks/drawing.py --scenes 4     # only shows that it runs

Every scene is drawn in each style in turns, in one process; what is compared is processor time, after each camera's place is known.
"""
import argparse
import time
from dataclasses import replace

import numpy as np

from person_search_nb.streets import RANDOMISED, SYNTH
from person_search_nb.synthetic import SynthWorld


def seconds(world, i):
    start = time.process_time()
    world.jpeg(i)
    return time.process_time() - start


def in_turns(worlds, scenes):
    "Seconds (scenes, worlds) of the same scenes of several worlds; the first of each camera are left out."
    order = np.argsort(worlds[0].plan[0], kind='stable')[:: max(1, len(worlds[0]) // scenes)][:scenes]
    camera, out = worlds[0].plan[0], []
    for n, i in enumerate(order.tolist()):
        if n == 0 or camera[i] != camera[order[n - 1]]: [w.jpeg(i) for w in worlds]
        out.append([seconds(w, i) for w in worlds])
    return np.array(out)


def main(scenes):
    print('| size | plain, scenes/s | rich, scenes/s | rich takes |\n|---|---|---|---|')
    for name in SYNTH:
        few = replace(SYNTH[name], cameras=4, train_scenes=200, train_ids=400)
        t = in_turns([SynthWorld(few), SynthWorld(replace(few, style='rich'))], scenes if name == 'tiny' else max(4, scenes // 4))
        plain, rich = 1 / t.mean(0)
        print(f'| `{name}` {few.size[0]}x{few.size[1]} | {plain:.1f} | {rich:.1f} | {plain / rich:.1f} times as long |', flush=True)
    tiny = replace(SYNTH['tiny'], cameras=4, train_scenes=200, style='rich')
    t = in_turns([SynthWorld(tiny), *(SynthWorld(replace(tiny, without=(k,))) for k in RANDOMISED)], max(4, scenes // 2)).mean(0)
    print('\n| `tiny` without | time of the whole style |\n|---|---|')
    for k, v in zip(RANDOMISED, t[1:] / t[0]): print(f'| {k} | {v:.2f} |')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--scenes', type=int, default=48)
    main(parser.parse_args().scenes)
