"""What drawn scenes teach about photographs: scores on a few real frames, and what each kind of randomness is worth.

    python benchmarks/real.py FRAMES --models shipped:hdl-student-fast-taught runs/a/model.safetensors
    python benchmarks/real.py FRAMES --models shipped:hdl-student-fast-rich --scales 1,2   # each picture in two sizes
    python benchmarks/real.py FRAMES --heights 120,260 --models shipped:hdl-student-fast-rich   # and who is found, by height
    python benchmarks/real.py FRAMES --histogram                      # colours of true boxes, without a network
    python benchmarks/real.py FRAMES --ablation --out runs/real       # every kind left out alone, three seeds; goes on
    python benchmarks/real.py FRAMES --ablation --seeds 0 --steps .02 --out runs/try      # proves only that it runs

FRAMES is a folder in COCO form with person_id and cameras, such as PRW's; no network here has learned from it. Prints Markdown.
"""
import argparse
import json
import math
import statistics
import sys
from itertools import pairwise
from pathlib import Path

import torch

from person_search_nb.baselines import histogram_baseline
from person_search_nb.datasets import open_dataset
from person_search_nb.evaluation import evaluate, gallery_truth, run_detector
from person_search_nb.files import atomic_write
from person_search_nb.safe_reading import read_json
from person_search_nb.matching import box_heights, match_detections
from person_search_nb.model_files import load_model
from person_search_nb.multi_scale import MultiScale
from person_search_nb.presets import make_recipe
from person_search_nb.recipes import run_recipe
from person_search_nb.streets import RANDOMISED

WORLD = 'synth:tiny?cameras=24&train_scenes=200&test_scenes=8&test_ids=8&queries=4&gallery=6&style=rich&seed={seed}'
EPOCHS = 4.  # 200 steps of 4 scenes, from the start of preset `tiny`
MEASURES = dict(ap='AP', recall='recall', mAP='mAP', top1='top-1', told='mAP, told the boxes')


def opened(frames, size, protocol):
    "The frames as gallery and queries; a person is searched for in those of other cameras, or in all others."
    spec = f'coco:{frames}?train=*&gallery=*&query=*&protocol={protocol}'
    return [open_dataset(spec, s, size=size, progress=False) for s in ('gallery', 'query')]


def histogram(*frames):
    "Colours of body strips, told the boxes: what a network has to beat."
    found = histogram_baseline(*opened(*frames), progress=False)
    return dict(told=found['mAP'])


def by_height(model, frames, scales, edges):
    "[(from px, to px, people, found)] by their height in the frames as they are; found as for the recall, among the people of that height."
    gallery, _ = opened(*frames)
    own, truth = run_detector(MultiScale(load_model(model), scales).eval(), gallery, progress=False), gallery_truth(gallery)
    height, found = box_heights(truth['gt_boxes']), [own[k] for k in ('det_image', 'det_boxes', 'det_scores')]
    out = []
    for low, high in pairwise((0, *edges, math.inf)):
        some = (height >= low) & (height < high)
        match = match_detections(*found, truth['gt_image'][some], truth['gt_boxes'][some])
        out.append((low, high, int(some.sum()), int(match.correct.sum())))
    return out


def score(model, frames, scales=(1,)):
    "Detection in all frames; search for every person, by its own boxes and by the true ones."
    gallery, queries = opened(*frames)
    model = MultiScale(load_model(model), scales).eval()
    own, told = (evaluate(model, gallery, queries, true_boxes=t, progress=False) for t in (False, True))
    return dict(ap=own['det_ap'], recall=own['det_recall'], mAP=own['mAP'], top1=own['top1'], told=told['mAP'], queries=own['queries'])


def trained(kind, seed, out, share):
    "The model of one short training; `kind` of randomness is left out."
    folder = out / f'{kind or "all"}-{seed}'
    if not (folder / 'model.safetensors').exists():
        data = WORLD.format(seed=seed) + (f'&without={kind}' if kind else '')
        recipe = make_recipe('hdl-student-fast', data, 'tiny', epochs=EPOCHS * share, seed=seed, precision='fp32')
        run_recipe(recipe, folder, progress=False)
    return folder / 'model.safetensors'


def ablation(frames, seeds, out, share):
    "kind -> a score for each seed; '' is everything."
    kept = out / 'scores.json'
    scores = read_json(kept) if kept.exists() else {}
    for seed in seeds:
        for kind in ('', *RANDOMISED):
            if f'{kind} {seed}' in scores: continue
            scores[f'{kind} {seed}'] = {k: float(v) for k, v in score(trained(kind, seed, out, share), frames).items()}
            atomic_write(kept, json.dumps(scores).encode())
            print(f"{kind or 'all kinds'}, seed {seed}: AP {100 * scores[f'{kind} {seed}']['ap']:.1f}", file=sys.stderr, flush=True)
    return {kind: [scores[f'{kind} {s}'] for s in seeds] for kind in ('', *RANDOMISED)}


def table(rows):
    "Markdown of label -> scores, in per cent: the mean, and the lowest and highest of several."
    def cell(values):
        low, high = 100 * min(values), 100 * max(values)
        return f'{100 * statistics.mean(values):.1f}' + (f' ({low:.1f}–{high:.1f})' if len(values) > 1 else '')
    head = ['|  | ' + ' | '.join(MEASURES.values()) + ' |', '|---' * (1 + len(MEASURES)) + '|']
    return '\n'.join(head + [f'| {label} | ' + ' | '.join(cell([s[k] for s in scores]) if k in scores[0] else '' for k in MEASURES) + ' |' for label, scores in rows.items()])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('frames', type=Path, help='folder in COCO form')
    p.add_argument('--models', nargs='*', default=[], help='model files to score')
    p.add_argument('--ablation', action='store_true', help='train without each kind of randomness')
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    p.add_argument('--steps', type=float, default=1., help='share of the steps, for a quick try')
    p.add_argument('--size', default='450x800', help='HEIGHTxWIDTH of the frames')
    p.add_argument('--protocol', default='cross-camera', help='or all: search in all frames but the own one, also of the same camera')
    p.add_argument('--scales', default='1', help='of the pictures, such as 1,2: looked at in several sizes')
    p.add_argument('--histogram', action='store_true', help='a row for colours of true boxes')
    p.add_argument('--heights', default='', help='px of the frames as they are, such as 120,260: how many people below, between and above are found')
    p.add_argument('--out', type=Path, default=Path('runs/real'))
    a = p.parse_args()
    torch.set_num_threads(1)
    frames = a.frames, tuple(map(int, a.size.split('x'))), a.protocol
    scales = tuple(map(float, a.scales.split(',')))
    rows = {m: [score(m, frames, scales)] for m in a.models}
    if a.histogram: rows['colour histogram'] = [histogram(*frames)]
    if a.ablation:
        rows |= {f'without {k}' if k else 'all kinds': v for k, v in ablation(frames, a.seeds, a.out, a.steps).items()}
    print(table(rows))
    for m in a.models if a.heights else ():
        for low, high, people, found in by_height(m, frames, scales, map(float, a.heights.split(','))):
            print(f'\n{m}: {found} of {people} people of {low:g} to {high:g} px')


if __name__ == '__main__': main()
