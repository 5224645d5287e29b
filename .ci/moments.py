"""Make the training that the attention explorer plays: a student at twelve moments, from random weights to finished, and its twin.

    make moments                                      # about half an hour on one core; goes on where it was stopped
    python .ci/moments.py --share 0.02 --out runs/try # proves only that it runs

Both students start from the same random weights and see the same scenes, labels and steps in the same order. One is taught by the teacher
that ships with the package, with HDL's losses as printed but for the weights of FD and AD, which fit small maps (`DemoConfig` of notebook
96 Demo); the other, its twin, learns from labels alone. The teacher is not trained: its classifier of these people is the mean embedding
of each. People and places are of seed 120, which no table uses; the numbers beside the moments are of seed 9002, which no network has seen.

Written are OUT/taught-0.safetensors and taught-1.safetensors (six moments each, with FD, AD and mAP of each and what it finds in the explorer's scenes),
OUT/alone.safetensors (the twin, finished), and OUT/README.md, the card of both.
"""
import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from person_search_nb.anchors import fit_heights
from person_search_nb.datasets import open_dataset
from person_search_nb.demo import DemoConfig, build_pair, learn
from person_search_nb.evaluation import evaluate
from person_search_nb.files import atomic_write
from person_search_nb.map_page import distances, look
from person_search_nb.model_files import load_model, load_trunk, save_model, shipped_trunk
from person_search_nb.models import build_model
from person_search_nb.search import Gallery
from person_search_nb.showcase import DEMO, Moments, demo_scenes, write_moments
from person_search_nb.systems import imprint

HOW = DemoConfig(data='synth:tiny?train_scenes=960&train_ids=600', seed=120, student_epochs=10.)
MOMENTS = 0, 20, 50, 75, 100, 150, 300, 500, 800, 1200, 1800, 2400  # steps of log.csv; FD and search change fastest at the beginning. Step 0 has a
# learning rate of 0: the weights are still random, but BatchNorm has seen a batch, without which embeddings have no direction
FRESH = 'synth:tiny?seed=9002&train_scenes=8&train_ids=8'  # where the numbers are from: the world of the trunks' cards


def train_both(work, share):
    "Both students, each kept at all moments in WORK/taught and WORK/alone. What is there is not made again."
    steps = [round(m * share) for m in MOMENTS]
    last = lambda name: work / name / f'{steps[-1]}.safetensors'
    if all(last(name).exists() for name in ('taught', 'alone')): return steps
    data = open_dataset(HOW.spec(), 'train')
    teacher, make_student = build_pair(HOW, data.num_ids, fit_heights(data.heights()))
    imprint(teacher, data)
    for name in ('taught', 'alone'):
        if last(name).exists(): continue
        student = make_student()
        def keep(row):
            if row['step'] in steps[:-1]: save_model(student, work / name / f"{row['step']}.safetensors")
        learn(HOW, student, data, HOW.student_epochs * share, HOW.student_lr, teacher if name == 'taught' else None,
              out=work / name / 'run', label=name, callbacks=[keep])
        save_model(student, last(name))
    return steps


def without_people(path):
    "The network of a file, without a classifier of the people it was trained on."
    trained = load_model(path)
    torch.manual_seed(0)
    return load_trunk(build_model(**trained.config | dict(num_ids=1)), path).eval()


def numbers(model, seen, gallery, queries):
    "FD and AD of each level, the mean over the gallery's scenes, and the search's scores."
    apart = [distances(look(model, gallery.image(i), gallery.truth(i)['boxes']), t) for i, t in enumerate(seen)]
    means = {k: np.nanmean([a[k] for a in apart], 0).tolist() for k in ('FD', 'AD')}
    return means | {k: float(v) for k, v in evaluate(model, gallery, queries, progress=False).items() if k in ('mAP', 'top1')}


def sure(gallery):
    "Only what a ranking shows."
    keep = gallery.det_scores >= .5
    return replace(gallery, **{k: getattr(gallery, k)[keep] for k in ('det_image', 'det_boxes', 'det_scores', 'det_feats')})


def in_two_files(out, models, rows, found=None, scenes=None):
    "Write the moments, and read them again. Neither file is larger than the 5 MB that a repository should hold in one."
    half, files = len(rows) // 2, [out / f'taught-{k}.safetensors' for k in range(2)]
    for file, part in zip(files, (slice(0, half), slice(half, None))): write_moments(file, models[part], rows[part], (found or [])[part], scenes)
    return Moments(*files)


def name_of(k, step): return 'untrained' if k == 0 else 'finished' if k == len(MOMENTS) - 1 else f'step {step:,}'


CARD = """# A student that learns, and its twin

* **What they are.** `taught-0.safetensors`, `taught-1.safetensors`: an `hdl-student-fast` ({params:,} parameters) at twelve moments of one training, from random weights to finished (`person_search_nb.showcase.Moments`): filters in 8 bits with a scale for each row, the rest in float16; with what each moment finds in the scenes of `{demo}`.
  `alone.safetensors`: the same student from the same weights, scenes, labels and steps, finished, without a teacher; in float16.
* **How they were made.** `make moments`: {steps:,} steps of {batch} scenes (`{data}`), AdamW with a cosine. The first was taught by the shipped `hdl-teacher` with FD, AD and PD (weights {lambdas}, temperature {temperature:g}, KL as printed). torch {torch}, float32 on a CPU.
* **For.** The attention explorer. **Not for** searching: `hdl-student-fast-taught` searches better. None has seen a photograph.
* **What they find** in a world they have not seen (`{fresh}`): one world, one seed of weights.

| moment | steps | FD of untrained, levels 0 to 3 | AD of untrained, levels 0 to 3 | mAP | top-1 |
|---|---|---|---|---|---|
{rows}
"""


def card(rows, twin, model):
    "The card: what the moments are and what they find."
    share = lambda r, k: ', '.join(f'{a / b:.0%}' for a, b in zip(r[k], rows[0][k]))
    line = lambda r: f"| {r['name']} | {r['step']:,} | {share(r, 'FD')} | {share(r, 'AD')} | {r['mAP']:.3f} | {r['top1']:.3f} |"
    table = '\n'.join(map(line, [*rows, dict(name='twin without a teacher', step=rows[-1]['step']) | twin]))
    return CARD.format(params=sum(p.numel() for p in model.parameters()), demo=DEMO, steps=rows[-1]['step'], batch=HOW.batch_size, data=HOW.spec(), lambdas=HOW.lambdas,
                       temperature=HOW.temperature, torch=torch.__version__.partition('+')[0], fresh=FRESH, rows=table)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, default=Path('person_search_nb/weights/moments'), help='folder for the files')
    p.add_argument('--work', type=Path, default=Path('runs/moments'), help='folder for the trainings')
    p.add_argument('--share', type=float, default=1., help='share of the steps, for a quick try')
    a = p.parse_args()
    steps = train_both(a.work, a.share)
    models = [without_people(a.work / 'taught' / f'{s}.safetensors') for s in steps]
    rows = [dict(name=name_of(k, s), step=s) for k, s in enumerate(steps)]
    a.out.mkdir(parents=True, exist_ok=True)
    moments = in_two_files(a.out, models, rows)  # as they will be read: rounded to 8 bits
    save_model(without_people(a.work / 'alone' / f'{steps[-1]}.safetensors'), a.out / 'alone.safetensors', half=True, made_from=HOW.spec())
    teacher, alone = load_model(shipped_trunk('hdl-teacher')), load_model(a.out / 'alone.safetensors')
    gallery, queries = (open_dataset(FRESH, s, progress=False) for s in ('gallery', 'query'))
    seen = [look(teacher, gallery.image(i), gallery.truth(i)['boxes']) for i in tqdm(range(len(gallery)), 'teacher')]
    for row in tqdm(rows, 'moments'): row |= numbers(moments[row['name']], seen, gallery, queries)
    found = [sure(Gallery.from_model(moments[r['name']], demo_scenes(), progress=False)) for r in tqdm(rows, 'galleries')]
    in_two_files(a.out, models, rows, found, demo_scenes())
    atomic_write(a.out / 'README.md', card(rows, numbers(alone, seen, gallery, queries), alone).encode())


if __name__ == '__main__': main()
