"""Make the small trunks that ship with the package: person search in another synthetic world.

    python .ci/pretrain.py hdl-teacher              # on two cores, about 75 minutes
    python .ci/pretrain.py hdl-student-fast         # the student alone: no teacher is involved
    python .ci/pretrain.py hdl-student-fast --teacher person_search_nb/weights/hdl-teacher.safetensors --moments person_search_nb/weights/moments   # taught
    python .ci/pretrain.py e2e-rss --out runs/pretrain    # not shipped: VGG16; by cut-outs alone also resnet18, resnet50, googlenet, densenet121, for `person-search ablate --trunks`

The papers start from ImageNet; this is our stand-in for it: people, places and cameras of seed 9001, which no demo uses.
Stages of two kinds. (1) Cut-out people: views of one person are pulled together, everybody else in the batch is pushed away (supervised
contrastive loss); from random weights this takes off far sooner than a classifier of thousands. (2) Whole scenes: the detection
losses, and the same contrastive loss between the regions of interest. There people keep to bouts of eight scenes, so that a batch
shows each of them about four times; the teacher's last stage also remembers the people of the batches before, to be told apart from.
With `--teacher` all stages have one more loss and are otherwise the same: prediction distillation with everybody of that world for a
class. The teacher looks once at every person, from its true box; its embeddings are the class weights, its own soft assignment of a
person is the target, the student's embedding has to find the same one. Writes <out>/<model>.safetensors, or
<out>/<model>-taught.safetensors, in float16. The shipped trunks were made with these stages and steps, but the teacher's third
stage went on from a float16 copy of its second: a new run gives trunks like them, not the same bytes.
"""
import argparse
import math
import multiprocessing as mp
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from person_search_nb.anchors import fit_heights
from person_search_nb.roi_align import roi_align
from person_search_nb.people import stream
from person_search_nb.streets import SYNTH
from person_search_nb.synthetic import SynthWorld
from person_search_nb.model_files import load_trunk, save_model
from person_search_nb.distillation import prediction_distillation
from person_search_nb.models import build_model, load_model

BOUT, PEOPLE = 8, 12  # scenes of a bout, people who appear in it
WORLD = replace(SYNTH['tiny'], seed=9001, train_scenes=4800, train_ids=4800 // BOUT * PEOPLE, cameras=24, people=6., labelled=.9)
SMALLEST, HIDDEN = 40, .5  # px, share: who is smaller or more hidden teaches detection only
TAUGHT, SHARP = 5., .05  # weight and temperature of the distillation: at 0.1 the soft assignment says little of fine differences
PLAIN = dict(name='oim', width=0.25, anchors='pedestrian')
RECIPES = {    # arguments of `build_model`; then of each stage steps, learning rate, embeddings remembered; the first on cut-outs, the others in scenes
    'hdl-teacher': (dict(width=0.25, factored=True), (1200, 1e-3, 0), (900, 7e-4, 0), (720, 5e-4, 0), (2000, 8e-4, 1000)),
    'hdl-student-fast': (dict(width=0.625, rpn_channels=64), (1000, 2e-3, 0), (1000, 1e-3, 0), (2000, 1e-3, 0)),
    'e2e-rss': (dict(width=0.125, anchors='pedestrian', id_loss='softmax', batch_norm=True), (1500, 1e-3, 0), (300, 5e-4, 0)),
    **{trunk: (PLAIN | dict(trunk=trunk), (500, 1e-3, 0)) for trunk in ('resnet18', 'resnet50', 'googlenet', 'densenet121')},
}
SIZES = {'e2e-rss': (112, 112)}  # px of a cut-out, where VGG's head wants 7 x 7 cells


class Bouts(SynthWorld):
    "A world whose people keep to a bout of `BOUT` scenes in a row, each scene by another camera."

    @cached_property
    def plan(self):
        cfg, rng = self.config, stream(self.config.seed, 'plan', self._split)
        n = len(self)
        camera = np.concatenate([rng.permutation(cfg.cameras)[:BOUT] for _ in range(n // BOUT)])
        count = np.clip(rng.poisson(cfg.people, n), 2, PEOPLE)
        start = np.concatenate([[0], np.cumsum(count)])
        person = np.concatenate([rng.permutation(PEOPLE)[:c] + i // BOUT * PEOPLE for i, c in enumerate(count)])
        return camera, start, np.where(rng.random(len(person)) < cfg.labelled, person, -1)


@lru_cache(1)
def world(): return Bouts(WORLD)


def painted(i): return i, world().render(i)


def scenes(cache):
    "All pictures (S, h, w, 3) uint8 and truths; painted once (two cores: two minutes), then read from the file `cache`."
    truths = world().truths(progress=True)
    if not Path(cache).exists():
        pictures = np.empty((len(truths), *WORLD.size, 3), np.uint8)
        with mp.Pool() as pool:
            for i, picture in tqdm(pool.imap_unordered(painted, np.argsort(world().plan[0], kind='stable').tolist(), 8), 'painting', len(truths)): pictures[i] = picture
        np.save(cache, pictures)
    return np.load(cache, mmap_mode='r'), truths


class People:
    "Everybody in the scenes, one row each: who they are, where their scene's rows start, and what a teacher makes of them."

    def __init__(self, truths):
        self.ids = torch.from_numpy(np.concatenate([t['person_id'] for t in truths]))
        self.start = np.concatenate([[0], np.cumsum([len(t['boxes']) for t in truths])])
        self.taught, self.memory, self.remember = None, None, 0

    def rows(self, i, t):
        "The row of each person of scene `i`; -1 where the picture does not show enough."
        seen = (t['boxes'][:, 3] - t['boxes'][:, 1] >= SMALLEST) & (t['occluded'] < HIDDEN)
        return torch.from_numpy(np.where(seen, np.arange(self.start[i], self.start[i + 1]), -1))

    def losses(self, embedding, rows, picture=None):
        "Contrastive loss between those with an identity; with a teacher also KL(teacher || student) of who among all people resembles them."
        known = self.ids[rows] >= 0
        out = dict(id=contrast(embedding[known], self.ids[rows][known], None if picture is None else picture[known], self.memory))
        if self.taught is not None:
            mine, taught = F.normalize(embedding, dim=1), self.taught[rows]
            out['taught'] = TAUGHT * prediction_distillation(mine @ self.taught.T / SHARP, taught @ self.taught.T / SHARP, 1., hinton=True)
        if self.remember:  # a bout's people do not come back soon: those of the last batches are all others
            new = F.normalize(embedding[known].detach(), dim=1)
            self.memory = (new if self.memory is None else torch.cat([new, self.memory]))[:self.remember]
        return out


def look(model, pictures, truths, rows, mirrored=False):
    "Unit embeddings of everybody in these scenes, from the true boxes."
    images, boxes = [tensor(pictures[i]) for i in rows], [torch.from_numpy(truths[i]['boxes']) for i in rows]
    if mirrored:
        w = images[0].shape[2]
        images, boxes = [i.flip(-1) for i in images], [torch.stack([w - b[:, 2], b[:, 1], w - b[:, 0], b[:, 3]], 1) for b in boxes]
    return model.embed(images, boxes)


@torch.no_grad()
def teach(path, width, pictures, truths, batch=8):
    """What the teacher in the file `path` makes of everybody: (P, width) unit embeddings, the mean of the scene and its mirror image,
    in their `width` main directions (of the teacher's 512 numbers 320 keep 99.9% of the square)."""
    teacher, batches = load_model(path).eval(), [range(i, min(i + batch, len(truths))) for i in range(0, len(truths), batch)]
    e = torch.cat([F.normalize(look(teacher, pictures, truths, b) + look(teacher, pictures, truths, b, True), dim=1) for b in tqdm(batches, 'the teacher looks')])
    return F.normalize(e @ torch.linalg.svd(e, full_matrices=False)[2][:width].T, dim=1)


def tensor(picture): return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def cutouts(pictures, truths, people, size):
    "Every labelled person stretched to `size`, cut out a little askew: (N, 3, *size) uint8, and their rows."
    cuts, rows = [], []
    for i, (picture, t) in enumerate(zip(tqdm(pictures, 'cutting out'), truths)):
        row, boxes = people.rows(i, t), torch.from_numpy(t['boxes'])
        boxes, row = boxes[known := (row >= 0) & (people.ids[row] >= 0)], row[known]
        if not len(row): continue
        boxes = boxes + .03 * (boxes[:, 3:] - boxes[:, 1:2]) * torch.randn(len(boxes), 4)
        cuts.append((roi_align(tensor(picture)[None], [boxes], size, 1.0, aligned=False) * 255).round().byte())
        rows.append(row)
    return torch.cat(cuts), torch.cat(rows)


def light(x, spread=.25):
    "A random gain of each colour channel of each picture: cameras differ."
    return (x * (1 + spread * torch.randn(len(x), 3, 1, 1)).clamp(.4, 1.8)).clamp(0, 1)


def contrast(e, ids, picture=None, others=None, temperature=.1):
    """Supervised contrastive loss: for each region with a positive, -log softmax of its positives' cosines among all others.
    Regions of one person in one picture are left out of each other's sum; `others` (M, D), unit length, are further people to tell apart."""
    unit = F.normalize(e, dim=1)
    same, self = ids[:, None] == ids, torch.eye(len(ids), dtype=torch.bool)
    logits = (unit @ unit.T / temperature).masked_fill(self if picture is None else same & (picture[:, None] == picture), -1e4)
    p = F.log_softmax(logits if others is None else torch.cat([logits, unit @ others.T / temperature], 1), 1)[:, :len(e)]
    positive = (same & (logits > -1e3)).float()
    has = positive.sum(1) > 0
    return -((p * positive).sum(1)[has] / positive.sum(1)[has]).mean()


def optimise(model, steps, lr, name, losses, save):
    "AdamW with a warm-up and a cosine; `losses()` gives the dict of losses of one step."
    opt = torch.optim.AdamW(model.parameters(), lr, weight_decay=.05)
    bar, shown = tqdm(range(steps), name, mininterval=10), {}
    for step in bar:
        for g in opt.param_groups: g['lr'] = lr * min(1, (step + 1) / 100) * .5 * (1 + math.cos(math.pi * step / steps))
        out = losses()
        opt.zero_grad(); sum(out.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.)
        opt.step()
        shown = {k: .98 * shown.get(k, v.item()) + .02 * v.item() for k, v in out.items()}
        bar.set_postfix({k: f'{v:.3f}' for k, v in shown.items()}, refresh=False)
        if step % 200 == 199 or step == steps - 1: save()


def learn_cutouts(model, data, people, number=24, views=4):
    pictures, rows = data
    ids = people.ids[rows]
    mine = [r for r in torch.argsort(ids, stable=True).split(torch.bincount(ids).tolist()) if len(r) >= views]
    def losses():
        pick = torch.cat([mine[i][torch.randperm(len(mine[i]))[:views]] for i in torch.randperm(len(mine))[:number].tolist()])
        x = pictures[pick].float() / 255
        mirrored = torch.rand(len(x)) < .5
        x[mirrored] = x[mirrored].flip(-1)
        return people.losses(model.roi_head.read(model.trunk(model.batch(list(light(x)))[0])).embedding, rows[pick])
    return losses


def learn_scenes(model, pictures, truths, people):
    order = []
    def losses():
        if not order: order.extend(torch.randperm(len(truths) // BOUT).tolist())
        rows = range(BOUT * order[0], BOUT * order.pop(0) + BOUT)
        x, targets = light(torch.stack([tensor(pictures[i]) for i in rows])), []
        h, w = x.shape[2:]
        zoom = float(torch.empty(()).uniform_(.75, 1.2))
        size = round(h * zoom), round(w * zoom)
        x = F.interpolate(x, size, mode='bilinear', antialias=True)
        for k, i in enumerate(rows):
            boxes = torch.from_numpy(truths[i]['boxes']) * torch.tensor([size[1] / w, size[0] / h] * 2)
            if torch.rand(()) < .5: x[k], boxes = x[k].flip(-1), torch.stack([size[1] - boxes[:, 2], boxes[:, 1], size[1] - boxes[:, 0], boxes[:, 3]], 1)
            targets.append(dict(boxes=boxes, person_id=people.rows(i, truths[i])))
        x, sizes = model.batch(list(x))
        features = model.trunk(x)
        proposals, _, out = model.rpn(features, sizes, targets)
        rois = model.sample_rois(proposals, targets)
        head = model.head(features, rois.boxes, rois.positive)
        out |= model.head_losses(head, replace(rois, person_id=torch.full_like(rois.person_id, -1)))  # without its classifier, instead:
        out['rpn_box'] = 5 * out['rpn_box']  # far smaller than the others, and proposals are only as good as it
        row, picture = (v[rois.positive] for v in (rois.person_id, torch.repeat_interleave(torch.tensor([len(b) for b in rois.boxes]))))
        return out | people.losses(head.embedding[row >= 0], row[row >= 0], picture[row >= 0])
    return losses


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('model', choices=list(RECIPES))
    p.add_argument('--steps', type=float, default=1.0, help='share of the steps, for a quick try')
    p.add_argument('--out', default='person_search_nb/weights', help='folder for <model>.safetensors')
    p.add_argument('--teacher', help='file of a trained teacher: the student learns its embeddings (<model>-taught.safetensors)')
    p.add_argument('--work', default='runs/pretrain', help='folder for the painted scenes (1.7 GB) and the finished stages: what is there is not made again')
    p.add_argument('--moments', help='folder: all stages but the last are kept there too, for the explorer')
    a = p.parse_args()
    settings, *stages = RECIPES[a.model]
    work = Path(a.work)
    work.mkdir(parents=True, exist_ok=True)
    pictures, truths = scenes(work / f'scenes{WORLD.seed}.npy')
    heights = fit_heights(np.concatenate([t['boxes'][:, 3] - t['boxes'][:, 1] for t in truths]))
    torch.manual_seed(0)
    # the classifier of these people is of no use to others: the file holds a model of one identity
    model = build_model(**dict(name=a.model) | settings, num_ids=1, heights=heights, rois_per_image=12, proposals=(60, 30)).train()
    name = f'{a.model}-taught' if a.teacher else a.model
    last = Path(a.out) / f'{name}.safetensors'
    people = People(truths)
    for k, (steps, lr, people.remember) in enumerate(stages):
        done = work / f'{name}-{k}.safetensors'
        save = lambda path: save_model(model, path, half=path == last, made_from=f'synth:tiny, seed {WORLD.seed}')
        if done.exists(): load_trunk(model, done); continue
        if a.teacher and people.taught is None: people.taught = teach(a.teacher, model.embedding_norm.num_features, pictures, truths)
        losses = learn_scenes(model, pictures, truths, people) if k else learn_cutouts(model, cutouts(pictures, truths, people, SIZES.get(a.model, (96, 40))), people)
        optimise(model, max(1, round(steps * a.steps)), lr, f'{name}, {"scenes" if k else "cut-outs"}', losses, lambda: save(last))
        save(done)
        if a.moments and k < len(stages) - 1: save_model(model, Path(a.moments) / done.name, half=True)
    save(last)


if __name__ == '__main__': main()
